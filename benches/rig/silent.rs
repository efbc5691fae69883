//! A stand-in for a server with thousands of backends, which no machine of a bench's size could run. It answers a login and
//! one simple Query, and then stays silent. It serves only to measure the memory that a proxy holds for each session.

use bytes::BytesMut;
use pgsluice::wire::message::put_frame;
use pgsluice::wire::reply::{put_command_complete, put_ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Starts it on a thread of its own, which ends with the process; gives its port.
pub fn start() -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(serve(stream));
            }
        });
    });
    port
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut startup).await?;
    stream.write_all(&welcome()).await?;
    let mut header = [0; 5];
    loop {
        stream.read_exact(&mut header).await?;
        let [tag, length @ ..] = header;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut body).await?;
        if tag == b'Q' {
            let mut answer = BytesMut::new();
            put_command_complete(&mut answer, "SELECT 0");
            put_ready(&mut answer, b'I');
            stream.write_all(&answer).await?;
        }
    }
}

/// As PostgreSQL's: AuthenticationOk, parameters, a key, ReadyForQuery.
fn welcome() -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(&mut out, b'R', |b| b.extend_from_slice(&[0; 4]));
    for (name, value) in [
        ("server_version", "15.0"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
    ] {
        put_frame(&mut out, b'S', |b| {
            for text in [name, value] {
                b.extend_from_slice(text.as_bytes());
                b.extend_from_slice(&[0]);
            }
        });
    }
    put_frame(&mut out, b'K', |b| b.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2]));
    put_ready(&mut out, b'I');
    out
}
