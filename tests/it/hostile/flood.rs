//! Floods and silences over HTTP/2.

use std::time::Duration;

use tokio::time::timeout;

use super::{HEAD_MAX, IDLE_MAX, Steady, bridge};
use crate::{
    attacks::{
        self,
        frames::{
            ACK, CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, REFUSED_STREAM, RST_STREAM, Reader,
            SETTINGS, Writer, frame, literal, open, open_as, post,
        },
    },
    sending::journey,
    support::{self, bridge::Setup, certs::ClientOptions, client::Http, stopwatch::Stopwatch, wait_until},
};

/// By this the server asks whether its GOAWAY has arrived.
const SHUTDOWN_PING: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_as_fast_as_they_are_opened_end_the_connection() {
    let steady = Steady::start(bridge(), "rapid-reset");
    attacks::rapid_reset(bridge(), 10).await;
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_without_an_end_ends_the_connection() {
    let steady = Steady::start(bridge(), "continuation");
    attacks::continuation_flood(bridge()).await;
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_data_without_an_end_ends_the_connection() {
    let steady = Steady::start(bridge(), "empty-data");
    attacks::empty_data_flood(bridge()).await;
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_without_reading_the_answers_is_not_read_any_more() {
    let steady = Steady::start(bridge(), "unread");
    let memory = || bridge().metric("process_resident_memory_bytes", &[]);
    let before = memory();
    let setting = [&3_u16.to_be_bytes()[..], &100_u32.to_be_bytes()].concat();
    for asked in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &setting)] {
        let (mut writer, reader) = open(bridge(), &[]).await;
        let many = asked.repeat(1000);
        let mut written = 0;
        // Until nothing goes out any more: both sides' buffers are full, and nobody has stored the rest.
        while let Ok(true) = timeout(Duration::from_secs(2), writer.write(&many)).await {
            written += many.len();
            assert!(written < 500_000_000, "it is read without end");
        }
        drop(reader);
    }
    let grown = memory() - before;
    assert!(grown < 100e6, "by {grown} bytes");
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_over_the_limit_are_refused() {
    let steady = Steady::start(bridge(), "streams");
    let (mut writer, mut reader) = open(bridge(), &[]).await;
    // Their bodies never come.
    let heads: Vec<u8> = (0..588).flat_map(|number| frame(HEADERS, END_HEADERS, number * 2 + 1, &post())).collect();
    assert!(writer.write(&heads).await);
    let mut refused = Vec::new();
    while refused.len() < 76 {
        let frame = reader.next().await.expect("the connection stays");
        if frame.kind == RST_STREAM && frame.code() == REFUSED_STREAM {
            refused.push(frame.stream);
        }
    }
    refused.sort_unstable();
    assert_eq!(refused, (512..588).map(|number| number * 2 + 1).collect::<Vec<_>>());
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_allowed_has_one_stream() {
    let steady = Steady::start(bridge(), "not-allowed");
    let stranger = bridge().setup.identity(ClientOptions::dns("stranger.example"));
    let (mut writer, mut reader) = open_as(&bridge().sender_as(&stranger, Http::Two), &[]).await;
    let head = |stream| frame(HEADERS, END_HEADERS, stream, &post());
    assert!(writer.write(&[head(1), head(3)].concat()).await);
    let (mut refused, mut answered) = (None, None);
    while refused.is_none() || answered.is_none() {
        let frame = reader.next().await.expect("the connection stays");
        match frame.kind {
            RST_STREAM if frame.code() == REFUSED_STREAM => refused = Some(frame.stream),
            // `:status`, by its place in the static table, and the Huffman code of "403".
            HEADERS => answered = Some((frame.stream, frame.payload.starts_with(&[0x48, 0x83, 0x68, 0x0c, 0xff]))),
            _ => {}
        }
    }
    assert_eq!((refused, answered), (Some(3), Some((1, true))));
    steady.assert_undisturbed().await;
}

/// How many of 120 streams whose bodies do not come the connection takes.
async fn streams_taken((writer, reader): &mut (Writer, Reader)) -> usize {
    let heads = (0..120).flat_map(|number| frame(HEADERS, END_HEADERS, number * 2 + 1, &post()));
    let asked = frame(PING, 0, 0, &[7; 8]);
    assert!(writer.write(&heads.chain(asked).collect::<Vec<_>>()).await);
    let mut refused = 0;
    loop {
        let frame = reader.next().await.expect("the connection stays");
        match frame.kind {
            RST_STREAM if frame.code() == REFUSED_STREAM => refused += 1,
            PING if frame.flags & ACK != 0 => return 120 - refused,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_together_have_no_more_streams_than_requests_may_be_held() {
    let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000");
    let bridge = setup.set("ingress.in_flight_max", "2").start();
    // Eight each, and a quarter of what is left of 400, as two for each of four feeds and the dead letters were less: clients take
    // 100 for granted before they know.
    let mut connections = Vec::new();
    for expected in [108, 83, 64, 50] {
        let mut connection = open(&bridge, &[]).await;
        assert_eq!(streams_taken(&mut connection).await, expected);
        connections.push(connection);
    }
    for http in [Http::One, Http::Two] {
        assert_eq!(bridge.sender(http).post("/", &[], journey("beside")).await.unwrap().status, 200);
    }
    drop(connections);
    wait_until("the streams are given back", || bridge.metric("causeway_connections", &[]) == 0.0);
    assert_eq!(streams_taken(&mut open(&bridge, &[]).await).await, 108);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_list_over_the_limit_is_431() {
    let steady = Steady::start(bridge(), "header-list");
    let (mut writer, mut reader) = open(bridge(), &[]).await;
    let mut block = post();
    (0..200).for_each(|number| block.extend(literal(&format!("x-{number}"), &"x".repeat(90))));
    let (first, second) = block.split_at(16_000);
    assert!(writer.write(&frame(HEADERS, END_STREAM, 1, first)).await);
    assert!(writer.write(&frame(CONTINUATION, END_HEADERS, 1, second)).await);
    loop {
        let frame = reader.next().await.expect("an answer");
        if frame.kind == HEADERS {
            // `:status`, by its place in the static table, and the Huffman code of "431".
            assert!(frame.payload.starts_with(&[0x48, 0x83, 0x69, 0x90, 0xff]), "{:x?}", frame.payload);
            break;
        }
    }
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_stops_in_the_middle_is_cut_off() {
    let steady = Steady::start(bridge(), "half-head");
    attacks::half_heads(bridge(), HEAD_MAX).await;
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_only_answers_pings_is_closed_as_idle() {
    let steady = Steady::start(bridge(), "ping");
    let watch = Stopwatch::start();
    let (mut writer, mut reader) = open(bridge(), &[]).await;
    let mut told_after = None;
    while let Some(next) = reader.next().await {
        match next.kind {
            PING if next.flags & ACK == 0 => drop(writer.write(&frame(PING, ACK, 0, &next.payload)).await),
            GOAWAY => drop(told_after.get_or_insert_with(|| watch.elapsed())),
            _ => {}
        }
    }
    let told_after = told_after.expect("it is told");
    assert!(told_after >= IDLE_MAX, "{told_after:?}");
    watch.assert_allows(told_after, IDLE_MAX * 3);
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_answer_and_does_not_go_is_cut_off() {
    let steady = Steady::start(bridge(), "stuck");
    // SETTINGS_INITIAL_WINDOW_SIZE 0: no answer's body can be sent.
    let (mut writer, mut reader) = open(bridge(), &[(4, 0)]).await;
    for number in 0..50 {
        assert!(writer.write(&frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &post())).await);
    }
    let watch = Stopwatch::start();
    while let Some(next) = reader.next().await {
        // It is there; but the PING that ends a graceful close it does not answer.
        if next.kind == PING && next.flags & ACK == 0 && next.payload != SHUTDOWN_PING {
            writer.write(&frame(PING, ACK, 0, &next.payload)).await;
        }
    }
    assert!(watch.elapsed() > IDLE_MAX, "{:?}", watch.elapsed());
    watch.assert_within(Duration::from_secs(30));
    steady.assert_undisturbed().await;
}
