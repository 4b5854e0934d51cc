//! Requests whose end two parsers could see at different places: one of them hides a second request.

use crate::{
    HANG,
    bridge::Bridge,
    client::{Answer, Http},
    sending::{Raw, journey},
};

/// In every body that must not be found anywhere.
pub const SMUGGLED: &str = "smuggled";

/// Headers and the body of requests that are answered 400, and their connections closed.
const REFUSED: &[(&str, &str)] = &[
    ("content-length: 0\r\ntransfer-encoding: identity", ""),
    ("transfer-encoding: identity", ""),
    ("transfer-encoding: chunked, identity", CHUNKS),
    ("transfer-encoding: identity, chunked", CHUNKS),
    ("transfer-encoding: chunked, chunked", CHUNKS),
    ("transfer-encoding: chunked\r\ntransfer-encoding: identity", CHUNKS),
    ("transfer-encoding: identity\r\ntransfer-encoding: chunked", CHUNKS),
    ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", CHUNKS),
    ("transfer-encoding: xchunked", CHUNKS),
    ("transfer-encoding: \"chunked\"", CHUNKS),
    ("transfer-encoding : chunked", CHUNKS),
    ("transfer-encoding:\u{b}chunked", CHUNKS),
    ("transfer-encoding: gzip, chunked", CHUNKS),
    ("content-length: 0\r\ncontent-length: 5", ""),
    ("content-length: 0, 0", ""),
    ("content-length: 0, 5", ""),
    ("content-length: +0", ""),
    ("content-length: -1", ""),
    ("content-length: 0x0", ""),
    ("content-length: 0 0", ""),
    ("content-length: 18446744073709551616", ""),
    ("content-length:", ""),
    ("x: 1\r\n content-length: 0", ""),
    ("x: 1\r\n\tcontent-length: 0", ""),
    ("content-length: 0\0", ""),
    ("content\0-length: 0", ""),
    ("x: 1\rcontent-length: 0", ""),
    (" content-length: 0", ""),
    ("content-length", ""),
    // A chunk's length.
    ("transfer-encoding: chunked", "+1\r\nx\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "0x1\r\nx\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "-1\r\nx\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "ffffffffffffffff1\r\nx\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "1;a\nx\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "1\nx\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "1\r\nx\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "1\0\r\nx\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", " 1\r\nx\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "1\rx\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "1\r\nxy\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "\r\n0\r\n\r\n"),
];

/// Headers of requests whose body is taken by its chunks, whatever the length beside them says.
const BY_CHUNKS: [&str; 3] = [
    "content-length: 5\r\ntransfer-encoding: chunked",
    "transfer-encoding: chunked\r\ncontent-length: 5",
    "transfer-encoding: chunked\r\ncontent-length: +5",
];

/// No event: where it is taken for one all the same, it is a dead letter.
const CHUNKS: &str = "8\r\nsmuggled\r\n0\r\n\r\n";

/// What stands in the place where a second request would be found.
fn hidden() -> String {
    let body = journey(SMUGGLED);
    format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// All that is answered until the server closes the connection.
async fn answers(bridge: &Bridge, headers: &str, body: &str) -> Vec<Answer> {
    let mut raw = Raw::open(&bridge.sender(Http::One)).await;
    raw.write(format!("POST / HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n{body}{}", hidden())).await;
    let mut answers = Vec::new();
    let read = async {
        while let Some(answer) = raw.answer().await {
            answers.push(answer);
        }
    };
    tokio::time::timeout(HANG, read).await.expect("the server closes the connection");
    answers
}

/// Each is answered 400, nothing after it is looked at.
pub async fn refused(bridge: &Bridge) {
    let mut wrong = Vec::new();
    for (headers, body) in REFUSED {
        let statuses: Vec<u16> = answers(bridge, headers, body).await.iter().map(|answer| answer.status).collect();
        if statuses != [400] {
            wrong.push(format!("{headers:?} {body:?}: {statuses:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each body is taken by its chunks, nothing after it is looked at. The answers in the order of the bodies.
pub async fn taken_by_chunks(bridge: &Bridge, bodies: [&str; BY_CHUNKS.len()]) -> Vec<Answer> {
    let mut taken = Vec::new();
    for (headers, body) in BY_CHUNKS.iter().zip(bodies) {
        let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let mut answers = answers(bridge, headers, &chunks).await;
        assert_eq!(answers.len(), 1, "{headers:?}: {answers:?}");
        assert_eq!(answers[0].status, 200, "{headers:?}: {answers:?}");
        taken.append(&mut answers);
    }
    taken
}
