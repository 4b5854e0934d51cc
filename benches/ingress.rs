//! The ingress over real mutual TLS and a real, warm broker, beside a bare hyper server that only reads the body.
//!
//! Both arms post the same events over kept connections, in a closed loop and in one run, so that they can be compared.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that fails here has failed"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harness::{self as support, bare};
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use support::{
    bridge::{SENDER, Setup},
    certs::ClientOptions,
    client::{Http, Sender},
};
use tokio::{runtime::Runtime, task::JoinSet};

/// The events that a broker needs after its start until its JIT compiler has done its work.
const WARM_EVENTS: u64 = 200_000;

fn ingress(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let kafka = support::kafka();
    let bridge = Setup::new(kafka, Some(support::registry()))
        .set("sender.timeout_ms", "5000")
        .set("kafka.topics.partitions", "6")
        .start();
    let authority = &bridge.setup.authority;
    let bare = runtime.block_on(bare::start(&bridge.setup.dir));
    let bodies: Arc<[Template]> = bodies().into();
    let identity = authority.client(ClientOptions::dns(SENDER));
    let sender = Sender::new(bridge.ingress, &authority.pem(), Some(&identity), Http::One);
    runtime.block_on(async { closed_loop(open(&sender, 256).await, &bodies, WARM_EVENTS).await });
    let committed = bridge.metric("causeway_committed_total", &[]);
    assert_eq!(committed, WARM_EVENTS as f64, "each event is a record of its own");
    for connections in [32, 256] {
        let mut group = criterion.benchmark_group(format!("{connections}-connections"));
        group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(10));
        for (arm, address) in [("bare-hyper", bare), ("causeway", bridge.ingress)] {
            let sender = Sender::new(address, &authority.pem(), Some(&identity), Http::One);
            let mut open = runtime.block_on(open(&sender, connections));
            group.bench_function(arm, |bencher| {
                bencher.iter_custom(|events| {
                    let (kept, took) = runtime.block_on(closed_loop(std::mem::take(&mut open), &bodies, events));
                    open = kept;
                    took
                });
            });
        }
        group.finish();
    }
}

async fn open(sender: &Sender, connections: usize) -> Vec<SendRequest<Full<Bytes>>> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let stream = sender.connect().await.expect("a connection");
        let (requests, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        open.push(requests);
    }
    open
}

/// An event without its id. Each post has a new one, as a repeated event gets its receipt without a second record.
struct Template {
    text: Vec<u8>,
    id_at: usize,
}

/// The placeholder of the id.
const NO_ID: &str = "event-0000000000000000";

impl Template {
    fn next(&self) -> Bytes {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = format!("event-{:016}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut text = self.text.clone();
        text[self.id_at..self.id_at + id.len()].copy_from_slice(id.as_bytes());
        text.into()
    }
}

/// The three feeds' samples in turn, each with 333 keys.
fn bodies() -> Vec<Template> {
    let samples = [
        (include_str!("../tests/data/events/activity.sample.json"), "/data/rep_id"),
        (include_str!("../tests/data/events/journey.sample.json"), "/meta_data/issue_id"),
        (include_str!("../tests/data/events/queue.sample.typed.json"), "/data/queue_id"),
    ];
    (0..999)
        .map(|number| {
            let (text, key) = samples[number % 3];
            let mut event: serde_json::Value = serde_json::from_str(text).expect("a sample is JSON");
            *event.pointer_mut(key).expect("a key") = format!("key-{number}").into();
            event["event_id"] = NO_ID.into();
            let text = event.to_string();
            Template { id_at: text.find(NO_ID).expect("the id"), text: text.into_bytes() }
        })
        .collect()
}

/// Posts `events` in total; each connection posts its next event when its last one is answered.
async fn closed_loop(
    open: Vec<SendRequest<Full<Bytes>>>,
    bodies: &Arc<[Template]>,
    events: u64,
) -> (Vec<SendRequest<Full<Bytes>>>, Duration) {
    let share = |connection: u64| events / open.len() as u64 + u64::from(connection < events % open.len() as u64);
    let shares: Vec<u64> = (0..open.len() as u64).map(share).collect();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (connection, (mut requests, share)) in open.into_iter().zip(shares).enumerate() {
        let bodies = Arc::clone(bodies);
        tasks.spawn(async move {
            for body in bodies.iter().cycle().skip(connection * 7).take(share as usize) {
                let request = Request::post("/").header("host", "localhost").header("content-type", "application/json");
                let request = request.body(Full::new(body.next())).expect("a request");
                requests.ready().await.expect("an open connection");
                let answer = requests.send_request(request).await.expect("an answer");
                assert_eq!(answer.status(), 200);
                answer.into_body().collect().await.expect("its body");
            }
            requests
        });
    }
    let open = tasks.join_all().await;
    (open, started.elapsed())
}

criterion_group!(benches, ingress);
criterion_main!(benches);
