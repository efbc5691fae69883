//! Cancel requests in a storm: a request that matches no session cancels none.

use crate::SERVER;
use crate::common::raw::{read_to_close, socket};
use crate::common::{Client, new_database, port, proxy};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_storm_of_cancels_hits_nobody_else() {
    let running = proxy(&SERVER, |_| {});
    let at = port(&running);
    let database = new_database(&SERVER, "storm");
    let client = || Client::connect(at, &SERVER.user, &database);
    client().ok("CREATE TABLE t (id int)");
    let old: Vec<Vec<u8>> = (0..5)
        .map(|_| {
            let client = client();
            let key = client.key.clone();
            client.goodbye();
            key
        })
        .collect();
    let mut reader = Client::connect(SERVER.port, &SERVER.user, &database);
    reader.ok("BEGIN; SELECT * FROM t");
    let mut waiting = client();
    waiting.send_query("ALTER TABLE t ADD COLUMN a int");
    let mut bystanders: Vec<Client> = (0..3).map(|_| client()).collect();
    let target = client();
    let target_key = target.key.clone();
    let keys: Vec<Vec<u8>> = bystanders.iter().chain([&waiting]).map(|client| client.key.clone()).collect();
    let done = AtomicBool::new(false);
    let (done, keys, old, target_key) = (&done, &keys, &old, &target_key);
    std::thread::scope(|scope| {
        for bystander in &mut bystanders {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    bystander.ok("SELECT pg_sleep(0.005)");
                    bystander.ok("CREATE TEMP TABLE x (id int); DROP TABLE x");
                }
            });
        }
        let target = scope.spawn(move || {
            let mut target = target;
            let mut struck = 0;
            while !done.load(Ordering::Relaxed) {
                let outcome = target.query("SELECT pg_sleep(0.05)");
                assert!(matches!(outcome.error.as_deref(), None | Some("57014")), "{outcome:?}");
                struck += usize::from(outcome.error.is_some());
            }
            struck
        });
        let stormers: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn(move || {
                    for turn in 0..100 {
                        for request in requests(n, turn, keys, old) {
                            cancel(at, &request);
                        }
                        if turn % 10 == n {
                            cancel(at, target_key);
                        }
                    }
                })
            })
            .collect();
        let stormed = stormers.into_iter().map(|stormer| stormer.join()).collect::<Vec<_>>();
        done.store(true, Ordering::Relaxed);
        assert!(stormed.iter().all(Result::is_ok));
        assert!(target.join().expect("the target") > 0, "who was meant was hit");
    });
    reader.ok("COMMIT");
    let outcome = waiting.outcome();
    assert_eq!((outcome.error, outcome.tags), (None, vec!["ALTER TABLE".to_owned()]));
    running.stop_now();
}

/// Cancel requests that mean nobody.
fn requests(n: usize, turn: usize, keys: &[Vec<u8>], old: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let right = &keys[(n + turn) % keys.len()];
    let other = &keys[(n + turn + 1) % keys.len()];
    let mut wrong = right.clone();
    wrong[4 + turn % 4] ^= 1 << (turn % 8);
    let unknown = [&(100_000 + u32::try_from(turn).unwrap()).to_be_bytes()[..], &right[4..]].concat();
    // One session's pid with another's key; a key that is cut, and one that goes on.
    let mixed = [&right[..4], &other[4..]].concat();
    vec![wrong, unknown, mixed, right[..6].to_vec(), [&right[..], b"x"].concat(), old[turn % old.len()].clone()]
}

fn cancel(port: u16, key: &[u8]) {
    let mut packet = u32::try_from(8 + key.len()).unwrap().to_be_bytes().to_vec();
    packet.extend([&80_877_102_u32.to_be_bytes()[..], key].concat());
    let mut stream = socket(port);
    stream.write_all(&packet).expect("send");
    assert_eq!(read_to_close(&mut stream), b"");
}
