//! Tests of the ring alone: it keeps the order of bytes, backpressure and errors, and leaves nothing behind.

use super::*;
use crate::net::tasks;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs a test on a runtime with a ring, unless the system forbids a ring. Checks that no socket and no receive is left.
fn on_a_ring<F: Future<Output = ()> + 'static>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bell = match start(0) {
            Ok(bell) => bell,
            Err(error) => {
                eprintln!("not tested: {error}");
                return;
            }
        };
        let to_the_end = async {
            tokio::time::timeout(Duration::from_secs(60), test).await.expect("no test takes this long");
            // The ring's next turns end the operations that are still under way.
            while counts() != (0, 0, 0) {
                tokio::task::yield_now().await;
            }
        };
        tasks::work(Some(bell), to_the_end).await;
    });
    drop(runtime);
    stop();
}

fn counts() -> (usize, usize, usize) {
    RING.with_borrow(|ring| ring.as_ref().unwrap().counts())
}

/// A peer that blocks, and the other end of its connection.
fn pair() -> (TcpStream, RingStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (peer, RingStream::new(ours.into()).unwrap())
}

async fn read(stream: &mut RingStream, room: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; room];
    let mut buf = ReadBuf::new(&mut bytes);
    poll_fn(|cx| stream.poll_read(cx, &mut buf)).await?;
    Ok(buf.filled().to_vec())
}

async fn write(stream: &mut RingStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| stream.poll_write(cx, bytes)).await?;
        bytes = &bytes[n..];
    }
    poll_fn(|cx| stream.poll_flush(cx)).await
}

#[test]
fn bytes_arrive_in_the_order_of_the_writes() {
    on_a_ring(async {
        let (mut peer, mut ours) = pair();
        // Small and large writes alternate and exceed the room of the socket, so queued, direct, partial and later sends
        // follow each other.
        let pieces: Vec<Vec<u8>> = (0..4000_usize).map(|n| vec![n as u8; 1 + n * 7919 % 9000]).collect();
        let whole: Vec<u8> = pieces.concat();
        let expected = whole.len();
        let (full, is_full) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            is_full.recv().unwrap();
            let mut got = Vec::new();
            peer.read_to_end(&mut got).unwrap();
            got
        });
        for piece in &pieces {
            let mut writing = std::pin::pin!(write(&mut ours, piece));
            poll_fn(|cx| {
                let written = writing.as_mut().poll(cx);
                if written.is_pending() {
                    // From here on the peer reads.
                    let _ = full.send(());
                }
                written
            })
            .await
            .unwrap();
        }
        poll_fn(|cx| ours.poll_shutdown(cx)).await.unwrap();
        let got = tokio::task::spawn_blocking(|| reader.join().unwrap()).await.unwrap();
        assert_eq!(got.len(), expected);
        assert!(got == whole, "other bytes than were written");
    });
}

#[test]
fn what_was_written_goes_out_though_the_stream_is_dropped_at_once() {
    on_a_ring(async {
        let (mut peer, mut ours) = pair();
        write(&mut ours, b"the last words").await.unwrap();
        drop(ours);
        let mut got = String::new();
        peer.read_to_string(&mut got).unwrap();
        assert_eq!(got, "the last words");
    });
}

#[test]
fn reads_of_any_size_bring_every_byte_and_then_the_end() {
    on_a_ring(async {
        let (mut peer, mut ours) = pair();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 31 % 251) as u8).collect();
        let copy = sent.clone();
        let writer = std::thread::spawn(move || peer.write_all(&copy).unwrap());
        let mut got = Vec::new();
        for room in [1, 5, 4096, 65_536].into_iter().cycle() {
            let part = read(&mut ours, room).await.unwrap();
            if part.is_empty() {
                break;
            }
            got.extend(part);
        }
        tokio::task::spawn_blocking(|| writer.join().unwrap()).await.unwrap();
        assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
        assert!(read(&mut ours, 10).await.unwrap().is_empty(), "the end stays the end");
    });
}

#[test]
fn more_receives_than_buffers() {
    on_a_ring(async {
        let mut pairs: Vec<_> = (0..300).map(|_| pair()).collect();
        let mut reading = Vec::new();
        for (peer, ours) in &mut pairs {
            let mut room = [0; 100];
            let mut buf = ReadBuf::new(&mut room);
            assert!(poll_fn(|cx| Poll::Ready(ours.poll_read(cx, &mut buf).is_pending())).await);
            reading.push(peer.try_clone().unwrap());
        }
        tokio::task::yield_now().await;
        for peer in &mut reading {
            peer.write_all(b"all at once").unwrap();
        }
        for (_, ours) in &mut pairs {
            assert_eq!(read(ours, 100).await.unwrap(), b"all at once");
        }
    });
}

#[test]
fn a_peer_that_is_gone_is_an_error() {
    on_a_ring(async {
        let (peer, mut ours) = pair();
        // The peer has unread bytes, so it resets the connection.
        write(&mut ours, b"unread").await.unwrap();
        tokio::task::yield_now().await;
        let mut waiting = [0];
        while !matches!(peer.peek(&mut waiting), Ok(1)) {}
        drop(peer);
        assert!(read(&mut ours, 10).await.is_err());
        let failed = async {
            loop {
                write(&mut ours, b"more").await?;
                tokio::task::yield_now().await;
            }
        };
        let failed: io::Result<()> = failed.await;
        assert!(failed.is_err());
    });
}

#[test]
fn ten_thousand_comings_and_goings_leave_nothing() {
    on_a_ring(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let mut places = 0;
        for n in 0..10_000 {
            let mut peer = TcpStream::connect(address).unwrap();
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut ours = RingStream::new(socket.into()).unwrap();
            match n % 4 {
                // Streams are dropped with a receive under way, with bytes to send, with unread bytes, and with nothing.
                0 => {
                    let mut room = [0; 10];
                    let mut buf = ReadBuf::new(&mut room);
                    assert!(poll_fn(|cx| Poll::Ready(ours.poll_read(cx, &mut buf).is_pending())).await);
                }
                1 => write(&mut ours, b"bye").await.unwrap(),
                2 => {
                    peer.write_all(b"hello").unwrap();
                    assert_eq!(read(&mut ours, 2).await.unwrap(), b"he");
                }
                _ => {}
            }
            drop(ours);
            if n % 100 == 99 {
                while counts() != (0, 0, 0) {
                    tokio::task::yield_now().await;
                }
                if n == 99 {
                    places = descriptors();
                }
            }
        }
        // Other tests of this process have descriptors at the same time.
        assert!(descriptors() < places + 1000, "{places} descriptors became {}", descriptors());
    });
}

#[test]
fn a_ring_that_ends_first_takes_its_sockets_with_it() {
    let (mut peer, ours) = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let Ok(bell) = runtime.block_on(async { start(0) }) else { return };
        let (peer, mut ours) = pair();
        let (give_back, given_back) = std::sync::mpsc::channel();
        runtime.block_on(tasks::work(Some(bell), async move {
            let mut room = [0; 10];
            let mut buf = ReadBuf::new(&mut room);
            assert!(poll_fn(|cx| Poll::Ready(ours.poll_read(cx, &mut buf).is_pending())).await);
            tokio::task::yield_now().await;
            give_back.send(ours).unwrap();
        }));
        let ours = given_back.recv().unwrap();
        drop(runtime);
        stop();
        (peer, ours)
    };
    assert_eq!(peer.read(&mut [0; 10]).unwrap(), 0, "its socket is closed");
    drop(ours);
}

#[test]
fn what_is_not_on_the_ring_goes_on_beside_a_busy_one() {
    on_a_ring(async {
        let (mut peer, mut ours) = pair();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let echo = std::thread::spawn(move || {
            let mut byte = [0];
            while !stopped.load(Ordering::Relaxed) && peer.write_all(b"x").is_ok() && peer.read_exact(&mut byte).is_ok()
            {
            }
        });
        let busy = tasks::spawn(async move {
            while read(&mut ours, 1).await.is_ok_and(|byte| !byte.is_empty()) {
                write(&mut ours, b"x").await.unwrap();
            }
        });
        // The runtime's own socket, its timers, other threads and its other tasks all get their turn.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let other = std::thread::spawn(move || {
            let mut far = TcpStream::connect(at).unwrap();
            let mut byte = [0];
            for n in 0..200_u32 {
                far.write_all(b"y").unwrap();
                far.read_exact(&mut byte).unwrap();
                tell.send(n).unwrap();
            }
        });
        let (mut near, _) = listener.accept().await.unwrap();
        for n in 0..200 {
            let byte = near.read_u8().await.unwrap();
            near.write_u8(byte).await.unwrap();
            assert_eq!(told.recv().await, Some(n));
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::spawn(async {}).await.unwrap();
        }
        assert!(!busy.is_finished(), "the ring was busy all the time");
        stop.store(true, Ordering::Relaxed);
        busy.await.unwrap();
        tokio::task::spawn_blocking(|| (echo.join().unwrap(), other.join().unwrap())).await.unwrap();
    });
}

/// Other threads wake a worker by an eventfd of the runtime's. A ring that is woken that way must not miss its own news
/// later.
#[test]
fn a_worker_that_falls_asleep_and_is_woken_from_elsewhere_misses_nothing() {
    on_a_ring(async {
        let (mut peer, mut ours) = pair();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        // The test uses no timer of the runtime's, since a timer would wake the worker, too.
        let caller = std::thread::spawn(move || {
            while tell.send(()).is_ok() {
                std::thread::sleep(Duration::from_micros(700));
            }
        });
        let asker = std::thread::spawn(move || {
            let mut byte = [0];
            for n in 0..1000 {
                // The pause is about as long as a worker stays awake without work.
                std::thread::sleep(Duration::from_micros(1500 + n));
                peer.write_all(b"x").unwrap();
                peer.read_exact(&mut byte).unwrap();
            }
        });
        let echo = tasks::spawn(async move {
            while read(&mut ours, 1).await.is_ok_and(|byte| !byte.is_empty()) {
                write(&mut ours, b"x").await.unwrap();
            }
        });
        let heard = tasks::spawn(async move { while told.recv().await.is_some() {} });
        echo.await.unwrap();
        heard.abort();
        tokio::task::spawn_blocking(|| (caller.join().unwrap(), asker.join().unwrap())).await.unwrap();
    });
}

#[test]
fn a_ring_that_is_of_no_more_use_ends_its_sessions_and_tells_their_peers() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Ok(bell) = runtime.block_on(async { start(0) }) else { return };
    let (mut peer, mut ours) = pair();
    let (tell, told) = std::sync::mpsc::channel();
    runtime.block_on(tasks::work(Some(bell), async move {
        let reading = tasks::spawn(async move { read(&mut ours, 1).await.is_err() });
        tokio::task::yield_now().await;
        with_ring(Driver::fail_for_good);
        tell.send(reading.await.unwrap()).unwrap();
        // This happens while the worker lives on.
        tokio::task::spawn_blocking(move || assert_eq!(peer.read(&mut [0]).unwrap(), 0)).await.unwrap();
    }));
    assert!(told.recv().unwrap(), "the session hears of it");
    drop(runtime);
    stop();
}

#[test]
fn a_panic_of_the_main_task_is_the_workers() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(tasks::work(start(0).ok(), async { panic!("as is meant") }));
    }));
    drop(runtime);
    stop();
    assert!(caught.is_err());
}
