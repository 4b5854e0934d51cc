//! A client's bytes on a decrypted connection -> the real server, ingress and bridge, before a producer that reaches no broker.
//!
//! Nothing is ever committed, so nothing may be answered 200. The clock is tokio's paused one: it jumps to the next timer
//! as soon as nobody has anything to do, so that a deadline costs no time.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use causeway::{
    bridge::Bridge,
    config::{self, Config},
    ingress::{self, Ingress},
    kafka::{Connection as Cluster, Producers},
    metrics::Metrics,
    serve,
    server::{Connections, Door, Http, Limits},
    tls::{Client, NotAllowed},
};
use prometheus::core::Collector;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    task::yield_now,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// No connection lasts longer: each of its requests has its deadline, and then it is idle.
const END_MAX: Duration = Duration::from_secs(600);

/// The least limits, so that a short input meets them. Nobody listens on port 1.
const CONFIG: &str = r#"
[sender]
timeout_ms = 1000
retries = 0
retry_pause_ms_max = 0
[ingress]
in_flight_max = 8
body_bytes_max = 1024
[ingress.tls]
client_names = ["*"]
[kafka]
brokers = ["127.0.0.1:1"]
[feeds.activity]
path = "/activity"
"#;

/// What is answered but 200: `ARCHITECTURE.md` has no other.
const TABLE: &[(&str, &str)] = &[
    ("503", "no_commit_in_time"),
    ("503", "overload"),
    ("503", "stopping"),
    ("413", "body_too_large"),
    ("408", "body_too_slow"),
    ("400", "body_broken"),
    ("400", "framing_refused"),
    ("400", "host_refused"),
    ("403", "certificate_not_allowed"),
    ("405", "method_not_allowed"),
    ("404", "not_found"),
];

/// What hyper answers by itself, without a body: no request of ours.
const OF_HYPER: &[&str] = &["400", "414", "431"];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct Instance {
    door: Door<Ingress>,
    metrics: Arc<Metrics>,
}

static INSTANCE: LazyLock<Instance> = LazyLock::new(|| {
    let config: Config = config::from_toml(CONFIG).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let routes = serve::routes(&config).unwrap();
    let budget = config.sender.budget();
    let lanes = Bridge::lanes(&config);
    let dedupe_bytes_max = config.dedupe.bytes_max;
    let producers =
        Producers::start(&Cluster::new(&config), &lanes, budget.message_timeout, dedupe_bytes_max, &metrics).unwrap();
    let bridge = Bridge::new(&config, routes, producers, Arc::clone(&metrics));
    let cut_off = CancellationToken::new();
    let ingress = Ingress::new(bridge, budget, config.ingress.body_bytes_max, cut_off, Arc::clone(&metrics));
    Instance { door: Door::new(Arc::new(ingress), ingress::limits(&config)), metrics }
});

/// How the client behaves: the input's first byte.
struct Manner {
    http: Http,
    /// Shuts its side down once all is sent; else it waits for the server to end it.
    hangs_up: bool,
    /// The server is told to close the connection in the middle.
    told_to_close: bool,
    allowed: bool,
    /// Bytes at once.
    part: usize,
}

impl Manner {
    fn of(byte: u8) -> Self {
        Self {
            http: if byte & 1 == 0 { Http::One } else { Http::Two },
            hangs_up: byte & 2 != 0,
            told_to_close: byte & 4 != 0,
            allowed: byte & 8 == 0,
            part: [usize::MAX, 1, 9, 100][usize::from(byte >> 4 & 3)],
        }
    }
}

pub fn run(input: &[u8]) {
    let Some((manner, sent)) = input.split_first() else { return };
    let manner = Manner::of(*manner);
    let before = counted();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let wire = runtime.block_on(talk(&manner, sent));
    drop(runtime);
    let after = counted();
    let answers: u64 = after.values().sum::<u64>() - before.values().sum::<u64>();
    for (status, code) in after.keys() {
        assert!(*status != "200" || after[&(status.clone(), code.clone())] == 0, "a 200 without a receipt");
        let known = *status == "200" || TABLE.contains(&(status.as_str(), code.as_str()));
        assert!(known, "{status} {code} is in no table");
    }
    match manner.http {
        Http::One => assert!(check_one(&wire) <= answers, "more answers than were given\n{}", wire.escape_ascii()),
        Http::Two => check_two(&wire),
    }
}

/// The codes that were answered so far.
pub fn answered() -> Vec<String> {
    counted().into_iter().filter(|(_, count)| *count > 0).map(|((_, code), _)| code).collect()
}

/// The connection from its first byte to its end; what the server wrote.
async fn talk(manner: &Manner, sent: &[u8]) -> Vec<u8> {
    let (client, server) = duplex(64 * 1024);
    let known = if manner.allowed {
        Client::Allowed(Arc::from("cn:fuzz"))
    } else {
        Client::NotAllowed(NotAllowed { subject: "CN=fuzz".to_owned() })
    };
    let connections = Connections::default();
    let newcomer = connections.add();
    let is_told = manner.told_to_close;
    let connection = Arc::clone(&newcomer.connection);
    let telling = async move {
        if is_told {
            sleep(Duration::from_millis(300)).await;
            connection.close();
        }
        std::future::pending::<()>().await;
    };
    let Instance { door, .. } = &*INSTANCE;
    let conversation = door.converse(server, manner.http, known, newcomer);
    let serving = async {
        tokio::select! {
            _ = conversation => {}
            () = overdue(&connections, &door.limits) => {}
            () = telling => {}
        }
    };
    let both = async { tokio::join!(serving, post(client, manner, sent)) };
    let ((), wire) = timeout(END_MAX, both).await.expect("the connection does not end");
    wire
}

/// The server's sweep, but that what is idle is cut at once, too.
async fn overdue(connections: &Connections, limits: &Limits) {
    while connections.overdue(limits.idle_max, limits.head_max).is_empty() {
        sleep(Duration::from_secs(1)).await;
    }
}

async fn post(client: DuplexStream, manner: &Manner, sent: &[u8]) -> Vec<u8> {
    let (mut from_server, mut to_server) = split(client);
    let sending = async {
        let preface = if manner.http == Http::Two { PREFACE } else { b"" };
        for part in [preface, sent].into_iter().flat_map(|bytes| bytes.chunks(manner.part.min(bytes.len().max(1)))) {
            if to_server.write_all(part).await.is_err() {
                return;
            }
            yield_now().await;
        }
        if manner.hangs_up {
            let _ = to_server.shutdown().await;
        }
    };
    let mut wire = Vec::new();
    let _ = tokio::join!(sending, from_server.read_to_end(&mut wire));
    wire
}

/// Answers so far, by status and code.
fn counted() -> BTreeMap<(String, String), u64> {
    let families = INSTANCE.metrics.answers.collect();
    let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
    metrics
        .map(|metric| {
            let label = |name: &str| {
                let found = metric.get_label().iter().find(|label| label.name() == name);
                found.map(|label| label.value().to_owned()).unwrap_or_default()
            };
            ((label("status"), label("code")), metric.get_counter().get_value() as u64)
        })
        .collect()
}

/// Every byte on an HTTP/1.1 connection belongs to an answer of the table, or to one of hyper's; how many were ours.
fn check_one(wire: &[u8]) -> u64 {
    let mut ours = 0;
    let mut rest = wire;
    while !rest.is_empty() {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer's head has an end");
        let head = std::str::from_utf8(&rest[..end]).expect("an answer's head is text");
        rest = &rest[end + 4..];
        let status = head.split(' ').nth(1).expect("an answer has a status").to_owned();
        if status == "100" {
            continue;
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let (body, after) = rest.split_at_checked(length).expect("an answer is whole");
        rest = after;
        if head.contains("content-type: application/json") {
            ours += 1;
            if body.is_empty() {
                // To a HEAD.
                assert!(TABLE.iter().any(|(known, _)| *known == status), "{head}");
                continue;
            }
            let body: serde_json::Value = serde_json::from_slice(body).expect("an answer's body is JSON");
            let code = body["code"].as_str().expect("an answer has a code");
            assert!(TABLE.contains(&(status.as_str(), code)), "{status} {code} is in no table");
            assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
        } else {
            assert!(OF_HYPER.contains(&status.as_str()) && body.is_empty(), "{head}");
        }
    }
    ours
}

/// Every byte on an HTTP/2 connection belongs to a frame (RFC 9113, section 4.1), and no header block begins with `:status: 2xx`.
fn check_two(wire: &[u8]) {
    let mut rest = wire;
    while !rest.is_empty() {
        let (head, after) = rest.split_first_chunk::<9>().expect("a frame's head is whole");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, after) = after.split_at_checked(length).expect("a frame is whole");
        rest = after;
        if head[3] == HEADERS {
            // A dynamic table size update may stand before the first field (RFC 7541, section 6.3).
            let first = payload.iter().find(|byte| **byte & 0xE0 != 0x20);
            assert!(!first.is_some_and(|first| STATUS_2XX.contains(first)), "a 200 without a receipt");
        }
    }
}

const HEADERS: u8 = 1;

/// 200, 204, 206 in the static table (RFC 7541, appendix A).
const STATUS_2XX: &[u8] = &[0x88, 0x89, 0x8A];
