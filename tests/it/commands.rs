//! `topics`, `schemas`, `check`, `send` and `replay` against a real cluster and a real registry.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Output,
    time::{SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value as Json, json};

use crate::{
    security::secured,
    support::{
        self,
        bridge::{SENDER, Setup},
        certs::ClientOptions,
        client::Http,
        kafka::Kafka,
        starting::Starting,
    },
};

pub fn run(setup: &Setup, arguments: &[&str]) -> Output {
    setup.command(arguments).env("CAUSEWAY_LOG", "error").output().unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn topics_and_schemas_say_what_is_missing_and_apply_it_once() {
    let setup = Setup::new(support::kafka(), Some(support::registry()))
        .set("kafka.create_topics", "false")
        .set("registry.auto_register", "false");
    let journey = setup.topic("journey");

    let missing = run(&setup, &["topics"]);
    assert_eq!(code(&missing), 3, "{}", stdout(&missing));
    assert!(stdout(&missing).contains(&journey), "{}", stdout(&missing));
    assert_eq!(code(&run(&setup, &["check", "--quiet"])), 3, "a missing topic is an error");
    assert_eq!(code(&run(&setup, &["topics", "--apply"])), 0);
    assert_eq!(code(&run(&setup, &["topics"])), 0);

    let missing = run(&setup, &["schemas", "--json"]);
    assert_eq!(code(&missing), 3, "{}", stdout(&missing));
    assert_eq!(code(&run(&setup, &["schemas", "--apply"])), 0);
    assert_eq!(code(&run(&setup, &["schemas"])), 0);
    let (_, config) = support::registry().get(&format!("/config/{journey}-value"));
    assert_eq!(config["compatibilityLevel"], "FULL_TRANSITIVE");

    let checked = run(&setup, &["check", "--quiet", "--json"]);
    assert_eq!(code(&checked), 0, "{}", stdout(&checked));
    let report: Json = serde_json::from_str(&stdout(&checked)).unwrap();
    assert!(report["findings"].as_array().is_some_and(|findings| findings.len() > 5), "{report}");
    assert_eq!(code(&run(&setup, &["check", "--quiet", "--strict"])), 3, "one replica is a warning");
}

#[test]
fn what_send_says_was_acked_is_in_kafka() {
    let bridge = Setup::new(support::kafka(), None).start();
    bridge.setup.identity(ClientOptions::dns(SENDER)).write(&bridge.setup.dir, "sender");
    let url = format!("https://localhost:{}/", bridge.ingress.port());
    let ends = ["--ca", "ca.crt", "--cert", "sender.crt", "--key", "sender.key", "--url", &url];
    let load = ["send", "--generate", "--count", "60", "--rate", "200", "--record", "record.txt", "--json"];
    let sent = run(&bridge.setup, &[load.as_slice(), ends.as_slice()].concat());
    assert_eq!(code(&sent), 0, "{sent:?}");
    let summary: Json = serde_json::from_str(&stdout(&sent)).unwrap();
    assert_eq!((&summary["acked"], &summary["dropped"]), (&json!(60), &json!(0)));
    let record = fs::read_to_string(bridge.setup.dir.join("record.txt")).unwrap();
    let acked: BTreeSet<&str> = record.lines().filter_map(|line| line.strip_suffix(" 200 1")).collect();
    assert_eq!(acked.len(), 60, "{record}");
    let read = ["activity", "journey", "queue"].map(|feed| support::kafka().read(&bridge.topic(feed)));
    let stored: BTreeSet<&str> = read.iter().flatten().filter_map(|record| record.header("ce_id")).collect();
    assert_eq!(stored, acked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_puts_each_dead_letter_through_once_and_keeps_when_it_came() {
    let bridge = Setup::new(support::kafka(), None).start();
    bridge.sender(Http::One).post("/", &[], "no event").await.unwrap();
    let event = include_str!("../data/events/journey.newer.json");
    // Not so long ago that the topic's retention would take it away.
    let received_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64 - 3_600_000;
    let header = received_at.to_string();
    put_dead_letter(&bridge.topic("dead-letter"), event, &[("causeway_received_at", &header)]);
    put_dead_letter(&bridge.topic("dead-letter"), event, &[("causeway_stub", "true")]);
    // An earlier version did not decode what came.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(include_bytes!("../data/events/queue.sample.json")).unwrap();
    put_dead_letter(&bridge.topic("dead-letter"), gzip.finish().unwrap(), &[("content-encoding", "gzip")]);
    let foreseen = stdout(&run(&bridge.setup, &["replay", "--dry-run"]));
    assert!(foreseen.contains(&bridge.topic("queue")), "{foreseen}");

    let replayed = run(&bridge.setup, &["replay", "--json"]);
    assert_eq!(code(&replayed), 0, "{replayed:?}");
    let stored = support::kafka().read(&bridge.topic("journey"));
    assert_eq!(stored.len(), 1, "the stub is skipped");
    assert_eq!(stored[0].timestamp, received_at);
    assert_eq!(support::kafka().read(&bridge.topic("queue")).len(), 1, "what came with a content-encoding");
    let dead = support::kafka().read(&bridge.topic("dead-letter"));
    let again: Vec<_> = dead.iter().filter(|record| record.header("causeway_attempts") == Some("1")).collect();
    assert_eq!(again.len(), 1, "what is no event is a dead letter again");
    assert_eq!(again[0].value.as_deref(), Some(b"no event".as_slice()));

    // Progress was committed: only the dead letter that the first run left is new.
    assert_eq!(code(&run(&bridge.setup, &["replay"])), 0);
    assert_eq!(support::kafka().read(&bridge.topic("journey")).len(), 1);
}

#[test]
fn what_was_dead_too_often_is_reached_as_the_summary_says() {
    let setup = Setup::new(support::kafka(), None).set("ingress.depth_max", "1");
    assert_eq!(code(&run(&setup, &["topics", "--apply"])), 0);
    put_dead_letter(&setup.topic("dead-letter"), include_str!("../data/events/journey.newer.json"), &[]);
    for _ in 0..3 {
        let replayed = run(&setup, &["replay"]);
        assert_eq!((code(&replayed), stdout(&replayed).lines().count()), (0, 1), "{replayed:?}");
    }
    let remedy = ["replay", "--from-beginning", "--attempts-max", "4"];
    let told = format!("causeway {}", remedy.join(" "));
    let given_up = stdout(&run(&setup, &["replay"]));
    assert!(given_up.contains("1 with too many attempts") && given_up.contains(&told), "{given_up}");
    let mended = setup.unset("ingress.depth_max");
    let nothing = stdout(&run(&mended, &["replay"]));
    assert!(nothing.starts_with("0 replayed") && nothing.contains(&told), "{nothing}");
    assert_eq!(code(&run(&mended, &remedy)), 0);
    assert_eq!(support::kafka().read(&mended.topic("journey")).len(), 1, "its copies join");
}

/// Each entry of `extras` has its whole pointer.
#[test]
fn a_dry_run_foresees_a_record_that_is_too_large() {
    let setup = Setup::new(support::kafka(), None);
    assert_eq!(code(&run(&setup, &["topics", "--apply"])), 0);
    let members: Vec<_> = (0..6500).map(|number| format!("\"{number}\":1")).collect();
    let inputs = format!("{{\"{}\":{{{}}}}}", "k".repeat(40_000), members.join(","));
    let event = r#"{"api_version":"v1","name":"com.asapp.event.journey","event_id":"e","event_type":"T","#;
    let event = format!("{event}\"details\":{{\"last_flow_action_called_inputs\":{inputs}}}}}");
    put_dead_letter(&setup.topic("dead-letter"), &event, &[]);
    let summary = |arguments: &[&str]| {
        let report: Json = serde_json::from_str(&stdout(&run(&setup, arguments))).unwrap();
        (report["replayed"].clone(), report["still_dead"].clone(), report["records"][0]["what"].to_string())
    };
    let foreseen = summary(&["replay", "--dry-run", "--json"]);
    assert!((&foreseen.0, &foreseen.1) == (&json!(0), &json!(1)), "{foreseen:?}");
    assert!(foreseen.2.contains("MessageSizeTooLarge"), "{foreseen:?}");
    let done = summary(&["replay", "--json"]);
    assert_eq!((done.0, done.1), (foreseen.0, foreseen.1), "it is what becomes of it");
}

#[test]
fn a_remedy_names_the_file_that_the_command_was_given() {
    let setup = Setup::new(support::kafka(), Some(support::registry()))
        .set("kafka.create_topics", "false")
        .set("registry.auto_register", "false");
    // No file is named, and no `dev` runs here: causeway.toml, as with `serve`.
    let in_folder = |arguments: &[&str], named: &[&str]| {
        let output = setup.command(&[arguments, named].concat()).env_remove("CAUSEWAY_CONFIG").output().unwrap();
        (code(&output), stdout(&output) + &stderr(&output))
    };
    for (arguments, expected, apply) in [
        (&["topics"][..], 3, "causeway topics --apply"),
        (&["schemas"], 3, "causeway schemas --apply"),
        (&["check"], 3, "causeway schemas --apply"),
        (&["tail", "--no-follow"], 3, "causeway topics --apply"),
        (&["replay"], 3, "causeway topics --apply"),
    ] {
        let (unnamed, named) = (in_folder(arguments, &[]), in_folder(arguments, &["--config", "./causeway.toml"]));
        assert!(unnamed.0 == expected && unnamed.1.contains(&format!("`{apply}`")), "{unnamed:?}");
        assert!(named.0 == expected && named.1.contains(&format!("`{apply} --config ./causeway.toml`")), "{named:?}");
    }
    let nowhere = in_folder(&["topics", "--dir", "elsewhere"], &[]);
    assert!(nowhere.0 == 3 && nowhere.1.contains("no `causeway dev` runs here"), "{nowhere:?}");
}

/// The findings about one thing that `check` says are errors: what, and the remedy.
fn errors(setup: &Setup, about: &str) -> Vec<(String, String)> {
    let checked = run(setup, &["check", "--json"]);
    assert_eq!(code(&checked), 3, "{}", stdout(&checked));
    let report: Json = serde_json::from_str(&stdout(&checked)).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let errors = findings.filter(|finding| finding["level"] == "error" && finding["about"] == about);
    let text = |finding: &Json, member: &str| finding[member].as_str().unwrap_or_default().to_owned();
    errors.map(|finding| (text(finding, "what"), text(finding, "remedy"))).collect()
}

#[test]
fn check_finds_the_files_that_keep_the_bridge_from_starting_and_says_what_to_do() {
    for registry in [None, Some(support::registry())] {
        let setup = Setup::new(support::kafka(), registry);
        let (journey, queue) = (setup.dir.join("none.avsc"), setup.dir.join("no.avsc"));
        fs::write(&queue, "{}").unwrap();
        let setup = setup.set("feeds.journey.schema", journey.to_str().unwrap());
        let setup = setup.set("feeds.queue.schema", queue.to_str().unwrap());
        let found = errors(&setup, "schema");
        for (file, error) in ["none.avsc", "no.avsc"].iter().zip(&found) {
            assert!(error.0.contains(file) && error.1.contains("a readable .avsc"), "{error:?}");
        }
        assert_eq!(found.len(), 2, "{found:?}");
        let serve = run(&setup, &["serve"]);
        assert_eq!(code(&serve), 3, "{serve:?}");
    }
    let setup = Setup::new(support::kafka(), Some(support::registry()));
    let ca = setup.dir.join("none.pem");
    let setup = setup.set("registry.ca", ca.to_str().unwrap());
    let found = errors(&setup, "registry");
    assert!(found.len() == 1 && found[0].0.contains("none.pem"), "{found:?}");
    assert!(found[0].1.contains("give registry.ca"), "{found:?}");
    let schemas = run(&setup, &["schemas"]);
    assert!(code(&schemas) == 3 && stderr(&schemas).contains("give registry.ca"), "{schemas:?}");
}

#[test]
fn check_tells_a_broken_file_of_librdkafkas_beside_all_else() {
    let client =
        |file: &str| format!("[kafka.client]\n\"security.protocol\" = \"ssl\"\n\"ssl.ca.location\" = \"{file}\"\n");
    let setup = Setup::new(support::kafka(), Some(support::registry())).set("registry.ca", "none.pem");
    fs::write(setup.dir.join("no.pem"), "no certificate").unwrap();
    let setup = setup.toml(&client("no.pem"));
    let found = errors(&setup, "kafka.client");
    assert!(
        found.len() == 1 && found[0].0.contains("ssl.ca.location failed") && found[0].1.contains("PEM"),
        "{found:?}"
    );
    assert_eq!(errors(&setup, "registry").len(), 1);
    let setup = Setup::new(support::kafka(), None).toml(&client("none.pem"));
    let checked = stdout(&run(&setup, &["check"]));
    let what = "kafka.client.ssl.ca.location names ";
    let fault = checked.lines().find(|line| line.contains(what)).unwrap_or_default();
    assert!(fault.contains("causeway.toml:") && fault.contains("none.pem, which cannot be read"), "{checked}");
}

#[test]
fn a_server_that_is_no_registry_is_not_taken_for_an_empty_one() {
    let base = support::registry().url().strip_suffix("/apis/ccompat/v7").unwrap();
    for url in [base.to_owned(), format!("{base}/apis/registry/v2")] {
        let setup = Setup::new(support::kafka(), Some(support::registry())).set("registry.url", &url);
        let setup = setup.set("registry.auto_register", "false").set("kafka.create_topics", "true");
        let found = errors(&setup, "registry");
        let what =
            "answers 404 without Confluent's error code: it is no schema registry, or registry.url lacks its path";
        assert!(found.len() == 1 && found[0].0.contains(what), "{url}: {found:?}");
    }
}

#[test]
fn what_librdkafka_refuses_when_a_client_is_made_is_told_with_its_place_beside_all_else() {
    let setup = Setup::new(support::kafka(), None).set("sender.retries", "many").toml(
        "[kafka.client]\nsecurity.protocol = \"sasl_ssl\"\nsasl.mechanism = \"SCRAM-SHA512\"\nssl.cipher.suites = \"NONE\"\n",
    );
    for command in ["serve", "check"] {
        let output = run(&setup, &[command]);
        let said = stdout(&output) + &stderr(&output);
        assert_eq!(code(&output), 3, "{command}: {said}");
        let told = |words: [&str; 2]| said.lines().any(|line| words.iter().all(|word| line.contains(word)));
        for words in [
            ["causeway.toml:7", "kafka.client.sasl.mechanism is refused"],
            ["causeway.toml:8", "kafka.client.ssl.cipher.suites is refused"],
            ["CAUSEWAY_SENDER__RETRIES", "many"],
        ] {
            assert!(told(words), "{command}: {words:?}: {said}");
        }
        assert!(said.contains("write PLAIN, SCRAM-SHA-256"), "{command}: {said}");
    }
}

#[test]
fn a_registry_is_asked_through_the_proxy_of_its_scheme_unless_no_proxy_names_it() {
    let nobody = format!("127.0.0.1:{}", support::scratch::port());
    let proxy = format!("http://{nobody}");
    let asked = |variables: &[(&str, &str)]| {
        let setup = Setup::new(support::kafka(), Some(support::registry())).set("registry.auto_register", "false");
        let setup = variables.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        let output = run(&setup, &["schemas"]);
        (code(&output), stdout(&output) + &stderr(&output))
    };
    let direct = asked(&[]);
    assert_eq!(direct.0, 3, "{direct:?}");
    for variables in [
        &[("HTTPS_PROXY", proxy.as_str())][..],
        &[("http_proxy", &proxy), ("no_proxy", "10.0.0.0/8 , 127.0.0.0/8")],
        &[("ALL_PROXY", &proxy), ("NO_PROXY", "registry.example 127.0.0.1")],
    ] {
        assert_eq!(asked(variables).0, 3, "{variables:?} is no proxy for it: {:?}", asked(variables));
    }
    let refused = asked(&[("http_proxy", &proxy), ("no_proxy", "127.0.0.1:1")]);
    let named = format!("does not answer through the proxy {nobody} of http_proxy");
    assert!(refused.0 == 1 && refused.1.contains(&named) && refused.1.contains("is that proxy up"), "{refused:?}");
}

#[test]
fn a_registry_that_has_moved_is_told_with_its_new_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let to = "location: https://me:sesame@registry.example:8443/api/subjects?token=sesame";
            let _ = write!(stream, "HTTP/1.1 308 Moved\r\n{to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let setup = Setup::new(support::kafka(), Some(support::registry())).set("registry.url", &url);
    let output = run(&setup.set("registry.auto_register", "false"), &["schemas"]);
    let said = stdout(&output) + &stderr(&output);
    let moved = "answers HTTP 308, it has moved to https://registry.example:8443/api/subjects";
    assert!(code(&output) == 1 && said.contains(moved) && !said.contains("sesame"), "{said}");
}

#[test]
fn tail_names_what_it_cannot_read_and_what_to_do() {
    let setup = Setup::new(support::kafka(), None);
    support::kafka().create_topic(&setup.topic("queue"), 1, &[]);
    let missing = run(&setup, &["tail", "--feed", "journey", "--feed", "queue", "--no-follow"]);
    let said = stderr(&missing);
    assert_eq!(code(&missing), 3, "{said}");
    assert!(said.contains(&setup.topic("journey")) && !said.contains(&setup.topic("queue")), "{said}");
    assert!(said.contains("causeway topics --apply"), "{said}");

    let nobody = format!("127.0.0.1:{}", support::scratch::port());
    let away = run(&setup.set("kafka.brokers", &nobody).set("sender.timeout_ms", "1000"), &["tail", "--no-follow"]);
    let said = stderr(&away);
    assert!(code(&away) == 1 && said.contains(&nobody) && said.contains("kafka.brokers right"), "{said}");
}

/// All others may do everything with `resource`, `CN=reader` all but `operation`.
fn forbid(resource: &[&str], operation: &str) {
    for who in [
        ["--allow-principal", "User:*", "--operation", "All"],
        ["--deny-principal", "User:CN=reader", "--operation", operation],
    ] {
        secured().tool("org.apache.kafka.tools.AclCommand", &[&["--add"], &who[..], resource].concat());
    }
}

#[test]
fn tail_and_replay_say_which_right_they_lack() {
    let security = secured().security();
    let setup = Setup::new(secured(), None);
    let [journey, dead_letters] = ["journey", "dead-letter"].map(|feed| setup.topic(feed));
    for feed in ["activity", "journey", "queue", "other", "dead-letter"] {
        secured().create_topic(&setup.topic(feed), 1, &[]);
    }
    put(secured(), &journey, "no Avro", &[]);
    put(secured(), &dead_letters, "no event", &[]);
    let files = security.authority().client(ClientOptions::cn("reader")).write(&setup.dir, "reader");
    let setup = setup.set("kafka.brokers", &security.ssl_bootstrap()).toml(&format!(
        "[kafka.client]\n\"security.protocol\" = \"SSL\"\n\"ssl.ca.location\" = {:?}\n\"ssl.certificate.location\" = {:?}\n\"ssl.key.location\" = {:?}\n",
        security.ca, files.certificate, files.private_key
    ));
    let tail = ["tail", "--feed", "journey", "--no-follow"];
    // An ACL is in force soon after its tool has ended.
    let refused = |arguments: &[&str], words: &[&str]| {
        support::wait_until(&format!("{arguments:?}: {words:?}"), || {
            let output = run(&setup, arguments);
            code(&output) == 1 && words.iter().all(|word| stderr(&output).contains(word))
        });
    };
    let replay = ["replay", "--from-beginning"];
    assert_eq!(code(&run(&setup, &tail)), 0);
    forbid(&["--group", "causeway-replay"], "Read");
    refused(&replay, &["GroupAuthorizationFailed", "group causeway-replay"]);
    forbid(&["--topic", &dead_letters], "Read");
    refused(&replay, &["TopicAuthorizationFailed", &dead_letters, "Read the topic"]);
    forbid(&["--topic", &journey], "Read");
    refused(&tail, &["TopicAuthorizationFailed", &journey, "Read the topics"]);
    forbid(&["--group", "causeway-tail"], "Describe");
    refused(&tail, &["GroupAuthorizationFailed", &journey, "Describe the group causeway-tail"]);
    // Where a topic may not be seen, it cannot be told whether it is there: it is not created for ever.
    forbid(&["--topic", &journey], "Describe");
    let why = Starting::new(setup).waits_for("TopicAuthorizationFailed");
    assert!(why.contains(&journey) && why.contains("Describe and Write"), "{why}");
}

#[test]
fn topics_that_cannot_be_created_keep_the_bridge_unready_and_it_says_why() {
    let setup = Setup::new(support::kafka(), None).set("kafka.topics.replication", "9");
    let why = Starting::new(setup).waits_for("topics: ");
    assert!(why.contains("InvalidReplicationFactor") && why.contains("kafka.topics.replication = 9"), "{why}");
}

#[test]
fn a_cluster_that_is_away_at_the_start_does_not_flood_the_log() {
    let nobody = format!("127.0.0.1:{}", support::scratch::port());
    let setup = Setup::new(support::kafka(), None).set("kafka.brokers", &nobody).set("sender.timeout_ms", "1000");
    for (command, expected) in [("topics", 1), ("check", 3)] {
        let output = setup.command(&[command]).env_remove("CAUSEWAY_LOG").output().unwrap();
        let said = stdout(&output) + &stderr(&output);
        assert!(code(&output) == expected && said.matches("Connection refused").count() == 1, "{command}: {said}");
    }
    let starting = Starting::new(setup);
    let lines = |words: &str| starting.child.stderr().lines().filter(|line| line.contains(words)).count();
    support::wait_until("three looks", || lines("not ready: no answer from") >= 3);
    // Each look has a client of its own, which says once why it got no answer.
    let (looks, errors) = (lines("not ready: no answer from"), lines("Kafka client error"));
    assert!((looks..=looks + 1).contains(&errors), "{errors} in {looks} looks:\n{}", starting.child.stderr());
    assert_eq!(errors, lines("\"client\":\"admin\",\"error\""), "{}", starting.child.stderr());
}

fn put_dead_letter(topic: &str, body: impl AsRef<[u8]>, headers: &[(&str, &str)]) {
    put(support::kafka(), topic, body, headers);
}

pub fn put(kafka: &Kafka, topic: &str, body: impl AsRef<[u8]>, headers: &[(&str, &str)]) {
    let producer: BaseProducer = kafka.client().create().unwrap();
    let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value.as_bytes()) })
    });
    producer.send(BaseRecord::<str, [u8]>::to(topic).payload(body.as_ref()).headers(headers)).unwrap();
    producer.flush(support::HANG).unwrap();
}
