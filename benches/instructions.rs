//! The work whose instructions `.ci/instructions` counts under valgrind: `instructions CASE`.
//!
//! Only [`measured`] is counted, and only on its own thread: librdkafka's threads work by the clock, so their counts
//! never repeat.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that fails here has failed"
)]

use std::{hint::black_box, sync::Arc};

use causeway::{
    bridge::Bridge,
    config::{self, Config},
    event::Parser,
    feed::{self, SchemaSource},
    ingress::{self, Ingress},
    kafka::{Connection as Cluster, Producers, embedded::EmbeddedBroker},
    metrics::Metrics,
    record::{Origin, Record, Route},
    schema::Schema,
    serve,
    server::{Connections, Door, Http},
    tls::Client,
    transcode::{Direct, Transcoder},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;

/// The bridge's allocator, as allocations are part of the measured path.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SAMPLES: [(&str, &str); 3] = [
    ("activity", include_str!("../tests/data/events/activity.sample.json")),
    ("journey", include_str!("../tests/data/events/journey.sample.json")),
    ("queue", include_str!("../tests/data/events/queue.sample.typed.json")),
];

const DEPTH_MAX: usize = 128;

/// The number of events of each case, by which the case's count is divided.
const EVENTS: usize = 200;

fn main() {
    // Without a case, as when all benches run, the cases are listed.
    let Some(case) = std::env::args().nth(1).filter(|case| !case.starts_with("--")) else {
        SAMPLES
            .iter()
            .for_each(|(label, _)| println!("translate-{label}\ntape-{label}\nrecord-{label}\nrequest-{label}"));
        return;
    };
    let (stage, label) = case.split_once('-').expect("a stage and a feed");
    let (_, text) = SAMPLES.iter().find(|(known, _)| *known == label).expect("a feed");
    let document: serde_json::Value = serde_json::from_str(text).expect("a sample is JSON");
    let body = document.to_string();
    match stage {
        "translate" => translate(&route(label), body.as_bytes()),
        "tape" => over_tape(&route(label), body.as_bytes()),
        "record" => record(&route(label), body.as_bytes()),
        // The wire is never dropped: the embedded broker would wait for its last client.
        "request" => std::mem::forget(Wire::open().run(&body)),
        other => panic!("{other} is no stage"),
    }
    println!("{EVENTS}");
}

/// The counted part.
#[inline(never)]
fn measured(each: &mut dyn FnMut()) {
    for _ in 0..EVENTS {
        each();
    }
}

/// Runs the work uncounted first, so that buffers grow and caches fill.
fn warm_and_measure(mut each: impl FnMut()) {
    for _ in 0..EVENTS {
        each();
    }
    measured(&mut each);
}

fn route(label: &str) -> Route {
    let feed = feed::built_in().into_iter().find(|feed| feed.label == label).expect("a built-in feed");
    let SchemaSource::BuiltIn(text) = feed.schema else { panic!("a built-in schema") };
    Route::new(&feed, Schema::parse(text).expect("a built-in schema compiles"))
}

/// Translation of JSON bytes to an Avro value.
fn translate(route: &Route, body: &[u8]) {
    let mut direct = Direct::default();
    warm_and_measure(|| {
        let translated = direct.encode(black_box(body), &route.schema.plan, DEPTH_MAX);
        black_box(translated.expect("a sample is an event"));
    });
}

/// Translation over simd-json's tape, the way of the events that [`Direct`] leaves.
fn over_tape(route: &Route, body: &[u8]) {
    let (mut parser, mut transcoder, mut value) = (Parser::new(DEPTH_MAX), Transcoder::default(), Vec::new());
    warm_and_measure(|| {
        value.clear();
        parser.read(black_box(body), |event| {
            let event = event.expect("a sample is an event");
            transcoder.encode(&event, &route.schema.plan, &mut value).expect("unambiguous")
        });
        black_box(&value);
    });
}

/// Translation of JSON bytes to a whole record, with key, headers and hash.
fn record(route: &Route, body: &[u8]) {
    let origin = Origin {
        received_at: 1_759_323_815_000,
        sender: Arc::from("dns:sender.asapp.example"),
        content_type: None,
        content_encoding: None,
        traceparent: None,
        tracestate: None,
        attempts: 0,
    };
    let (mut direct, mut record) = (Direct::default(), Record::default());
    warm_and_measure(|| {
        let made = route.fill_directly(&mut record, black_box(body), body, DEPTH_MAX, &origin, &mut direct);
        black_box(made.expect("a sample is an event"));
    });
}

/// A client's end of a connection in memory, without TLS. Behind it are the real ingress and bridge, before the
/// embedded broker.
struct Wire {
    runtime: Runtime,
    client: DuplexStream,
    _broker: EmbeddedBroker,
}

impl Wire {
    fn open() -> Self {
        let broker = EmbeddedBroker::start().expect("a broker");
        let text = format!(
            "[ingress.tls]\nclient_names = [\"*\"]\n[kafka]\nbrokers = [\"{}\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n",
            broker.brokers()
        );
        let config: Config = config::from_toml(&text).expect("a configuration");
        config.topics().iter().for_each(|topic| broker.create_topic(topic, 1).expect("a topic"));
        let (client, server) = duplex(64 * 1024);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.spawn(async move {
            let door = Door::new(ingress(&config), ingress::limits(&config));
            let client = Client::Allowed(Arc::from("dns:sender.asapp.example"));
            door.converse(server, Http::One, client, Connections::default().add()).await
        });
        Self { runtime, client, _broker: broker }
    }

    fn run(mut self, body: &str) -> Self {
        let id_at = body.find("\"event_id\":\"").expect("an id") + "\"event_id\":\"".len();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nuser-agent: bench\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut request = [head.as_bytes(), body.as_bytes()].concat();
        let id_at = head.len() + id_at;
        let (mut number, mut answer) = (0, Vec::new());
        warm_and_measure(|| {
            // Each event has an id of its own: a repeated one would get its receipt at once.
            number += 1;
            request[id_at..id_at + 8].copy_from_slice(format!("{number:08}").as_bytes());
            self.runtime.block_on(async {
                self.client.write_all(&request).await.expect("an open connection");
                answer.clear();
                while !answer.ends_with(b"}") {
                    self.client.read_buf(&mut answer).await.expect("an answer");
                }
            });
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
        });
        self
    }
}

fn ingress(config: &Config) -> Arc<Ingress> {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let routes = serve::routes(config).expect("the built-in schemas");
    let budget = config.sender.budget();
    let lanes = Bridge::lanes(config);
    let cluster = Cluster::new(config);
    let producers =
        Producers::start(&cluster, &lanes, budget.message_timeout, config.dedupe.bytes_max, &metrics).expect("lanes");
    let bridge = Bridge::new(config, routes, producers, Arc::clone(&metrics));
    let (body_bytes_max, cut_off) = (config.ingress.body_bytes_max, CancellationToken::new());
    Arc::new(Ingress::new(bridge, budget, body_bytes_max, cut_off, metrics))
}
