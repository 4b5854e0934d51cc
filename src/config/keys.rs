//! Every key of the configuration: its name, type, default and description.

use std::ops::RangeInclusive;

use Takes::{Address, Boolean, List, Path, Text};

use super::source::{Value, toml_value};

/// The type of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// A whole number within a range.
    Whole {
        /// The smallest value allowed.
        min: i64,
        /// The largest value allowed; `i64::MAX` if there is no bound.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
    /// A string.
    Text,
    /// A list of strings.
    List,
    /// An IP address and a port.
    Address,
    /// The path of a file or folder.
    Path,
}

/// One key. In `name`, `NAME` stands for a feed's label, `TYPE` for an event type, `PROPERTY` for a property of
/// librdkafka.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The dotted name, as in the file.
    pub name: &'static str,
    /// The type of its value.
    pub takes: Takes,
    /// The default as TOML text; empty if there is none, or if it follows from other keys.
    pub default: &'static str,
    /// The description: one sentence, with the unit.
    pub doc: &'static str,
}

impl Key {
    /// The environment variable that sets the key.
    pub fn variable(&self) -> String {
        variable(self.name)
    }
}

const fn key(name: &'static str, takes: Takes, default: &'static str, doc: &'static str) -> Key {
    Key { name, takes, default, doc }
}

const fn whole(min: i64, max: i64) -> Takes {
    Takes::Whole { min, max }
}

/// Every key, section by section in the order of the file.
#[rustfmt::skip] // One key a line, however long.
pub const KEYS: &[Key] = &[
    key("sender.timeout_ms", whole(500, 600_000), "5000", "How long ASAPP waits for a 200, in milliseconds; the whole time budget follows from it"),
    key("sender.retries", whole(0, 100), "3", "How often ASAPP posts an event again before it drops it"),
    key("sender.retry_pause_ms_max", whole(0, 86_400_000), "30000", "The longest that ASAPP may wait between two retries, in milliseconds"),

    key("ingress.listen", Address, "\"0.0.0.0:8443\"", "The address and port that take events, over mutual TLS"),
    key("ingress.in_flight_max", whole(1, 1_000_000), "16384", "Requests held at a time, per feed; beyond it: 503"),
    // librdkafka's limit is set to twice this, in kibibytes, and is an i32.
    key("ingress.queue_bytes_max", whole(1, 1_000_000_000_000), "268435456", "Bytes of records not yet committed, those past their 503 included; beyond it: 503"),
    key("ingress.body_bytes_max", whole(1024, 1_000_000_000), "921600", "The longest body, in bytes; beyond it: 413"),
    key("ingress.connections_max", whole(1, 1_000_000), "16384", "Open connections; at the limit the longest-idle one is closed"),
    key("ingress.idle_ms_max", whole(1000, 3_600_000), "120000", "A connection that was without a request for this long is closed, in milliseconds; more than the sender's own limit"),
    key("ingress.age_ms_max", whole(1000, 86_400_000), "3600000", "A connection that is older is closed with its next answer, in milliseconds, some up to a tenth earlier: behind a balancer of layer 4 new instances get their share so"),
    key("ingress.head_ms_max", whole(100, 60_000), "10000", "From the first byte of a request's head to its last, in milliseconds; beyond it the connection is closed"),
    // simd-json's own limit is 1,024.
    key("ingress.depth_max", whole(1, 1000), "128", "How deep an event's JSON may be nested"),
    key("ingress.drain_ms_max", whole(0, 3_600_000), "", "How long a stopping bridge waits for what it holds, in milliseconds; default: the time to an answer + 5000"),
    key("ingress.tls.certificate", Path, "\"tls.crt\"", "The server's certificate with its chain, a PEM file"),
    key("ingress.tls.private_key", Path, "\"tls.key\"", "The certificate's private key, a PEM file"),
    key("ingress.tls.client_ca", Path, "\"ca.crt\"", "The CA that signs the sender's certificates, a PEM file"),
    key("ingress.tls.crl", Path, "", "Revoked sender certificates, a PEM file"),
    key("ingress.tls.client_names", List, "", "Required: the senders that may post, each dns:NAME, uri:URI, cn:NAME or subject:DN (RFC 4514); [\"*\"] is any that the CA signed"),
    key("ingress.tls.min_version", Text, "\"1.3\"", "The oldest TLS version spoken, 1.2 or 1.3"),

    key("admin.listen", Address, "\"127.0.0.1:9090\"", "The address and port of /livez, /readyz and /metrics"),

    key("kafka.brokers", List, "[\"127.0.0.1:9092\"]", "Brokers to start from, each host:port"),
    key("kafka.create_topics", Boolean, "false", "Create the topics that are missing"),
    key("kafka.topics.partitions", whole(-1, 100_000), "6", "Partitions of a topic that we create; -1 is the broker's default"),
    key("kafka.topics.replication", whole(-1, i16::MAX as i64), "3", "Replicas of a topic that we create; -1 is the broker's default"),
    key("kafka.topics.retention_ms", whole(-1, i64::MAX), "604800000", "How long a topic that we create keeps its records, in milliseconds; -1 is for ever"),
    key("kafka.client.PROPERTY", Text, "", "Any librdkafka property that breaks no promise; with _file after its name, the file that holds its value. Defaults other than librdkafka's: `compression.type` lz4, `linger.ms` 0, `enable.metrics.push` false, `connections.max.idle.ms` 20000"),

    key("dedupe.bytes_max", whole(0, 1 << 32), "67108864", "Memory for the events committed of late, in bytes, whose retries get the same receipt; 0 remembers none"),
    key("dedupe.warm", Boolean, "false", "Fill that memory at the start from the topics' tails; needs Read on them, and Describe on the group `causeway-warm`"),

    key("registry.url", Text, "", "A Confluent-compatible schema registry, http:// or https://; several addresses of one with commas between are asked in turn; without one, records are Avro single-object encoded"),
    key("registry.user", Text, "", "The registry's user, for basic authentication"),
    key("registry.password", Text, "", "That user's password"),
    key("registry.password_file", Path, "", "The file that holds that user's password"),
    key("registry.token", Text, "", "A bearer token for the registry, in place of user and password"),
    key("registry.token_file", Path, "", "The file that holds that token; it is read for each request, so that the token may be renewed there"),
    key("registry.ca", Path, "", "The CA of the registry's certificate where that is no public one, a PEM file"),
    key("registry.certificate", Path, "", "Our certificate for the registry, with its chain, where it asks for one, a PEM file"),
    key("registry.private_key", Path, "", "That certificate's private key, a PEM file"),
    key("registry.auto_register", Boolean, "false", "Register schemas that the registry does not have"),

    key("dead_letter.topic", Text, "\"asapp.dead-letter\"", "The topic of what cannot be read as an event or can never be stored in its topic"),

    key("feeds.NAME.name", Text, "", "The `name` of the feed's events; default of the built-in feeds: com.asapp.event.NAME"),
    key("feeds.NAME.topic", Text, "", "The feed's topic; default: asapp.NAME"),
    key("feeds.NAME.key", List, "", "JSON pointers (RFC 6901) to the record's key, the first that leads to one wins"),
    key("feeds.NAME.path", Text, "", "A request path whose events belong to the feed, whatever their name"),
    key("feeds.NAME.schema", Path, "", "The Avro schema of the feed's records, an .avsc file; default of the built-in feeds: built in"),
    key("feeds.NAME.schema_id", whole(1, i32::MAX as i64), "", "The registry's id of that schema, pinned: a start then needs no registry"),
    key("feeds.NAME.event_types.TYPE", Text, "", "The topic of the feed's events of this event_type; default: the feed's topic"),
];

/// The default of `key`, if it is a constant.
pub(super) fn default(key: &str) -> Option<Value> {
    let text = KEYS.iter().find(|known| known.name == key)?.default;
    if text.is_empty() { None } else { toml_value(text) }
}

/// The range of `key`'s value if that is a whole number; else all numbers.
pub(super) fn range(key: &str) -> RangeInclusive<i64> {
    match KEYS.iter().find(|known| matches(known.name, key)).map(|known| known.takes) {
        Some(Takes::Whole { min, max }) => min..=max,
        _ => i64::MIN..=i64::MAX,
    }
}

/// The environment variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    match key.strip_prefix("kafka.client.") {
        Some(property) => format!("CAUSEWAY_KAFKA__CLIENT__{}", property.replace('.', "_").to_uppercase()),
        None => format!("CAUSEWAY_{}", key.replace('.', "__").to_uppercase()),
    }
}

/// Whether `key` exists.
pub(super) fn is_known(key: &str) -> bool {
    KEYS.iter().any(|known| matches(known.name, key))
}

/// Whether `key` is a section, such as `ingress`, `ingress.tls` or `feeds.activity`.
pub(super) fn is_section(key: &str) -> bool {
    sections().any(|section| matches(section, key))
}

fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter().flat_map(|known| known.name.match_indices('.').filter_map(|(dot, _)| known.name.get(..dot)))
}

/// The known key that `key` was most likely meant to be.
pub(super) fn nearest(key: &str) -> Option<String> {
    nearest_of(key, KEYS.iter().map(|known| known.name), 3)
}

/// The known section that the first unknown section in `key` was most likely meant to be; `key` may itself be one.
pub(super) fn nearest_section(key: &str, is_section_itself: bool) -> Option<String> {
    let above = key.match_indices('.').filter_map(|(dot, _)| key.get(..dot));
    let unknown = above.chain(is_section_itself.then_some(key)).find(|section| !is_section(section))?;
    let depth = |name: &str| name.matches('.').count();
    nearest_of(unknown, sections().filter(|section| depth(section) == depth(unknown)), 2)
}

/// The closest of `names` within `distance_max` edits; `NAME` in them stands for the feed's label in `key`.
fn nearest_of(key: &str, names: impl Iterator<Item = &'static str>, distance_max: usize) -> Option<String> {
    let label = key.strip_prefix("feeds.").and_then(|rest| rest.split('.').next()).unwrap_or("NAME");
    let candidates = names.map(|name| name.replace("NAME", label));
    let measured = candidates.map(|candidate| (distance(key, &candidate), candidate));
    measured.min().filter(|(distance, _)| *distance <= distance_max).map(|(_, candidate)| candidate)
}

/// The names of the keys beside `key` in its section; if there is no such section, the names of all sections.
pub(super) fn siblings(key: &str) -> Vec<&'static str> {
    let section = key.rsplit_once('.').map_or("", |(section, _)| section);
    let in_section = |known: &&Key| known.name.rsplit_once('.').is_some_and(|(of, _)| matches(of, section));
    let mut names: Vec<_> = KEYS.iter().filter(in_section).filter_map(|known| known.name.rsplit('.').next()).collect();
    if names.is_empty() {
        names = KEYS.iter().filter_map(|known| known.name.split('.').next()).collect();
        names.dedup();
    }
    names
}

/// Whether `key` matches `template`, in which `NAME` is any one part and a last `TYPE` or `PROPERTY` is any rest.
fn matches(template: &str, key: &str) -> bool {
    let mut rest = Some(key);
    for part in template.split('.') {
        let Some(text) = rest else { return false };
        if part == "TYPE" || part == "PROPERTY" {
            return !text.is_empty();
        }
        let (head, tail) = text.split_once('.').map_or((text, None), |(head, tail)| (head, Some(tail)));
        if part != head && part != "NAME" {
            return false;
        }
        rest = tail;
    }
    rest.is_none()
}

/// Levenshtein's distance: the number of characters to insert, delete or replace.
fn distance(left: &str, right: &str) -> usize {
    let mut above: Vec<usize> = (0..=right.chars().count()).collect();
    for (row, a) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        let mut before = row + 1;
        for (b, pair) in right.chars().zip(above.windows(2)) {
            let &[diagonal, up] = pair else { continue };
            before = (diagonal + usize::from(a != b)).min(up + 1).min(before + 1);
            current.push(before);
        }
        above = current;
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_toml() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            assert!(default(key.name).is_some(), "{}", key.name);
        }
    }

    #[test]
    fn keys_and_sections() {
        for key in ["sender.timeout_ms", "kafka.client.sasl.username", "feeds.x.topic", "feeds.x.event_types.a.b"] {
            assert!(is_known(key) && !is_section(key), "{key}");
        }
        for section in ["feeds", "feeds.x", "feeds.x.event_types", "kafka", "kafka.client", "ingress.tls"] {
            assert!(is_section(section) && !is_known(section), "{section}");
        }
        for neither in ["sender.timeout", "feeds.x.y.topic", "sender.timeout_ms.x", ""] {
            assert!(!is_section(neither) && !is_known(neither), "{neither}");
        }
    }

    #[test]
    fn nearest_key() {
        for (wrong, meant) in [
            ("ingress.listn", Some("ingress.listen")),
            ("kafka_brokers", Some("kafka.brokers")),
            ("feeds.x.topics", Some("feeds.x.topic")),
            ("completely.different", None),
        ] {
            assert_eq!(nearest(wrong).as_deref(), meant, "{wrong}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "ab"), 2);
    }
}
