//! Requests whose end two parsers could see at different places: one of them hides a second request.

use super::{LIMIT, Steady, bridge};
use crate::{
    sending::{Raw, copies, journey, records},
    support::{self, client::Http},
};

/// What stands in the place where a second request would be found.
fn hidden() -> String {
    let body = journey("smuggled");
    format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The statuses that are answered until the server closes the connection.
async fn statuses(bytes: &str) -> Vec<u16> {
    let mut raw = Raw::open(&bridge().sender(Http::One)).await;
    raw.write(bytes).await;
    let mut statuses = Vec::new();
    let read = async {
        while let Some(answer) = raw.answer().await {
            statuses.push(answer.status);
        }
    };
    tokio::time::timeout(LIMIT, read).await.expect("the server closes the connection");
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_two_ends_is_refused_or_taken_by_its_chunks_and_the_connection_closed() {
    let steady = Steady::start(bridge(), "smuggling");
    let event = journey("by its chunks");
    let chunks = format!("{:x}\r\n{event}\r\n0\r\n\r\n", event.len());
    let hidden = hidden();
    // Headers, the body, and what is answered before the connection is closed.
    let requests: &[(&str, &str, &[u16])] = &[
        ("content-length: 5\r\ntransfer-encoding: chunked", &chunks, &[200]),
        ("transfer-encoding: chunked\r\ncontent-length: 5", &chunks, &[200]),
        ("transfer-encoding: chunked\r\ncontent-length: +5", &chunks, &[200]),
        ("content-length: 0\r\ntransfer-encoding: identity", "", &[400]),
        ("transfer-encoding: identity", "", &[400]),
        ("transfer-encoding: chunked, identity", &chunks, &[400]),
        ("transfer-encoding: identity, chunked", &chunks, &[400]),
        ("transfer-encoding: chunked, chunked", &chunks, &[400]),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity", &chunks, &[400]),
        ("transfer-encoding: identity\r\ntransfer-encoding: chunked", &chunks, &[400]),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", &chunks, &[400]),
        ("transfer-encoding: xchunked", &chunks, &[400]),
        ("transfer-encoding: \"chunked\"", &chunks, &[400]),
        ("transfer-encoding : chunked", &chunks, &[400]),
        ("transfer-encoding:\u{b}chunked", &chunks, &[400]),
        ("transfer-encoding: gzip, chunked", &chunks, &[400]),
        ("content-length: 0\r\ncontent-length: 5", "", &[400]),
        ("content-length: 0, 0", "", &[400]),
        ("content-length: 0, 5", "", &[400]),
        ("content-length: +0", "", &[400]),
        ("content-length: -1", "", &[400]),
        ("content-length: 0x0", "", &[400]),
        ("content-length: 0 0", "", &[400]),
        ("content-length: 18446744073709551616", "", &[400]),
        ("content-length:", "", &[400]),
        ("x: 1\r\n content-length: 0", "", &[400]),
        ("x: 1\r\n\tcontent-length: 0", "", &[400]),
        ("content-length: 0\0", "", &[400]),
        ("content\0-length: 0", "", &[400]),
        ("x: 1\rcontent-length: 0", "", &[400]),
        (" content-length: 0", "", &[400]),
        ("content-length", "", &[400]),
        // A chunk's length.
        ("transfer-encoding: chunked", "+1\r\nx\r\n0\r\n\r\n", &[400]),
        ("transfer-encoding: chunked", "0x1\r\nx\r\n0\r\n\r\n", &[400]),
        ("transfer-encoding: chunked", "-1\r\nx\r\n0\r\n\r\n", &[400]),
        ("transfer-encoding: chunked", "ffffffffffffffff1\r\nx\r\n0\r\n\r\n", &[400]),
        ("transfer-encoding: chunked", "1;a\nx\r\n0\r\n\r\n", &[400]),
        ("transfer-encoding: chunked", "1\r\nxy\r\n0\r\n\r\n", &[400]),
        ("transfer-encoding: chunked", "\r\n0\r\n\r\n", &[400]),
    ];
    let mut wrong = Vec::new();
    for (headers, body, expected) in requests {
        let found = statuses(&format!("POST / HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n{body}{hidden}")).await;
        if found != *expected {
            wrong.push(format!("{headers:?} {body:?}: {found:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!copies(support::kafka(), bridge(), "journey").contains_key("smuggled"));
    let smuggled = |value: &[u8]| String::from_utf8_lossy(value).contains("smuggled");
    let found: Vec<_> = records(support::kafka(), bridge())
        .into_iter()
        .filter(|record| record.value.as_deref().is_some_and(smuggled))
        .collect();
    assert!(found.is_empty(), "{found:?}");
    steady.assert_undisturbed().await;
}
