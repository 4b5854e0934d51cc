//! Strings that no output may ever show, put wherever a payload or a secret can stand, with every log at its most talkative.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    security::secured,
    support::{
        self,
        bridge::{Bridge, SENDER, Setup},
        certs::{Authority, ClientOptions},
        client::Http,
        process::{Child, Signal},
        scratch, wait_until,
    },
};

/// In a payload, in headers and in paths. Logs may show `event_id`, `name` and `event_type`, and nothing else.
const PAYLOAD: &str = "canary-payload-0b6d";
const REGISTRY_PASSWORD: &str = "canary-registry-8c21";
const KEY_PASSWORD: &str = "canary-key-e4f7";

/// Where a configuration has its secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Inline,
    FileOfItsOwn,
    Variable,
}

/// What is searched for, by what it is.
struct Canaries(Vec<(&'static str, String)>);

impl Canaries {
    /// Every secret that `setup` is given, and the private keys in its folder.
    fn of(setup: &Setup) -> Self {
        let security = secured().security();
        let login = STANDARD.encode(format!("registry-user:{REGISTRY_PASSWORD}"));
        let mut canaries = Self(vec![
            ("the SASL password", security.password.to_owned()),
            ("the registry's password", REGISTRY_PASSWORD.to_owned()),
            ("the registry's password in base64", login),
            ("the key's password", KEY_PASSWORD.to_owned()),
        ]);
        canaries.add_key("the Kafka client's key", &security.client.private_key);
        canaries.add_key("the server's key", &setup.dir.join("server.key"));
        canaries.add_key("the sender's key", &setup.dir.join("sender.key"));
        canaries
    }

    /// A line of the key alone is enough to find it, however its line breaks were escaped.
    fn add_key(&mut self, what: &'static str, file: &Path) {
        let pem = fs::read_to_string(file).unwrap();
        let is_key = |line: &&str| !line.starts_with("-----") && line.len() >= 16;
        let lines: Vec<_> = pem.lines().filter(is_key).map(str::to_owned).collect();
        assert!(lines.len() > 1, "{pem}");
        self.0.extend(lines.into_iter().map(|line| (what, line)));
    }

    fn with_payload(mut self) -> Self {
        self.0.push(("the payload", PAYLOAD.to_owned()));
        self
    }

    /// None of them stands in what `from` has shown.
    fn search(&self, from: &str, shown: &str) {
        for (what, canary) in &self.0 {
            let at = shown.find(canary.as_str());
            assert!(at.is_none(), "{from} shows {what}:\n{}", around(shown, at.unwrap_or_default()));
        }
    }

    fn search_child(&self, child: &Child) {
        self.search("standard output", &child.stdout());
        self.search("standard error", &child.stderr());
    }

    /// Runs a command to its end and searches all that it said.
    fn search_command(&self, from: &str, command: &mut Command) -> Output {
        let output = command.output().unwrap();
        self.search(from, &format!("{}{}", text(&output.stdout), text(&output.stderr)));
        output
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Enough of `shown` to see who said it.
fn around(shown: &str, at: usize) -> String {
    String::from_utf8_lossy(&shown.as_bytes()[at.saturating_sub(600)..shown.len().min(at + 200)]).into_owned()
}

/// A bridge to the broker with TLS and SASL and to a registry that is told a password, with its secrets in `place`.
fn setup(place: Place) -> Setup {
    let security = secured().security();
    let pem = |file: &Path| fs::read_to_string(file).unwrap();
    let mut setup = Setup::new(secured(), Some(support::registry()))
        .set("kafka.brokers", &security.sasl_ssl_bootstrap())
        .set("registry.user", "registry-user")
        .set("ingress.body_bytes_max", "4096")
        .set("log", "trace");
    let mut client = [
        // Every one of librdkafka's debug contexts; `conf` prints the configuration.
        ("debug", "all".to_owned()),
        ("ssl.certificate.pem", pem(&security.client.certificate)),
        ("security.protocol", "SASL_SSL".to_owned()),
        ("sasl.mechanism", "SCRAM-SHA-256".to_owned()),
        ("sasl.username", security.user.to_owned()),
        ("ssl.ca.location", security.ca.display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    let mut registry = String::from("[registry]\n");
    let secrets = [
        ("kafka.client.", "sasl.password", security.password.to_owned()),
        ("kafka.client.", "ssl.key.password", KEY_PASSWORD.to_owned()),
        ("kafka.client.", "ssl.key.pem", pem(&security.client.private_key)),
        ("registry.", "password", REGISTRY_PASSWORD.to_owned()),
    ];
    for (section, name, secret) in secrets {
        match (place, section) {
            (Place::Inline, "registry.") => registry += &format!("password = {}\n", json!(secret)),
            (Place::Inline, _) => client.push((name.to_owned(), secret)),
            (Place::FileOfItsOwn, _) => {
                fs::write(setup.dir.join(format!("{name}.txt")), format!("{secret}\n")).unwrap();
                match section {
                    "registry." => registry += &format!("password_file = \"{name}.txt\"\n"),
                    _ => client.push((format!("{name}_file"), format!("{name}.txt"))),
                }
            }
            (Place::Variable, _) => setup = setup.set(&format!("{section}{}", name.replace('.', "_")), &secret),
        }
    }
    let client: String = client.iter().map(|(name, value)| format!("\"{name}\" = {}\n", json!(value))).collect();
    setup.identity(ClientOptions::dns(SENDER)).write(&setup.dir, "sender");
    setup.toml(&format!("[kafka.client]\n{client}{registry}"))
}

/// What senders post: event by event another way through the bridge, and what it is answered.
fn bodies() -> Vec<(u16, String)> {
    let identity = |name: &str| {
        format!(
            "\"api_version\":\"v1.3.0\",\"event_id\":\"1\",\"event_type\":\"T\",\"name\":\"com.asapp.event.{name}\""
        )
    };
    let everywhere = format!(
        "\"{PAYLOAD}\":{{\"{PAYLOAD}\":[\"{PAYLOAD}\"]}},\"meta_data\":{{\"issue_id\":\"{PAYLOAD}\",\"event_time\":\"{PAYLOAD}\"}},\
         \"data\":{{\"rep_id\":\"{PAYLOAD}\",\"queue_id\":\"{PAYLOAD}\",\"{PAYLOAD}\":\"{PAYLOAD}\"}}"
    );
    vec![
        (200, format!("{{{},{everywhere}}}", identity("activity"))),
        (200, format!("{{{},{everywhere}}}", identity("journey"))),
        (200, format!("{{{},{everywhere}}}", identity("queue"))),
        (200, format!("{{{},{everywhere}}}", identity("never-heard-of"))),
        (200, PAYLOAD.to_owned()),
        (200, format!("{{{},\"{PAYLOAD}\":1,\"{PAYLOAD}\":2}}", identity("journey"))),
        (413, format!("{{{},\"x\":\"{}\"}}", identity("journey"), PAYLOAD.repeat(400))),
    ]
}

async fn post_all(bridge: &Bridge, canaries: &Canaries) {
    // `traceparent` and the content type are carried into the record, the others are not looked at.
    let headers = ["x-token", "authorization", "cookie", "traceparent", "tracestate", "content-encoding", PAYLOAD]
        .map(|name| (name, PAYLOAD));
    for http in [Http::One, Http::Two] {
        let sender = bridge.sender(http);
        for (status, body) in bodies() {
            let answer = sender.post("/", &headers, body.clone()).await.unwrap();
            assert_eq!(answer.status, status, "{}", answer.body);
            canaries.search("an answer", &format!("{} {:?}", answer.body, answer.headers));
        }
        let lost = sender.post(&format!("/{PAYLOAD}?{PAYLOAD}={PAYLOAD}"), &headers, PAYLOAD).await.unwrap();
        let stranger = bridge.sender_as(&bridge.setup.identity(ClientOptions::cn("stranger")), http);
        let refused = stranger.post("/", &headers, bodies()[0].1.clone()).await.unwrap();
        assert_eq!((lost.status, refused.status), (404, 403));
        canaries.search("an answer", &format!("{} {}", lost.body, refused.body));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_of_the_bridge_or_of_a_command_shows_a_secret_or_a_payload() {
    for place in [Place::Inline, Place::FileOfItsOwn, Place::Variable] {
        let setup = setup(place);
        let secrets = Canaries::of(&setup);
        for arguments in [
            ["check"].as_slice(),
            &["topics"],
            &["topics", "--apply"],
            &["schemas", "--json"],
            &["schemas", "--apply"],
            &["check", "--json"],
        ] {
            let output = secrets.search_command(&format!("{place:?}: {arguments:?}"), &mut setup.command(arguments));
            assert!(matches!(output.status.code(), Some(0 | 3)), "{place:?}: {arguments:?}: {output:?}");
        }
        let mut bridge = setup.start();
        let all = Canaries::of(&bridge.setup).with_payload();
        post_all(&bridge, &all).await;
        for path in ["/metrics", "/readyz", "/livez", "/subjects", &format!("/{PAYLOAD}")] {
            all.search(path, &bridge.get(path).1);
        }
        fs::write(bridge.setup.dir.join("event.json"), &bodies()[0].1).unwrap();
        let url = format!("https://localhost:{}/", bridge.ingress.port());
        let ends = ["--ca", "ca.crt", "--cert", "sender.crt", "--key", "sender.key", "--url", &url];
        let send = [["send", "event.json", "--record", "sent.txt"].as_slice(), &ends].concat();
        let sent = all.search_command("send", &mut bridge.setup.command(&send));
        assert!(sent.status.success(), "{place:?}: {}", text(&sent.stderr));
        // To print payloads is what `tail` is for: only there the canary must be seen.
        let tail = ["tail", "--beginning", "--no-follow"];
        let tailed = secrets.search_command("tail", &mut bridge.setup.command(&tail));
        assert!(text(&tailed.stdout).contains(PAYLOAD), "{place:?}: {}", text(&tailed.stdout));
        let payload = Canaries(vec![("the payload", PAYLOAD.to_owned())]);
        payload.search("tail's log", &text(&tailed.stderr));
        let replayed = all.search_command("replay", &mut bridge.setup.command(&["replay"]));
        assert!(replayed.status.success(), "{place:?}: {}", text(&replayed.stderr));
        assert!(bridge.stop().success(), "{}", bridge.child.tail());
        all.search_child(&bridge.child);
        let log = bridge.child.stderr();
        for talkative in ["\"level\":\"TRACE\"", "\"fac\":\"CONF\"", "\"code\":\"body_too_large\""] {
            assert!(log.contains(talkative), "{place:?}: the log has no {talkative}: what was searched?");
        }
    }
}

#[test]
fn no_mistake_beside_a_secret_shows_it() {
    for (key, value) in [
        ("sender.timeout_ms", "1"),
        ("kafka.client.acks", "1"),
        ("kafka.client.sasl_mechanism", "NONE"),
        ("kafka.brokers", "127.0.0.1:1"),
        ("registry.url", "no address"),
        ("registry.user", ""),
        // A file that holds a secret, and no key.
        ("ingress.tls.private_key", "sasl.password.txt"),
        ("ingress.tls.certificate", "server.key"),
    ] {
        for place in [Place::Inline, Place::FileOfItsOwn, Place::Variable] {
            let setup = setup(place).set("sender.timeout_ms", "1000").set(key, value);
            fs::write(setup.dir.join("sasl.password.txt"), secured().security().password).unwrap();
            let from = format!("{place:?}, {key} = {value:?}");
            let output = Canaries::of(&setup).search_command(&from, &mut setup.command(&["check"]));
            assert!(matches!(output.status.code(), Some(1 | 3)), "{from}: {output:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_shows_events_and_none_of_its_keys() {
    let dir = scratch::dir("canaries");
    let ready = dir.join("ready.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.args(["dev", "--port", "0", "--admin-port", "0", "--log", "trace", "--dir"]).arg(&dir);
    command.arg("--ready-file").arg(&ready).current_dir(&dir);
    let mut child = Child::spawn("dev", &command, &dir);
    child.wait_ready(|| ready.exists());
    let mut keys = Canaries(Vec::new());
    for file in ["sender.key", "server.key"] {
        keys.add_key("a private key", &dir.join(file));
    }
    let mut send = Command::new(env!("CARGO_BIN_EXE_causeway"));
    send.args(["send", "--log", "trace", "--generate", "--count", "5", "--dir"]).arg(&dir);
    let sent = keys.search_command("send", &mut send);
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    wait_until("dev shows the events", || child.stdout().lines().filter(|line| line.contains("asapp.")).count() >= 5);
    child.signal(Signal::Terminate);
    assert!(child.wait().success(), "{}", child.tail());
    keys.search_child(&child);
}

/// The search itself: what it must find, it finds.
#[test]
#[should_panic(expected = "shows the server's key")]
fn the_search_finds_what_is_there() {
    let dir = scratch::dir("canaries");
    let key = Authority::new("Test CA").server(&["localhost"], [[127, 0, 0, 1]]).write(&dir, "server").private_key;
    let mut canaries = Canaries(Vec::new());
    canaries.add_key("the server's key", &key);
    canaries.search("this test", &format!("{:?}", fs::read_to_string(&key).unwrap()));
}
