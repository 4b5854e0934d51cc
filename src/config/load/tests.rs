use std::path::Path;

use super::*;
use crate::config::Secret;

/// The smallest valid configuration. It has three lines, so text appended to it begins in line 4.
pub const MINIMAL: &str = "# Senders\n[ingress.tls]\nclient_names = ['*']\n";

/// The faults of `text`, read as a file `a.toml`.
pub fn faults(text: &str) -> Vec<String> {
    let sources = Sources { file: Some((Path::new("a.toml"), text)), ..Sources::default() };
    match load(&sources, &|_| Vec::new()) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

/// Asserts that `text` has exactly these faults, each containing its expected words.
pub fn assert_faults(text: &str, expected: &[&str]) {
    let faults = faults(text);
    assert_eq!(faults.len(), expected.len(), "{text}\n{faults:#?}");
    for expected in expected {
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{text}\nwithout {expected:?}: {faults:#?}");
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn defaults_are_the_designs() {
    let config = from_toml(MINIMAL).unwrap();
    assert_eq!(config.sender.timeout, Duration::from_secs(5));
    assert_eq!(config.sender.retries, 3);
    assert_eq!(config.ingress.listen.to_string(), "0.0.0.0:8443");
    assert_eq!(config.ingress.drain_max, Duration::from_millis(9500));
    assert_eq!(config.ingress.tls.client_names, [ClientName::Any]);
    assert!(!config.ingress.tls.tls_1_2);
    assert_eq!(config.kafka.brokers, ["127.0.0.1:9092"]);
    assert_eq!(config.kafka.topics.retention_ms, 604_800_000);
    assert_eq!(config.dead_letter.topic, "asapp.dead-letter");
    assert!(config.registry.is_none());
    assert_eq!(config.feeds, crate::feed::built_in());
}

#[test]
fn every_key_of_the_example() {
    let config = from_toml(EXAMPLE).unwrap();
    assert_eq!(config.ingress.tls.client_names, [ClientName::Dns("sender.asapp.example".to_owned())]);
    assert_eq!(config.ingress.tls.crl.as_deref(), Some(Path::new("crl.pem")));
    assert_eq!(config.kafka.client["compression.type"], "lz4");
    assert_eq!(config.registry.unwrap().urls, ["http://127.0.0.1:8081"]);
    assert_eq!(config.feeds[0].path.as_deref(), Some("/activity"));
}

#[test]
fn flags_beat_environment_beats_file() {
    let text =
        format!("{MINIMAL}crl = 'crl.pem'\n[kafka]\nbrokers = ['file']\n[sender]\nretries = 1\ntimeout_ms = 1000\n");
    let env = pairs(&[
        ("CAUSEWAY_KAFKA__BROKERS", "env-1:1, env-2:2"),
        ("CAUSEWAY_SENDER__RETRIES", "2"),
        ("CAUSEWAY_KAFKA__CREATE_TOPICS", "true"),
        ("CAUSEWAY_INGRESS__TLS__CLIENT_NAMES", r#"["subject:CN=a,O=b"]"#),
        ("CAUSEWAY_INGRESS__TLS__CERTIFICATE", "here.crt"),
        ("CAUSEWAY_KAFKA__CLIENT__SASL_PASSWORD", "sesame"),
        ("CAUSEWAY_LOG", "debug"),
    ]);
    let flags = pairs(&[("sender.retries", "3")]);
    let sources = Sources { file: Some((Path::new("/etc/a.toml"), &text)), env: &env, flags: &flags };
    let config = load(&sources, &|_| Vec::new()).unwrap();
    assert_eq!(config.sender.timeout, Duration::from_secs(1));
    assert_eq!(config.sender.retries, 3);
    assert_eq!(config.kafka.brokers, ["env-1:1", "env-2:2"]);
    assert!(config.kafka.create_topics);
    assert_eq!(config.kafka.client["sasl.password"], "sesame");
    assert_eq!(config.ingress.tls.client_names, [ClientName::parse("subject:CN=a,O=b").ok().unwrap()]);
    // Paths from the file and defaults start at the file's folder, those from the environment at the working directory.
    assert_eq!(config.ingress.tls.crl.as_deref(), Some(Path::new("/etc/crl.pem")));
    assert_eq!(config.ingress.tls.private_key, Path::new("/etc/tls.key"));
    assert_eq!(config.ingress.tls.certificate, Path::new("here.crt"));
}

#[test]
fn all_faults_at_once_with_their_places() {
    let text = "[sender]\ntimeout_ms = 100\nretries = 'x'\n\n[ingress]\nlistn = '0.0.0.0:1'\nlisten = 'localhost:1'\n[kafka]\nbrokers = 'a:1'\n";
    let env = pairs(&[("CAUSEWAY_KAFKA_BROKERS", "a:1"), ("CAUSEWAY_INGRESS__DEPTH_MAX", "1e3")]);
    let flags = pairs(&[("admin.lisen", "x")]);
    let sources = Sources { file: Some((Path::new("etc/causeway.toml"), text)), env: &env, flags: &flags };
    let faults = load(&sources, &|_| Vec::new()).unwrap_err().to_string();
    let expected = r#"etc/causeway.toml:2: sender.timeout_ms is 100, less than 500
    write 500 to 600000
etc/causeway.toml:3: sender.retries is "x", not a whole number
    write 0 to 100
etc/causeway.toml:6: ingress.listn is not a key
    did you mean ingress.listen?
etc/causeway.toml:7: ingress.listen is "localhost:1", no address to listen on
    write an IP address and a port, as in 0.0.0.0:8443 or [::]:8443; port 0 takes a free one
etc/causeway.toml:9: kafka.brokers is text, not a list of strings
    write ["one", "two"]
CAUSEWAY_INGRESS__DEPTH_MAX: ingress.depth_max is "1e3", not a whole number
    write 1 to 1000
CAUSEWAY_KAFKA_BROKERS: kafka_brokers is not a key
    did you mean CAUSEWAY_KAFKA__BROKERS?
command line: admin.lisen is not a key
    did you mean admin.listen?
configuration: ingress.tls.client_names is required: it names the senders that may post
    write "dns:NAME", "uri:URI", "cn:NAME", "subject:DN" as in the sender's certificate, or ["*"] to take every certificate that the client CA signed"#;
    assert_eq!(faults, expected);
}

#[test]
fn values_out_of_their_range() {
    for (lines, expected) in [
        ("[sender]\nretries = 101", "more than 100"),
        ("[sender]\nretries = 99999999999999999999", "a number beyond 64 bits"),
        ("[ingress]\ndepth_max = 1001", "ingress.depth_max is 1001, more than 1000"),
        ("[ingress]\nin_flight_max = 0", "less than 1"),
        ("[ingress]\nconnections_max = -1", "less than 1"),
        ("[ingress]\nbody_bytes_max = 1023", "less than 1024"),
        ("[kafka.topics]\npartitions = 0", "kafka.topics.partitions is 0"),
        ("[kafka.topics]\nreplication = -2", "less than -1"),
        ("[kafka.topics]\nretention_ms = -2", "write -1 or more"),
        ("[kafka]\ncreate_topics = 'yes'", "write true or false"),
        ("[kafka]\nbrokers = []", "kafka.brokers is empty"),
        ("[kafka]\nbrokers = ['a:b']", "no address"),
        ("[kafka]\nbrokers = ['http://a:9092', 'SASL_SSL://b:9092']", "\"http://a:9092\", no address"),
        ("[kafka]\nbrokers = [1]", "a list of something else than strings"),
        ("[dead_letter]\ntopic = 'a b'", "no legal topic name"),
        ("[dead_letter]\ntopic = ''", "dead_letter.topic is empty"),
        ("[dead_letter]\ntopic = 5", "a number without quotes, not text"),
        ("[dead_letters]\ntopic = 'a'", "did you mean dead_letter.topic?"),
        ("[ingres]", "did you mean [ingress]?"),
        ("[ingres]\nsomething = 1", "did you mean [ingress]?"),
        ("[kafka.clients]\nacks = 1", "did you mean [kafka.client]?"),
        ("[feeds.x]\nname = 'x'\nschema = 'x.avsc'\nevent_type.rated = 'a'", "did you mean [feeds.x.event_types]?"),
        ("[elsewhere]", "known here: sender, ingress, admin, kafka, dedupe, registry, dead_letter, feeds"),
        ("[registry]\nuser = 'me'", "has no registry"),
        ("[registry]\nurl = 'ftp://a'", "neither http:// nor https://"),
        ("[registry]\nurl = 'http://me:word@a'", "set registry.user and registry.password_file"),
        ("[registry]\nurl = 'http:///'", "no base address"),
        ("[registry]\nurl = 'http://a'\npassword = 'x'", "registry.password is given without registry.user"),
        ("[registry]\nurl = 'http://a'\nuser = 'u'\npassword = 'x'\npassword_file = 'y'", "given beside"),
        ("[registry]\nurl = 'http://a'\nuser = 'u'\npassword_file = 'no-such-file'", "cannot be read"),
    ] {
        assert_faults(&format!("{MINIMAL}{lines}\n"), &[expected]);
    }
}

#[test]
fn what_is_wrong_below_a_wrong_url_is_told_with_it() {
    let lines = "[registry]\nurl = 'ftp://a'\nauto_register = 'x'\nuser = 'u'\npassword_file = 'no-such-file'\n";
    assert_faults(&format!("{MINIMAL}{lines}"), &["neither http:// nor", "write true or false", "cannot be read"]);
}

#[test]
fn sections_may_be_empty() {
    let sections = "[sender]\n[kafka]\n[kafka.client]\n[feeds]\n[feeds.activity]\n[registry]\n";
    assert_eq!(faults(&format!("{MINIMAL}{sections}")), [""; 0]);
}

#[test]
fn client_names_have_five_forms() {
    let with = |names: &str| format!("[ingress.tls]\nclient_names = {names}\n");
    assert_faults(&with("[]"), &["is empty: nobody could post"]);
    assert_faults(&with("['subject:CN=a,FOO=b']"), &["holds \"subject:CN=a,FOO=b\", which has \"FOO\", a type"]);
    assert_faults(&with("['a.example', 'dns:', 'dns:b']"), &["holds \"a.example\"", "holds \"dns:\""]);
    for text in ["*", "dns:a", "uri:spiffe://a/b", "cn:a b", "subject:CN=a,O=b"] {
        assert_eq!(ClientName::parse(text).ok().unwrap().to_string(), text);
    }
    for version in ["1.1", "TLS1.3"] {
        assert_faults(&format!("{MINIMAL}min_version = '{version}'\n"), &["write \"1.2\" or \"1.3\""]);
    }
    assert!(from_toml(&format!("{MINIMAL}min_version = '1.2'\n")).unwrap().ingress.tls.tls_1_2);
}

#[test]
fn registry_password_from_a_file() {
    let folder = temp_dir::TempDir::new().unwrap();
    std::fs::write(folder.path().join("word"), " sesame\n").unwrap();
    let text = format!("{MINIMAL}[registry]\nurl = 'https://a/b'\nuser = 'u'\npassword_file = 'word'\n");
    let path = folder.path().join("a.toml");
    let config = load(&Sources { file: Some((&path, &text)), ..Sources::default() }, &|_| Vec::new()).unwrap();
    assert_eq!(config.registry.unwrap().password, Some(Secret("sesame".to_owned())));
}

#[test]
fn brokers_as_librdkafka_takes_them() {
    for broker in ["a", "a:1", "[::1]:9092", "[::1]", "SASL_SSL://a.example:9093"] {
        assert!(is_broker(broker), "{broker}");
    }
    for wrong in ["", ":1", "a:", "a:0", "a:65536", "a b:1", "a:1,b:2", "http://a/b"] {
        assert!(!is_broker(wrong), "{wrong}");
    }
}

/// An example that sets every key.
pub const EXAMPLE: &str = r#"
[sender]
timeout_ms = 5000
retries = 3
retry_pause_ms_max = 30000

[ingress]
listen = "0.0.0.0:8443"
in_flight_max = 16384
queue_bytes_max = 268435456
body_bytes_max = 921600
connections_max = 16384
idle_ms_max = 120000
age_ms_max = 3600000
head_ms_max = 10000
depth_max = 128
drain_ms_max = 9500
[ingress.tls]
certificate = "tls.crt"
private_key = "tls.key"
client_ca = "ca.crt"
crl = "crl.pem"
client_names = ["dns:sender.asapp.example"]
min_version = "1.3"

[admin]
listen = "127.0.0.1:9090"

[kafka]
brokers = ["127.0.0.1:9092"]
create_topics = false
[kafka.topics]
partitions = 6
replication = 3
retention_ms = 604800000
[kafka.client]
"compression.type" = "lz4"

[registry]
url = "http://127.0.0.1:8081"
user = "causeway"
ca = "registry.crt"
auto_register = false

[dead_letter]
topic = "asapp.dead-letter"

[feeds.activity]
name = "com.asapp.event.activity"
topic = "asapp.activity"
path = "/activity"
schema = "activity.avsc"
schema_id = 7
key = ["/data/rep_id", "/meta_data/issue_id"]
event_types = { agent_rated = "asapp.ratings" }
"#;
