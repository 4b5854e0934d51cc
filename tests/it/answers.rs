//! The table of answers, from outside, over HTTP/1.1 and HTTP/2.

use std::{io::Write, sync::OnceLock, time::Duration};

use http_body_util::Full;
use hyper::{Method, Request, body::Bytes};
use serde_json::json;

use crate::{
    attacks::frames::{self, frame},
    sending::{BOTH, Parts, Raw, assert_refused, copies, event, head, journey, noise, post_parts, records},
    support::{
        self,
        bridge::{Bridge, SENDER, Setup},
        certs::ClientOptions,
        client::{Answer, Http},
        stopwatch::Stopwatch,
        topics::Record,
        wait_until,
    },
};

const BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a body over the limit that its stub has.
const STUB_BYTES: usize = 16 * 1024;

/// The bridge that these tests share. It waits long for Kafka, so that a busy machine changes no answer.
fn bridge() -> &'static Bridge {
    static BRIDGE: OnceLock<Bridge> = OnceLock::new();
    BRIDGE.get_or_init(|| {
        let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000");
        setup.set("ingress.body_bytes_max", &BODY_BYTES_MAX.to_string()).start()
    })
}

/// The record that a 200 says to be committed.
#[track_caller]
fn record_at(answer: &Answer, feed: &str) -> Record {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    let receipt = answer.body.as_object().unwrap();
    assert_eq!(receipt.keys().collect::<Vec<_>>(), ["topic", "partition", "offset"], "{answer:?}");
    let topic = bridge().topic(feed);
    assert_eq!(receipt["topic"], json!(topic), "{answer:?}");
    let records = support::kafka().read(&topic);
    let place = (receipt["partition"].as_i64().unwrap(), receipt["offset"].as_i64().unwrap());
    let found = records.into_iter().find(|record| (i64::from(record.partition), record.offset) == place);
    found.unwrap_or_else(|| panic!("nothing stands where the receipt says: {answer:?}"))
}

/// The dead letters whose value is `body`.
fn dead_letters(body: &[u8]) -> Vec<Record> {
    let records = support::kafka().read(&bridge().topic("dead-letter"));
    records.into_iter().filter(|record| record.value.as_deref().unwrap_or_default() == body).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_event_is_answered_with_the_place_where_it_stands() {
    for http in BOTH {
        let id = format!("committed-{http:?}");
        let answer = bridge().sender(http).post("/events", &[], journey(&id)).await.unwrap();
        assert_eq!(record_at(&answer, "journey").header("ce_id"), Some(id.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_is_answered_with_the_place_of_its_dead_letter() {
    for http in BOTH {
        let body = format!("no event, over {http:?}");
        let answer = bridge().sender(http).post("/", &[], body.clone()).await.unwrap();
        let record = record_at(&answer, "dead-letter");
        assert_eq!(record.value.as_deref(), Some(body.as_bytes()));
        assert_eq!(record.header("__connect.errors.stage"), Some("READ"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_body_is_an_empty_dead_letter() {
    for http in BOTH {
        let answer = bridge().sender(http).post("/", &[], Bytes::new()).await.unwrap();
        let record = record_at(&answer, "dead-letter");
        assert_eq!(record.value.unwrap_or_default(), b"");
    }
    // Neither a length nor chunks: that is no body, too (RFC 9112, section 6.3).
    let mut raw = Raw::open(&bridge().sender(Http::One)).await;
    raw.write("POST / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let answer = raw.answer().await.unwrap();
    assert_eq!(record_at(&answer, "dead-letter").value.unwrap_or_default(), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_path_is_404_and_another_method_405() {
    for http in BOTH {
        let sender = bridge().sender(http);
        for path in ["/event", "/events/", "/events/1", "//", "/metrics"] {
            let answer = sender.post(path, &[], journey("path")).await.unwrap();
            assert_refused(&answer, 404, "not_found");
        }
        for (method, path) in
            [(Method::GET, "/"), (Method::PUT, "/events"), (Method::DELETE, "/events"), (Method::OPTIONS, "/")]
        {
            let request = Request::builder().method(method).uri(path).body(Full::default()).unwrap();
            let answer = sender.send(request).await.unwrap();
            assert_refused(&answer, 405, "method_not_allowed");
            assert_eq!(answer.headers["allow"], "POST", "{answer:?}");
        }
        let request = Request::head("/events").body(Full::default()).unwrap();
        assert_eq!(sender.send(request).await.unwrap().status, 405);
    }
    assert!(!copies(support::kafka(), bridge(), "journey").contains_key("path"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_host_is_not_clear_is_400() {
    let body = journey("host");
    let request = |hosts: &str| format!("POST / HTTP/1.1\r\n{hosts}content-length: {}\r\n\r\n{body}", body.len());
    for hosts in ["", "host: a\r\nhost: a\r\n", "host: a b\r\n", "host: user@a\r\n"] {
        let mut raw = Raw::open(&bridge().sender(Http::One)).await;
        raw.write(request(hosts)).await;
        assert_refused(&raw.answer().await.unwrap(), 400, "host_refused");
    }
    // `send` gives `:authority`.
    let answer = bridge().sender(Http::Two).post("/", &[("host", "elsewhere")], body.clone()).await.unwrap();
    assert_refused(&answer, 400, "host_refused");
    assert!(!copies(support::kafka(), bridge(), "journey").contains_key("host"));
    // HTTP/1.0 knows no `host`.
    let mut raw = Raw::open(&bridge().sender(Http::One)).await;
    raw.write(request("").replace("HTTP/1.1", "HTTP/1.0")).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(body).unwrap();
    out.finish().unwrap()
}

/// `journey("encoded-br")` by Google's brotli.
const BROTLI: &[u8] = &[
    0x1B, 0x90, 0x00, 0x00, 0x04, 0xC2, 0xB5, 0xA5, 0x7E, 0x79, 0x0E, 0xAC, 0x2B, 0xD9, 0x3E, 0xA6, 0xBE, 0xF2, 0xE1,
    0x75, 0x28, 0x08, 0xF2, 0xBC, 0x4E, 0x0E, 0x58, 0xBF, 0x45, 0xAD, 0x25, 0x2D, 0xCF, 0x92, 0xB0, 0x1D, 0x24, 0x00,
    0x0D, 0xEA, 0x64, 0x7B, 0x42, 0xB6, 0x17, 0xB5, 0x63, 0xA8, 0x13, 0x59, 0xDD, 0xF3, 0xC7, 0xF8, 0x66, 0x84, 0x2B,
    0x5A, 0xC1, 0xD8, 0xEE, 0xA6, 0xF1, 0x46, 0xA6, 0x76, 0x74, 0xFD, 0x42, 0x6C, 0xCA, 0x8F, 0x90, 0xE4, 0x75, 0xC7,
    0x18, 0xDC, 0x35, 0xAD, 0x4F, 0x4D, 0xE8, 0x99, 0x8D, 0xB1, 0x20, 0xA0, 0x1F, 0xE6, 0xB0, 0x0C, 0x94, 0x9D, 0x3B,
    0x04, 0xB7, 0xB3, 0x87, 0x70, 0x2C, 0x87, 0xD7, 0x33, 0x82, 0x01,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encoded_body_is_an_event_and_its_hash_is_that_of_what_came() {
    for http in BOTH {
        for (codings, id, body) in
            [("gzip", "encoded-gzip", gzip(journey("encoded-gzip").as_bytes())), ("br", "encoded-br", BROTLI.to_vec())]
        {
            let answer = bridge().sender(http).post("/", &[("content-encoding", codings)], body.clone()).await.unwrap();
            let record = record_at(&answer, "journey");
            assert_eq!(record.header("ce_id"), Some(id));
            let hash = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&body));
            assert_eq!(record.header("causeway_body"), Some(hash.as_str()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decoded_is_a_dead_letter_as_it_came() {
    let whole = gzip(journey("not decoded").as_bytes());
    let bomb = gzip(&vec![b' '; 4 * 1024 * 1024]);
    for (codings, body, why) in [
        ("gzip", &whole[..whole.len() - 1], "not what its content-encoding says, or not whole"),
        ("zstd", &whole[..], "none of gzip, deflate and br"),
        ("gzip", &bomb[..], "decoded it is over the limit of 65536 bytes"),
    ] {
        let answer =
            bridge().sender(Http::One).post("/", &[("content-encoding", codings)], body.to_vec()).await.unwrap();
        let record = record_at(&answer, "dead-letter");
        assert_eq!(record.value.as_deref(), Some(body));
        assert_eq!(record.header("content-encoding"), Some(codings));
        assert!(record.header("__connect.errors.exception.message").unwrap().contains(why), "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_says_nothing_about_the_path() {
    for http in BOTH {
        let id = format!("query-{http:?}");
        let answer = bridge().sender(http).post("/events?x=1", &[], journey(&id)).await.unwrap();
        assert_eq!(record_at(&answer, "journey").header("ce_id"), Some(id.as_str()));
        let answer = bridge().sender(http).post("/?", &[], journey(&id)).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_on_the_allow_list_is_403_and_leaves_nothing() {
    let bridge = bridge();
    let identity = bridge.setup.identity(ClientOptions::dns("other.asapp.example"));
    for http in BOTH {
        let sender = bridge.sender_as(&identity, http);
        for body in [journey("not allowed"), "no event, not allowed".to_owned(), "not allowed".repeat(BODY_BYTES_MAX)] {
            let answer = sender.post("/", &[], body).await.unwrap();
            assert_refused(&answer, 403, "certificate_not_allowed");
        }
    }
    let text = |record: &Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
    let found = records(support::kafka(), bridge).into_iter().find(|record| text(record).contains("not allowed"));
    assert!(found.is_none(), "{found:?}");
}

#[track_caller]
fn check_stub(body: &str, size: Option<&str>) {
    let stubs = dead_letters(&body.as_bytes()[..STUB_BYTES]);
    assert_eq!(stubs.len(), 1, "one stub with the first bytes of {}", &body[..40]);
    let sender = format!("dns:{SENDER}");
    for (header, expected) in [
        ("__connect.errors.stage", Some("RECEIVE")),
        ("causeway_stub", Some("true")),
        ("causeway_size", size),
        ("causeway_sender", Some(&sender)),
    ] {
        assert_eq!(stubs[0].header(header), expected, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_413_and_leaves_a_stub_of_its_first_bytes() {
    for http in BOTH {
        for bytes in [BODY_BYTES_MAX + 1, 8 * 1024 * 1024] {
            let body = format!("declared-{http:?}-{bytes}-{}", noise(BODY_BYTES_MAX));
            let body = body.clone() + &" ".repeat(bytes.saturating_sub(body.len()));
            let body = &body[..bytes];
            let answer = bridge().sender(http).post("/", &[], body.to_owned()).await.unwrap();
            assert_refused(&answer, 413, "body_too_large");
            check_stub(body, Some(&bytes.to_string()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_unknown_length_is_413_once_it_is_over_the_limit() {
    for http in BOTH {
        let body = format!("undeclared-{http:?}-{}", noise(BODY_BYTES_MAX));
        let (parts, source) = Parts::new();
        for part in body.as_bytes().chunks(5000) {
            parts.send(Bytes::copy_from_slice(part)).await.unwrap();
        }
        // The body has no end: the answer comes before.
        let answer = post_parts(bridge().sender(http), http, "/", &[], source).await.unwrap();
        assert_refused(&answer, 413, "body_too_large");
        check_stub(&body, None);
        drop(parts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_at_the_limit_is_an_event() {
    for http in BOTH {
        let id = format!("at-the-limit-{http:?}");
        let empty = event("com.asapp.event.journey", &id, "");
        let body = event("com.asapp.event.journey", &id, &noise(BODY_BYTES_MAX - empty.len()));
        assert_eq!(body.len(), BODY_BYTES_MAX);
        let answer = bridge().sender(http).post("/", &[], body).await.unwrap();
        assert_eq!(record_at(&answer, "journey").header("ce_id"), Some(id.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_in_many_parts_is_one_event() {
    for http in BOTH {
        for (kind, declared) in [("declared", true), ("undeclared", false)] {
            let id = format!("parts-{kind}-{http:?}");
            let body = event("com.asapp.event.journey", &id, &noise(300));
            let (parts, source) = Parts::new();
            let length = body.len().to_string();
            let headers: &[_] = if declared { &[("content-length", length.as_str())] } else { &[] };
            let sender = bridge().sender(http);
            let send = async {
                for part in body.as_bytes().chunks(3) {
                    parts.send(Bytes::copy_from_slice(part)).await.unwrap();
                    // Each part gets into a chunk or a frame of its own.
                    tokio::task::yield_now().await;
                }
                drop(parts);
            };
            let (answer, ()) = tokio::join!(post_parts(sender, http, "/", headers, source), send);
            assert_eq!(record_at(&answer.unwrap(), "journey").header("ce_id"), Some(id.as_str()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_in_the_middle_of_its_body_leaves_nothing() {
    // Of its own, to count its connections.
    let bridge = Setup::new(support::kafka(), None).start();
    for http in BOTH {
        for declared in [true, false] {
            let body = event("com.asapp.event.journey", "gone", "and the rest never comes");
            let (parts, source) = Parts::new();
            // What has come is an event by itself; but more was announced.
            let length = (body.len() + 1).to_string();
            let headers: &[_] = if declared { &[("content-length", length.as_str())] } else { &[] };
            let headers: Vec<(String, String)> =
                headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let sender = bridge.sender(http);
            parts.send(Bytes::from(body)).await.unwrap();
            let post = tokio::spawn(async move {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                post_parts(sender, http, "/", &headers, source).await
            });
            wait_until("room is taken for the body", || bridge.metric("causeway_queue_bytes", &[]) > 100.0);
            post.abort();
            wait_until("the connection is gone", || bridge.metric("causeway_connections", &[]) == 0.0);
            drop(parts);
        }
    }
    // Its room was given back, and whatever of it was on its way to Kafka would have arrived with this one.
    bridge.sender(Http::One).post("/", &[], journey("last")).await.unwrap();
    let found: Vec<_> = records(support::kafka(), &bridge);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(bridge.metric("causeway_queue_records", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_slower_than_its_deadline_is_408() {
    // T = 1000 ms: a body has D = 750 ms.
    let bridge = Setup::new(support::kafka(), None).set("sender.timeout_ms", "1000").start();
    for http in BOTH {
        for length in [None, Some("500")] {
            let (parts, source) = Parts::new();
            parts.send(Bytes::from(journey("slow"))).await.unwrap();
            let headers: Vec<_> = length.map(|length| ("content-length", length)).into_iter().collect();
            let watch = Stopwatch::start();
            let answer = post_parts(bridge.sender(http), http, "/", &headers, source).await.unwrap();
            let elapsed = watch.elapsed();
            assert_refused(&answer, 408, "body_too_slow");
            assert!(elapsed >= Duration::from_millis(745), "{elapsed:?}");
            watch.assert_allows(elapsed, Duration::from_secs(3));
            drop(parts);
        }
    }
    assert_eq!(bridge.metric("causeway_answers_total", &["408", "body_too_slow"]), 4.0);
    assert!(records(support::kafka(), &bridge).is_empty());
    wait_until("its room is given back", || bridge.metric("causeway_queue_bytes", &[]) == 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_does_not_disturb_other_requests_on_its_connection() {
    let (mut writer, mut reader) = frames::open(bridge(), &[]).await;
    let post = |stream| frame(frames::HEADERS, frames::END_HEADERS, stream, &frames::post());
    let data = |flags, stream, body: &str| frame(frames::DATA, flags, stream, body.as_bytes());
    let slow = journey("slow");
    let (begun, rest) = slow.split_at(10);
    assert!(writer.write(&[post(1), data(0, 1, begun)].concat()).await);
    let mut answered = async |stream, sent: Vec<u8>| {
        assert!(writer.write(&sent).await);
        loop {
            let frame = reader.next().await.expect("the connection is kept");
            assert!(frame.stream == 0 || frame.stream == stream, "stream {} was not due", frame.stream);
            if frame.kind == frames::HEADERS {
                // `:status: 200` is a field of the static table (RFC 7541, appendix A).
                assert_eq!(frame.payload.first(), Some(&0x88), "not answered 200");
            }
            if frame.stream == stream && frame.flags & frames::END_STREAM != 0 {
                break;
            }
        }
    };
    for stream in [3, 5, 7] {
        let body = journey(&format!("beside a slow body {stream}"));
        answered(stream, [post(stream), data(frames::END_STREAM, stream, &body)].concat()).await;
    }
    answered(1, data(frames::END_STREAM, 1, rest)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_kept_from_answer_to_answer() {
    let mut raw = Raw::open(&bridge().sender(Http::One)).await;
    for round in 0..3 {
        let id = format!("kept-{round}");
        for (path, body, status) in [
            ("/", journey(&id).as_str(), 200),
            ("/", "no event", 200),
            ("/elsewhere", "{}", 404),
            ("/elsewhere", "", 404),
        ] {
            raw.post(path, body).await;
            let answer = raw.answer().await.unwrap_or_else(|| panic!("closed instead of {status} to {path}"));
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(answer.headers.get("connection").is_none_or(|value| value != "close"), "{answer:?}");
        }
        raw.write("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(raw.answer().await.expect("kept after 404").status, 405);
    }
    // One after the other without waiting for the answers: they come in the same order.
    let bodies = ["pipelined-1", "pipelined-2", "pipelined-3"].map(journey);
    raw.write(bodies.iter().map(|body| format!("{}{body}", head("/", body.len()))).collect::<String>()).await;
    for id in ["pipelined-1", "pipelined-2", "pipelined-3"] {
        let answer = raw.answer().await.expect("kept after 405");
        assert_eq!(record_at(&answer, "journey").header("ce_id"), Some(id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_whose_body_comes_after_its_head_does_not_cost_the_connection() {
    let mut raw = Raw::open(&bridge().sender(Http::One)).await;
    for round in 0..20 {
        // As most clients send it: the head, then the body. The refusal must not overtake the body.
        raw.write(head("/elsewhere", 20_000)).await;
        for part in noise(20_000).as_bytes().chunks(4000) {
            tokio::task::yield_now().await;
            raw.write(part).await;
        }
        let answer = raw.answer().await.unwrap_or_else(|| panic!("closed before answer {round}"));
        assert_refused(&answer, 404, "not_found");
        assert!(answer.headers.get("connection").is_none_or(|value| value != "close"), "{answer:?}");
    }
    raw.post("/", &journey("after the refused")).await;
    assert_eq!(raw.answer().await.expect("an answer to the good one").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_expects_100_continue_is_told_to_go_on() {
    let mut raw = Raw::open(&bridge().sender(Http::One)).await;
    let body = journey("expected");
    let expecting = |path: &str| head(path, body.len()).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    raw.write(expecting("/")).await;
    let (status, _) = raw.head().await.unwrap();
    assert_eq!(status, 100);
    raw.write(&body).await;
    let answer = raw.answer().await.unwrap();
    assert_eq!(record_at(&answer, "journey").header("ce_id"), Some("expected"));
    // Who is refused is spared the body.
    raw.write(expecting("/elsewhere")).await;
    let refused = raw.answer().await.unwrap();
    assert_refused(&refused, 404, "not_found");
    // Nobody could tell where the next request begins: so it closes, and says so.
    assert_eq!(refused.headers["connection"], "close");
    assert!(raw.answer().await.is_none());
}
