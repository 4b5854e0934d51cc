//! `[kafka.client]`: the properties of librdkafka that the configuration may set, and why it may not set the others.

use std::{collections::BTreeMap, fs::File, path::PathBuf};

use super::{
    fault::Wrong,
    oauth,
    settings::Settings,
    source::{Entry, Origin, Value},
};

/// Properties, with their aliases, that Causeway sets itself or that would break a promise; each group with its reason.
pub(super) const REFUSED: &[(&[&str], &str)] = &[
    (&["acks", "request.required.acks"], "a 200 means committed under acks=all"),
    (
        &[
            "enable.idempotence",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "retries",
            "message.send.max.retries",
        ],
        "order and no duplicates within a producer come from idempotence as Causeway sets it",
    ),
    (&["enable.gapless.guarantee"], "one failed event would stop all that follow"),
    (&["queuing.strategy", "msg_order_cmp"], "events of a key keep their order"),
    (&["queue.buffering.backpressure.threshold"], "librdkafka takes it without idempotence only"),
    (
        &["partitioner", "partitioner_cb"],
        "the partitioner is murmur2_random, so that Java producers agree; another would move keys to other partitions",
    ),
    (&["transactional.id", "transaction.timeout.ms"], "each event is committed by itself, not in a transaction"),
    (
        &[
            "message.timeout.ms",
            "delivery.timeout.ms",
            "socket.timeout.ms",
            "request.timeout.ms",
            "metadata.request.timeout.ms",
        ],
        "it follows from sender.timeout_ms, sender.retries and sender.retry_pause_ms_max",
    ),
    (
        &[
            "reconnect.backoff.ms",
            "reconnect.backoff.max.ms",
            "reconnect.backoff.jitter.ms",
            "retry.backoff.ms",
            "retry.backoff.max.ms",
            "topic.metadata.refresh.interval.ms",
            "topic.metadata.propagation.max.ms",
            "enable.sparse.connections",
        ],
        "Causeway sets it so that all is well again soon after an outage",
    ),
    (
        &["delivery.report.only.error", "produce.offset.report"],
        "a 200 is built from the report of a successful delivery",
    ),
    (&["bootstrap.servers", "metadata.broker.list"], "the brokers are kafka.brokers"),
    (
        &["queue.buffering.max.messages", "queue.buffering.max.kbytes"],
        "the queue's limits are ingress.queue_bytes_max and ingress.in_flight_max",
    ),
    (
        &["allow.auto.create.topics"],
        "a topic created on first use has neither our partitions nor our replicas: kafka.create_topics",
    ),
    (&["topic.blacklist"], "it would hide topics that events go to"),
    (
        &["api.version.request", "api.version.fallback.ms", "broker.version.fallback"],
        "headers and idempotence need what the broker says of its version",
    ),
    (&["statistics.interval.ms"], "the metrics are made of the statistics"),
    (&["log_level", "log.queue"], "the log is Causeway's: CAUSEWAY_LOG"),
    (
        &[
            "sasl.oauthbearer.assertion.algorithm",
            "sasl.oauthbearer.assertion.claim.aud",
            "sasl.oauthbearer.assertion.claim.exp.seconds",
            "sasl.oauthbearer.assertion.claim.iss",
            "sasl.oauthbearer.assertion.claim.jti.include",
            "sasl.oauthbearer.assertion.claim.nbf.seconds",
            "sasl.oauthbearer.assertion.claim.sub",
            "sasl.oauthbearer.assertion.file",
            "sasl.oauthbearer.assertion.jwt.template.file",
            "sasl.oauthbearer.assertion.private.key.file",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.metadata.authentication.type",
            "https.ca.pem",
        ],
        "Causeway gets tokens by client credentials or from a file; other ways it does not know",
    ),
    (
        &["sasl.oauthbearer.config", "enable.sasl.oauthbearer.unsecure.jwt"],
        "a token that nobody signed is for tests of librdkafka",
    ),
    (&["plugin.library.paths", "ssl.engine.location", "ssl.engine.id"], "it loads foreign code into the bridge"),
    (&["builtin.features"], "it says what librdkafka was built with, and sets nothing"),
    (&["test.mock.num.brokers", "test.mock.broker.rtt"], "events would go to a broker that keeps nothing"),
    (
        &[
            "enabled_events",
            "enable_sasl_queue",
            "opaque",
            "default_topic_conf",
            "interceptors",
            "open_cb",
            "resolve_cb",
        ],
        "it is for programs, not for configurations",
    ),
    (
        &["ssl_key", "ssl_certificate", "ssl_ca", "ssl_engine_callback_data", "ut_handle_ProduceResponse"],
        "it is for programs, not for configurations",
    ),
    (
        &[
            "group.id",
            "group.instance.id",
            "group.protocol",
            "group.protocol.type",
            "group.remote.assignor",
            "partition.assignment.strategy",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "coordinator.query.interval.ms",
            "max.poll.interval.ms",
            "enable.auto.commit",
            "auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.offset.store",
            "auto.offset.reset",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
            "queued.min.messages",
            "queued.max.messages.kbytes",
            "fetch.wait.max.ms",
            "fetch.queue.backoff.ms",
            "fetch.message.max.bytes",
            "max.partition.fetch.bytes",
            "fetch.max.bytes",
            "fetch.min.bytes",
            "fetch.error.backoff.ms",
            "isolation.level",
            "enable.partition.eof",
            "check.crcs",
            "consume.callback.max.messages",
        ],
        "it is a consumer's; the bridge produces, and Causeway's own readers set theirs",
    ),
];

/// Properties that the limits are compared with, and whether they may have a fraction. Only plain decimals are taken:
/// librdkafka reads a leading 0 as octal, ignores trailing text and cuts off at 32 bits, and would use another number.
const COMPARED: &[(&str, bool)] = &[
    ("message.max.bytes", false),
    ("receive.message.max.bytes", false),
    ("linger.ms", true),
    ("queue.buffering.max.ms", true),
];

/// Allowed properties that have two names, of which only one may be given.
pub(super) const ALIASES: &[(&str, &str)] = &[
    ("compression.codec", "compression.type"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
];

/// A property whose name contains one of these words is a secret: no log and no `check` may show its value.
const SECRET_WORDS: &[&str] =
    &["password", "passphrase", "secret", "key.pem", "private.key", "jaas", "oauthbearer.config"];

/// This property is a secret too, by its whole name: names of other properties, which are no secrets, begin with it.
const TOKEN: &str = "sasl.oauthbearer.token";

/// An objection of librdkafka to the properties.
pub struct PropertyFault {
    /// The property in question; empty if it is none of those given.
    pub name: String,
    /// The objection, in words.
    pub what: String,
    /// How to mend it.
    pub remedy: &'static str,
}

/// Reads `[kafka.client]`: the properties, and the files that hold their values. `property_faults` asks librdkafka.
pub(super) fn read(
    settings: &mut Settings,
    property_faults: &dyn Fn(&BTreeMap<String, String>) -> Vec<PropertyFault>,
) -> (BTreeMap<String, String>, BTreeMap<String, PathBuf>) {
    let (mut properties, mut files, mut keys) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (written, entry) in settings.below("kafka.client") {
        let key = key(&written);
        let name = written.strip_suffix("_file").unwrap_or(&written);
        if let Some(wrong) = refusal(name) {
            settings.fault(&key, wrong);
            continue;
        }
        let Some((value, file)) = value(settings, &key, name, &entry) else { continue };
        if let Some(wrong) = misread(name, &value) {
            settings.fault(&key, wrong);
            continue;
        }
        properties.insert(name.to_owned(), value);
        keys.insert(name.to_owned(), key);
        files.extend(file.map(|file| (name.to_owned(), file)));
    }
    let librdkafkas = properties.iter().filter(|(name, _)| !oauth::is_ours(name));
    let librdkafkas = librdkafkas.map(|(name, value)| (name.clone(), value.clone())).collect();
    for PropertyFault { name, what, remedy } in property_faults(&librdkafkas) {
        let key = keys.get(&name).map_or("kafka.client", String::as_str);
        settings.fault(key, Wrong::new(format!("is refused: {what}"), remedy));
        properties.remove(&name);
    }
    for (alias, name) in ALIASES {
        if properties.contains_key(*alias) && properties.contains_key(*name) {
            settings.both(&key(alias), &format!("{}, which is the same property", key(name)));
        }
    }
    (properties, files)
}

/// The time in milliseconds that librdkafka waits for more records, and the key that sets it.
pub(super) fn linger_ms(properties: &BTreeMap<String, String>) -> Option<(String, f64)> {
    ["linger.ms", "queue.buffering.max.ms"].iter().find_map(|name| {
        let millis = properties.get(*name)?.parse().ok()?;
        Some((key(name), millis))
    })
}

/// Whether the property's value is a secret.
pub(super) fn is_secret(property: &str) -> bool {
    SECRET_WORDS.iter().any(|word| property.contains(word)) || property == TOKEN
}

/// The configuration's key for a property.
pub(super) fn key(property: &str) -> String {
    format!("kafka.client.{property}")
}

/// The property's value as text, for librdkafka, and the file that it was read from, if any.
fn value(settings: &mut Settings, key: &str, name: &str, entry: &Entry) -> Option<(String, Option<PathBuf>)> {
    let text = match &entry.value {
        Value::Raw(text) | Value::Text(text) | Value::Float(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        other @ (Value::List(_) | Value::Other(_) | Value::EmptyTable) => {
            settings.fault(key, Wrong::new(format!("is {}, not text", other.kind()), "write the value in quotes"));
            return None;
        }
    };
    if text.trim().is_empty() {
        settings.fault(key, Wrong::new("is empty", "write a value, or leave the key out"));
        return None;
    }
    if !key.ends_with("_file") {
        let text = if is_path(name) { located(settings, key, &entry.origin, &text)? } else { text };
        return Some((text, None));
    }
    let direct = self::key(name);
    if settings.is_given(&direct) {
        settings.both(key, &direct);
        return None;
    }
    let file = settings.resolve(&entry.origin, &text);
    settings.secret_file(key, &file).map(|text| (text, Some(file)))
}

/// Whether the property's value is the path of a file or folder.
fn is_path(property: &str) -> bool {
    property.ends_with(".location")
}

/// Resolves the path, and checks that it can be read: librdkafka's error would name neither the property nor the path.
fn located(settings: &mut Settings, key: &str, origin: &Origin, text: &str) -> Option<String> {
    // librdkafka then looks for the system's CA certificates.
    if key == self::key("ssl.ca.location") && text == "probe" {
        return Some(text.to_owned());
    }
    let path = settings.resolve(origin, text);
    if let Err(error) = File::open(&path) {
        let what = format!("names {}, which cannot be read: {error}", path.display());
        settings.fault(key, Wrong::new(what, "name a readable file"));
        return None;
    }
    Some(path.display().to_string())
}

/// The fault of a number that is not written plainly, so that librdkafka would read another one.
fn misread(name: &str, value: &str) -> Option<Wrong> {
    let (_, fraction) = COMPARED.iter().find(|(compared, _)| *compared == name)?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = value.split_once('.').map_or((value, None), |(whole, part)| (whole, Some(part)));
    let plain = digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && whole.parse::<i32>().is_ok()
        && part.is_none_or(|part| *fraction && digits(part));
    let shown: String = value.chars().take(32).collect();
    let remedy = "write digits alone, without a 0 before them, as in 1000000";
    (!plain).then(|| Wrong::new(format!("is {shown:?}, no plain decimal number"), remedy))
}

fn refusal(name: &str) -> Option<Wrong> {
    let reason = REFUSED.iter().find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason);
    let callback = name.ends_with("_cb").then_some("it is for programs, not for configurations");
    reason.or(callback).map(|reason| Wrong::new(format!("may not be set: {reason}"), "leave it out"))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{load, load::tests::*, source::Sources},
        *,
    };

    fn client(lines: &str) -> String {
        format!("{MINIMAL}[kafka.client]\n{lines}\n")
    }

    #[test]
    fn refuses_what_breaks_a_promise() {
        for (name, reason) in [
            ("acks", "committed"),
            ("request.required.acks", "committed"),
            ("enable.idempotence", "idempotence"),
            ("max.in.flight", "idempotence"),
            ("delivery.timeout.ms", "sender.timeout_ms"),
            ("metadata.broker.list", "kafka.brokers"),
            ("dr_msg_cb", "programs"),
            ("group.id", "consumer"),
            ("plugin.library.paths", "foreign code"),
            ("test.mock.num.brokers", "keeps nothing"),
            ("acks_file", "committed"),
        ] {
            let faults = faults(&client(&format!("\"{name}\" = 1")));
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(&format!("kafka.client.{name} may not be set: ")), "{faults:?}");
            assert!(faults[0].contains(reason), "{faults:?}");
        }
    }

    #[test]
    fn takes_the_rest_quoted_or_not() {
        let lines = "compression.type = 'zstd'\n'linger.ms' = 0.5\nbatch.size = 5\n'socket.keepalive.enable' = true\n\
                     security.protocol = 'sasl_ssl'\nsasl.username = 'me'";
        let config = super::super::from_toml(&client(lines)).unwrap();
        let expected = [
            ("batch.size", "5"),
            ("compression.type", "zstd"),
            ("linger.ms", "0.5"),
            ("sasl.username", "me"),
            ("security.protocol", "sasl_ssl"),
            ("socket.keepalive.enable", "true"),
        ];
        assert_eq!(config.kafka.client, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn asks_librdkafka() {
        let text = client("'no.such' = 1\n'client.rack' = 'a'");
        let sources = Sources { file: Some(("a.toml".as_ref(), &text)), ..Sources::default() };
        let faults = |properties: &BTreeMap<String, String>| {
            assert_eq!(properties.get("no.such").map(String::as_str), Some("1"));
            vec![PropertyFault {
                name: "no.such".to_owned(),
                what: "never heard of".to_owned(),
                remedy: "leave it out",
            }]
        };
        let faults = load(&sources, &faults).unwrap_err().to_string();
        assert!(faults.contains("kafka.client.no.such is refused: never heard of"), "{faults}");
        assert!(!faults.contains("client.rack"), "{faults}");
    }

    #[test]
    fn secrets_come_from_files() {
        let folder = temp_dir::TempDir::new().unwrap();
        std::fs::write(folder.path().join("word"), "open sesame\n").unwrap();
        let text = client("sasl.password_file = 'word'");
        let path = folder.path().join("a.toml");
        let sources = Sources { file: Some((&path, &text)), ..Sources::default() };
        let config = load(&sources, &|_| Vec::new()).unwrap();
        assert_eq!(config.kafka.client["sasl.password"], "open sesame");
        assert!(!format!("{config:?}").contains("sesame"));
        assert!(!config.resolved().contains("sesame"));

        assert_faults(&client("sasl.password_file = 'nowhere'"), &["names nowhere, which cannot be read"]);
        assert_faults(
            &client("sasl.password_file = 'x'\nsasl.password = 'y'"),
            &["kafka.client.sasl.password_file is given beside kafka.client.sasl.password (a.toml:"],
        );
    }

    #[test]
    fn a_path_is_relative_to_the_file_and_must_be_readable() {
        let dir = temp_dir::TempDir::new().unwrap();
        let path = dir.path().join("causeway.toml");
        std::fs::write(dir.path().join("ca.pem"), "").unwrap();
        let located = |value: &str| {
            let text = client(&format!("'ssl.ca.location' = '{value}'"));
            let sources = Sources { file: Some((&path, &text)), ..Sources::default() };
            load(&sources, &|_| Vec::new()).map(|config| config.kafka.client["ssl.ca.location"].clone())
        };
        assert_eq!(located("ca.pem").unwrap(), dir.path().join("ca.pem").display().to_string());
        assert_eq!(located("probe").unwrap(), "probe");
        for name in ["ssl.certificate.location", "ssl.key.location"] {
            let fault = format!("kafka.client.{name} names nowhere.pem, which cannot be read");
            assert_faults(&client(&format!("'{name}' = 'nowhere.pem'")), &[&fault]);
        }
    }

    #[test]
    fn values_are_scalars() {
        assert_faults(&client("'sasl.username' = ''"), &["kafka.client.sasl.username is empty"]);
        assert_faults(&client("'ssl.curves.list' = ['a']"), &["is a list, not text"]);
    }

    #[test]
    fn a_number_that_limits_are_compared_with_is_a_plain_one() {
        for name in ["message.max.bytes", "receive.message.max.bytes", "linger.ms", "queue.buffering.max.ms"] {
            let fault = format!("kafka.client.{name} is \"");
            for value in ["500000B", " 500000", "01000000", "4400ms", "0x10", "-1", "1e3", "5.", ".5", "4295967296"] {
                assert_faults(&client(&format!("'{name}' = '{value}'")), &[&fault]);
            }
        }
        assert_faults(&client("'message.max.bytes' = '1000000.5'"), &["no plain decimal number"]);
        for lines in
            ["'message.max.bytes' = '1000000'", "'linger.ms' = '0'", "linger.ms = 0.5", "'linger.ms' = '12.25'"]
        {
            assert_faults(&client(lines), &[]);
        }
    }

    #[test]
    fn an_alias_is_the_same_property() {
        assert_faults(
            &client("'linger.ms' = 1\n'queue.buffering.max.ms' = 2"),
            &["linger.ms, which is the same property"],
        );
    }

    #[test]
    fn secrets_are_known_by_name() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.token",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["sasl.username", "ssl.ca.location", "ssl.certificate.pem", "sasl.oauthbearer.token.endpoint.url"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
