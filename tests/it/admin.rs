//! The admin port and the log: what a person or a machine can tell of a running bridge.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpStream,
    process::Command,
};

use serde_json::{Value as Json, json};
use tokio::io::AsyncWriteExt;

use crate::support::{
    self,
    bridge::{Bridge, SENDER, Setup},
    certs::ClientOptions,
    client::{Http, Sender},
    process::{Child, Signal},
    wait_until,
};

fn event(name: &str, event_id: &str, members: Json) -> String {
    let mut event = json!({"api_version": "v1.3.0", "name": name, "event_id": event_id, "event_type": "T"});
    event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    event.to_string()
}

/// A metric's series: labels as they stand -> value.
type Series = BTreeMap<String, f64>;

/// The text exposition format, read strictly: every series has a name with help and type before it.
fn exposition(text: &str) -> BTreeMap<String, Series> {
    let mut metrics = BTreeMap::<String, Series>::new();
    let (mut helped, mut typed) = (BTreeSet::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            assert!(help.len() > 5, "{name} has no help: {line}");
            assert!(helped.insert(name.to_owned()), "{name} has help twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            typed.insert(name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| {
                    name.strip_suffix(part).filter(|family| typed.get(*family).is_some_and(|it| it == "histogram"))
                })
                .unwrap_or(name);
            assert!(helped.contains(family) && typed.contains_key(family), "{family} has no help or no type");
            let labels = labels.trim_end_matches('}').to_owned();
            metrics.entry(name.to_owned()).or_default().insert(labels, value.parse().unwrap());
        }
    }
    metrics
}

fn metrics(bridge: &Bridge) -> BTreeMap<String, Series> {
    let (status, text) = bridge.get("/metrics");
    assert_eq!(status, 200);
    exposition(&text)
}

/// What the ten requests of the test below make of the metrics: name, labels, value.
const COUNTED: &[(&str, &str, f64)] = &[
    ("causeway_requests_received_total", "", 10.0),
    ("causeway_answers_total", "code=\"committed\",status=\"200\"", 7.0),
    ("causeway_answers_total", "code=\"body_too_large\",status=\"413\"", 1.0),
    ("causeway_answers_total", "code=\"not_found\",status=\"404\"", 1.0),
    ("causeway_answers_total", "code=\"no_commit_in_time\",status=\"503\"", 0.0),
    ("causeway_answers_total", "code=\"certificate_not_allowed\",status=\"403\"", 1.0),
    ("causeway_answer_seconds_count", "", 10.0),
    ("causeway_committed_total", "feed=\"activity\"", 2.0),
    ("causeway_committed_total", "feed=\"journey\"", 1.0),
    ("causeway_committed_total", "feed=\"queue\"", 2.0),
    ("causeway_committed_total", "feed=\"other\"", 1.0),
    ("causeway_committed_late_total", "feed=\"other\"", 0.0),
    ("causeway_commit_seconds_count", "feed=\"activity\"", 2.0),
    ("causeway_commit_seconds_bucket", "feed=\"activity\",le=\"30\"", 2.0),
    ("causeway_commit_seconds_bucket", "feed=\"activity\",le=\"+Inf\"", 2.0),
    ("causeway_dead_letters_total", "feed=\"unknown\",stage=\"READ\"", 1.0),
    ("causeway_dead_letters_total", "feed=\"unknown\",stage=\"RECEIVE\"", 1.0),
    ("causeway_null_keys_total", "feed=\"activity\"", 0.0),
    ("causeway_null_keys_total", "feed=\"journey\"", 1.0),
    ("causeway_null_keys_total", "feed=\"queue\"", 2.0),
    ("causeway_unknown_members_total", "feed=\"activity\"", 2.0),
    ("causeway_unknown_members_total", "feed=\"journey\"", 0.0),
    ("causeway_events_by_major_total", "feed=\"activity\",major=\"1\"", 2.0),
    ("causeway_events_by_major_total", "feed=\"queue\",major=\"2\"", 1.0),
    ("causeway_events_by_major_total", "feed=\"journey\",major=\"2\"", 0.0),
    ("causeway_dead_letters_total", "feed=\"journey\",stage=\"PRODUCE\"", 0.0),
    ("causeway_tls_reloads_total", "result=\"refused\"", 0.0),
    ("causeway_events_by_major_total", "feed=\"queue\",major=\"other\"", 1.0),
    ("causeway_in_flight_requests", "feed=\"activity\"", 0.0),
    ("causeway_in_flight_requests", "feed=\"dead-letter\"", 0.0),
    ("causeway_queue_records", "feed=\"activity\"", 0.0),
    ("causeway_queue_records", "feed=\"dead-letter\"", 0.0),
    ("causeway_undelivered_total", "feed=\"other\"", 0.0),
    ("causeway_producer_replaced_total", "feed=\"other\",reason=\"stands_still\"", 0.0),
    ("causeway_connections_evicted_total", "", 0.0),
    ("causeway_connections_refused_total", "", 0.0),
    ("causeway_ready", "", 1.0),
];

fn assert_no_label_of_a_senders(metrics: &BTreeMap<String, Series>) {
    let configured = ["activity", "journey", "queue", "other", "dead-letter", "unknown"];
    for (name, series) in metrics {
        for labels in series.keys() {
            for label in ["feed", "producer"] {
                let Some((_, rest)) = labels.split_once(&format!("{label}=\"")) else { continue };
                let found = rest.split('"').next().unwrap();
                assert!(configured.contains(&found), "{name}{{{labels}}}");
            }
            assert!(!labels.contains("evil") && !labels.contains("hacked"), "{name}{{{labels}}}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_counted_and_no_name_of_a_senders_becomes_a_label() {
    let bridge = Setup::new(support::kafka(), None).set("ingress.body_bytes_max", "2048").start();
    let sender = bridge.sender(Http::One);
    let hostile = "evil\"} 1\nhacked_total{x=\"é\u{1b}[31m";
    for (body, status) in [
        (event("com.asapp.event.activity", "1", json!({"data": {"rep_id": "r"}})), 200),
        (
            event(
                "com.asapp.event.activity",
                "2",
                json!({"data": {"rep_id": "r"}, "new": 1, "details": {"newer": [2]}}),
            ),
            200,
        ),
        (event("com.asapp.event.journey", "3", json!({})), 200),
        (event(hostile, hostile, json!({"meta_data": {"issue_id": "i"}})), 200),
        (event("com.asapp.event.queue", "5", json!({"api_version": "v2.0.0"})), 200),
        (event("com.asapp.event.queue", "6", json!({"api_version": hostile})), 200),
        ("no event".to_owned(), 200),
        ("x".repeat(4096), 413),
    ] {
        assert_eq!(sender.post("/", &[("x-name", "y")], body.clone()).await.unwrap().status, status, "{body}");
    }
    assert_eq!(sender.post(&"/nothing".repeat(20), &[], "").await.unwrap().status, 404);
    let stranger = bridge.sender_as(&bridge.setup.identity(ClientOptions::dns("evil.example")), Http::One);
    assert_eq!(stranger.post("/", &[], "{}").await.unwrap().status, 403);
    drop(stranger);
    let nameless = Sender::new(bridge.ingress, &bridge.setup.authority.pem(), None, Http::One);
    assert!(nameless.post("/", &[], "{}").await.is_err());

    let all = metrics(&bridge);
    let value = |name: &str, labels: &str| {
        let series = all.get(name).unwrap_or_else(|| panic!("there is no {name}"));
        *series.get(labels).unwrap_or_else(|| panic!("{name} has no {labels}: {series:?}"))
    };
    for (name, labels, expected) in COUNTED {
        assert_eq!(value(name, labels), *expected, "{name}{{{labels}}}");
    }
    // More where a refused body cost its connection.
    assert!((2.0..=3.0).contains(&value("causeway_connections_accepted_total", "")));
    assert!(value("causeway_commit_seconds_sum", "feed=\"activity\"") > 0.0);
    assert!(value("process_resident_memory_bytes", "") > 1e6);
    assert!(value("process_open_fds", "") > 3.0);
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(value("causeway_build_info", &version), 1.0);
    let now = time::OffsetDateTime::now_utc().unix_timestamp() as f64;
    for (certificate, at) in &all["causeway_certificate_expiry_timestamp_seconds"] {
        assert!(*at > now && *at < now + 400.0 * 86_400.0, "{certificate} expires at {at}");
    }

    assert_no_label_of_a_senders(&all);
    // The client knows of its refusal before the server has counted it.
    wait_until("the handshake that failed is counted", || {
        bridge.metric("causeway_handshake_failures_total", &["reason="]) == 1.0
    });
    assert!(value("causeway_connections", "") >= 1.0);
    drop(sender);
    wait_until("no connection is open", || bridge.metric("causeway_connections", &[]) == 0.0);
    wait_until("no bytes are queued", || bridge.metric("causeway_queue_bytes", &[]) == 0.0);
    wait_until("librdkafka has told of itself", || {
        bridge.metric("causeway_producer_sent_messages", &["producer=\"activity\""]) == 2.0
    });
    let all = metrics(&bridge);
    let producers = all.keys().filter(|name| name.starts_with("causeway_producer_")).count();
    assert!(producers >= 10, "{producers} metrics of the producers");
    assert_eq!(all["causeway_producer_brokers_up"]["producer=\"activity\""], 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_seen_and_goes_back_to_nothing() {
    let bridge = Setup::new(support::kafka(), None).start();
    let sender = bridge.sender(Http::One);
    let body = event("com.asapp.event.activity", "1", json!({"data": {"rep_id": "r"}}));
    let mut stream = sender.connect().await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..10]).await.unwrap();
    stream.flush().await.unwrap();
    wait_until("room is taken for the body", || bridge.metric("causeway_queue_bytes", &[]) == body.len() as f64);
    assert_eq!(bridge.metric("causeway_connections", &[]), 1.0);
    // The client goes away in the middle of it.
    drop(stream);
    wait_until("the room is given back", || bridge.metric("causeway_queue_bytes", &[]) == 0.0);
    wait_until("the connection is gone", || bridge.metric("causeway_connections", &[]) == 0.0);
    assert_eq!(sender.post("/", &[], body).await.unwrap().status, 200);
    wait_until("nothing is queued", || bridge.metric("causeway_queue_bytes", &[]) == 0.0);
    assert_eq!(bridge.metric("causeway_in_flight_requests", &[]), 0.0);
    assert_eq!(bridge.metric("causeway_queue_records", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_port_answers_what_it_has_and_refuses_the_rest() {
    let mut bridge = Setup::new(support::kafka(), None).start();
    let get = |path: &str| {
        let (status, body) = bridge.get(path);
        (status, serde_json::from_str::<Json>(&body).unwrap_or(Json::Null))
    };
    assert_eq!(get("/livez"), (200, json!({"alive": true})));
    assert_eq!(get("/readyz"), (200, json!({"ready": true, "waiting_for": []})));
    for path in ["/nothing", "/", "/metrics/x", "/subjects", "/schemas/ids/1"] {
        assert_eq!(get(path).0, 404, "{path}: only `dev` is a registry");
    }
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    for path in ["/metrics", "/readyz", "/nothing"] {
        let answer = agent.post(format!("http://{}{path}", bridge.admin)).send("x").unwrap();
        assert_eq!(answer.status().as_u16(), 405, "POST {path}");
        assert_eq!(answer.headers().get("allow").map(|it| it.to_str().unwrap()), Some("GET, HEAD"), "RFC 9110, 15.5.6");
    }
    let answer = agent.get(format!("http://{}/metrics", bridge.admin)).call().unwrap();
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    // Events are not taken here, and there is no admin there.
    assert_eq!(bridge.sender(Http::One).post("/metrics", &[], "{}").await.unwrap().status, 404);
    assert!(bridge.stop().success());
    assert!(TcpStream::connect(bridge.admin).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_bridge_is_alive_but_not_ready() {
    let mut bridge = Setup::new(support::kafka(), None).start();
    let sender = bridge.sender(Http::One);
    // A request that holds the drain up for as long as its body is on the way.
    let mut stream = sender.connect().await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{").await.unwrap();
    stream.flush().await.unwrap();
    wait_until("the request is there", || bridge.metric("causeway_requests_received_total", &[]) == 1.0);
    bridge.child.signal(support::process::Signal::Terminate);
    wait_until("it is no longer ready", || bridge.get("/readyz").0 == 503);
    assert!(bridge.get("/readyz").1.contains("stopping"));
    assert_eq!(bridge.get("/livez").0, 200);
    assert_eq!(bridge.metric("causeway_ready", &[]), 0.0);
    stream.write_all(b"}").await.unwrap();
    assert!(bridge.child.wait().success());
    let letters = support::kafka().read(&bridge.topic("dead-letter"));
    assert_eq!(letters.len(), 1, "what came during the drain is committed");
}

/// The log's lines, each of which must be a JSON object with a time, a level and a message.
fn log(bridge: &Bridge) -> Vec<Json> {
    let parse = |line: &str| {
        let json: Json = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for member in ["timestamp", "level", "message"] {
            assert!(json[member].is_string(), "no {member}: {line}");
        }
        json
    };
    bridge.child.stderr().lines().map(parse).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_json_and_a_refusal_says_which_request_and_which_event() {
    let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "600").set("ingress.drain_ms_max", "1000");
    let mut bridge = setup.start();
    let sender = bridge.sender(Http::One);
    // Without its topic no event of the feed can be committed in time.
    support::kafka().delete_topic(&bridge.topic("other"));
    let name = format!("evil\n{{\"level\":\"x\"}}\u{1b}[31mé{}", "n".repeat(1000));
    let body = json!({
        "api_version": "v1.3.0", "name": name, "event_id": "id\r\n1", "event_type": "t\u{2028}", "data": {"secret": "canary"}
    });
    let answer = sender.post("/", &[], body.to_string()).await.unwrap();
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("no_commit_in_time")));
    assert_eq!(sender.post("/nothing", &[], "{}").await.unwrap().status, 404);
    let stranger = bridge.sender_as(&bridge.setup.identity(ClientOptions::dns("evil.example")), Http::One);
    assert_eq!(stranger.post("/", &[], body.to_string()).await.unwrap().status, 403);

    let lines = log(&bridge);
    assert!(!bridge.child.stderr().contains("canary") && !bridge.child.stderr().contains('\u{1b}'));
    let refusal = |code: &str| {
        let mut found = lines.iter().filter(|line| line["code"] == code);
        let (Some(line), None) = (found.next(), found.next()) else { panic!("{code}: not one line of {lines:?}") };
        line
    };
    let late = refusal("no_commit_in_time");
    let escaped: String = name.escape_default().collect();
    assert_eq!(late["name"].as_str().unwrap().len(), 64, "{late}");
    assert!(escaped.starts_with(late["name"].as_str().unwrap()), "{late}");
    for (member, expected) in [
        ("event_id", json!("id\\r\\n1")),
        ("event_type", json!("t\\u{2028}")),
        ("status", json!(503)),
        ("sender", json!(format!("dns:{SENDER}"))),
        ("level", json!("WARN")),
    ] {
        assert_eq!(late[member], expected, "{member} of {late}");
    }
    let requests: BTreeSet<&str> = ["no_commit_in_time", "not_found", "certificate_not_allowed"]
        .map(|code| refusal(code)["request"].as_str().unwrap())
        .into();
    assert_eq!(requests.len(), 3, "each request has its own id: {requests:?}");
    // The connection and the number of the request on it.
    let connection = |code: &str| refusal(code)["request"].as_str().unwrap().split_once('-').unwrap().0.to_owned();
    assert_eq!(connection("no_commit_in_time"), connection("not_found"));
    assert!(refusal("certificate_not_allowed")["sender"].as_str().unwrap().contains("evil.example"));
    assert_eq!(bridge.child.stdout(), "", "standard output is not for logs");

    // What can't be committed is given up at the end of the drain, and the exit code says so.
    assert_eq!(bridge.stop().code(), Some(4));
    let last = fs::read_to_string(bridge.setup.dir.join("causeway.err")).unwrap();
    assert!(last.lines().any(|line| line.contains("\"given_up\":1")), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_text_where_that_is_asked_for() {
    let mut bridge = Setup::new(support::kafka(), None).set("log_format", "text").start();
    assert!(bridge.stop().success());
    let text = bridge.child.stderr();
    assert!(text.lines().any(|line| line.contains("INFO") && line.contains("ready")), "{text}");
    assert!(text.lines().all(|line| !line.starts_with('{')) && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn the_log_is_text_in_colour_on_a_terminal() {
    // Nobody is there: it says so, again and again.
    let setup = Setup::new(support::kafka(), None).set("kafka.brokers", "127.0.0.1:1");
    let serve = setup.command(&["serve"]);
    let mut command = Command::new("script");
    // Whatever happens to the test: a terminal's end need not end it.
    let serve_for_a_while = concat!("timeout --foreground 30 ", env!("CARGO_BIN_EXE_causeway"), " serve");
    command.args(["--quiet", "--flush", "--command", serve_for_a_while, "/dev/null"]);
    command.current_dir(&setup.dir).envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut terminal = Child::spawn("terminal", &command, &setup.dir);
    terminal
        .wait_ready(|| fs::read_to_string(setup.dir.join("terminal.out")).unwrap_or_default().contains("not ready"));
    terminal.signal(Signal::Terminate);
    terminal.wait();
    let text = terminal.stdout();
    let line = text.lines().find(|line| line.contains("not ready")).unwrap();
    assert!(line.contains("WARN") && line.contains('\u{1b}') && !line.contains('{'), "{line:?}");
}
