//! What clients that mean harm do, and that the bridge puts an end to each. The tests of one bridge and the fault bench
//! share it.

pub mod frames;
pub mod smuggling;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, WriteHalf},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use self::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS, RST_STREAM, frame, literal,
    open, post,
};
use crate::{
    HANG,
    bridge::Bridge,
    client::{Http, TlsStream},
    sending::{BOTH, Parts, assert_refused, head, post_parts},
    stopwatch::Stopwatch,
};

/// Waits for the server's end of a connection; how long that took.
pub async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> Duration {
    let started = Instant::now();
    let mut rest = Vec::new();
    let _ = timeout(HANG, stream.read_to_end(&mut rest)).await.expect("the server closes it");
    started.elapsed()
}

/// Heads that come byte by byte, one for each item; where that is a body, after its request was answered on the same
/// connection. Each is cut off in its time.
pub async fn slow_heads(bridge: &Bridge, before: Vec<Option<String>>, head_max: Duration) {
    let watch = Stopwatch::start();
    let sender = Arc::new(bridge.sender(Http::One));
    let mut clients = JoinSet::new();
    for body in before {
        let sender = Arc::clone(&sender);
        clients.spawn(async move {
            let mut stream = sender.connect().await.unwrap();
            if let Some(body) = body {
                stream.write_all(format!("{}{body}", head("/", body.len())).as_bytes()).await.unwrap();
                let read = stream.read(&mut [0; 2048]).await.unwrap();
                assert!(read > 0, "an answer");
            }
            let started = Instant::now();
            let (mut reader, writer) = tokio::io::split(stream);
            tokio::select! {
                _ = until_closed(&mut reader) => {}
                () = trickle_head(writer) => {}
            }
            started.elapsed()
        });
    }
    for elapsed in clients.join_all().await {
        assert!(elapsed >= head_max, "{elapsed:?}");
        watch.assert_allows(elapsed, head_max * 10);
    }
}

async fn trickle_head(mut writer: WriteHalf<TlsStream>) {
    for byte in b"POST / HTTP/1.1\r\nx-filling: ".iter().chain(std::iter::repeat(&b'x')) {
        if writer.write_all(&[*byte]).await.is_err() || writer.flush().await.is_err() {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Bodies that come byte by byte: each is answered 408.
pub async fn slow_bodies(bridge: &Bridge, clients: usize) {
    let mut posts = JoinSet::new();
    for number in 0..clients {
        let http = BOTH[number % 2];
        let sender = bridge.sender(http);
        posts.spawn(async move {
            let (parts, source) = Parts::new();
            let trickle = async {
                for part in std::iter::repeat_n("1", 1000) {
                    if parts.send(part.into()).await.is_err() {
                        // The answer is there.
                        std::future::pending::<()>().await;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            };
            let post = post_parts(sender, http, "/", &[("content-length", "1000")], source);
            tokio::select! {
                answer = post => answer.unwrap(),
                () = trickle => panic!("the whole body was waited for"),
            }
        });
    }
    for answer in posts.join_all().await {
        assert_refused(&answer, 408, "body_too_slow");
    }
}

/// Handshakes that do not begin, or do not end.
pub async fn half_open(bridge: &Bridge, clients: usize) -> Vec<TcpStream> {
    let mut opened = Vec::new();
    for number in 0..clients {
        let mut tcp = TcpStream::connect(bridge.ingress).await.unwrap();
        if number % 2 == 0 {
            // The begin of a ClientHello.
            tcp.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01]).await.unwrap();
        }
        opened.push(tcp);
    }
    opened
}

/// Connections that have done their handshake and say nothing more.
pub async fn idle(bridge: &Bridge, clients: usize) -> Vec<TlsStream> {
    let sender = Arc::new(bridge.sender(Http::One));
    let mut opened = Vec::new();
    while opened.len() < clients {
        let some = (opened.len()..clients).take(50).map(|_| {
            let sender = Arc::clone(&sender);
            tokio::spawn(async move { sender.connect().await.unwrap() })
        });
        for connection in some.collect::<Vec<_>>() {
            opened.push(connection.await.unwrap());
        }
    }
    opened
}

/// Writes `frames` until the server has had enough; its GOAWAY's code, if it could say one.
async fn flood(bridge: &Bridge, frames: impl Iterator<Item = Vec<u8>>) -> Option<u32> {
    let (mut writer, mut reader) = open(bridge, &[]).await;
    let write = async {
        for frame in frames {
            if !writer.write(&frame).await {
                return;
            }
        }
        panic!("the server took all of it");
    };
    let (rest, ()) = timeout(HANG, async { tokio::join!(reader.rest(), write) }).await.expect("an end of it");
    rest.iter().find(|frame| frame.kind == GOAWAY && frame.code() != 0).map(Frame::code)
}

/// Streams that are reset as fast as they are opened end the connection.
pub async fn rapid_reset(bridge: &Bridge, connections: usize) {
    let mut calmed = 0;
    for _ in 0..connections {
        // Many in one record, more than the server lets wait: that is how they come faster than they are looked at. In all
        // more than the sockets hold, or a server that is slow would seem to have taken them.
        let pairs = (0..1000).map(|round| {
            let pair = |number: u32| {
                let stream = (round * 1000 + number) * 2 + 1;
                let mut pair = frame(HEADERS, END_HEADERS, stream, &post());
                pair.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
                pair
            };
            (0..1000).flat_map(pair).collect()
        });
        calmed += usize::from(flood(bridge, pairs).await == Some(ENHANCE_YOUR_CALM));
    }
    // The GOAWAY may be lost in the reset that follows it.
    assert!(calmed > 0);
}

/// A head that never ends ends the connection, whatever its frames hold.
pub async fn continuation_flood(bridge: &Bridge) {
    let filling: Vec<u8> = (0..100).flat_map(|number| literal(&format!("x-{number}"), &"x".repeat(100))).collect();
    for part in [&b""[..], &literal("x", "y"), &filling] {
        let head = std::iter::once(frame(HEADERS, 0, 1, &post()));
        let endless = std::iter::repeat_n(frame(CONTINUATION, 0, 1, part), 1_000_000);
        let code = flood(bridge, head.chain(endless)).await;
        assert!([None, Some(ENHANCE_YOUR_CALM)].contains(&code), "{code:?}");
    }
}

/// So does a body of empty frames.
pub async fn empty_data_flood(bridge: &Bridge) {
    let head = std::iter::once(frame(HEADERS, END_HEADERS, 1, &post()));
    let endless = std::iter::repeat_n(frame(DATA, 0, 1, b""), 1_000_000);
    let code = flood(bridge, head.chain(endless)).await;
    assert!([None, Some(ENHANCE_YOUR_CALM)].contains(&code), "{code:?}");
}

/// Heads that stop between two frames, in the middle of one, and in the middle of a frame's own head: all are cut off.
pub async fn half_heads(bridge: &Bridge, head_max: Duration) {
    let head = frame(HEADERS, 0, 1, &post());
    for part in [&head[..], &head[..head.len() - 1], &head[..3]] {
        let (mut writer, mut reader) = open(bridge, &[]).await;
        let watch = Stopwatch::start();
        assert!(writer.write(part).await);
        reader.rest().await;
        watch.assert_within(head_max * 3 + Duration::from_secs(3));
    }
}
