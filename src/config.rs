//! The configuration: one TOML file, the environment and flags become a [`Config`], or every error at once.
//!
//! `source` merges the three into one flat map, `settings` reads the map key by key, `load` builds the [`Config`]
//! from it (with `feeds` and `client`), and `relations` compares the limits with each other.
//! [`KEYS`] lists every key once: name, type, default, description. `reference` prints that list.

mod client;
mod fault;
mod feeds;
mod keys;
mod load;
mod oauth;
mod reference;
mod relations;
mod resolved;
mod settings;
mod source;
mod subject;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

pub use client::PropertyFault;
use fault::Wrong;
pub use fault::{Fault, Faults};
pub use keys::{KEYS, Key, Takes};
pub use load::{from_toml, load};
pub use oauth::{OAuth, TokenEndpoint, TokenSource, is_ours as is_for_tokens};
pub use reference::reference;
pub use source::{Origin, Sources};
pub use subject::{Attribute, AttributeValue, Subject, short_name};

use crate::feed::Feed;

/// The most bytes that a record adds to its body: key, headers, Kafka's framing.
pub const RECORD_OVERHEAD_BYTES_MAX: usize = 16_384;

/// librdkafka's own default of `message.max.bytes`, in bytes.
pub const MESSAGE_BYTES_MAX_DEFAULT: i64 = 1_000_000;

/// The whole configuration, checked: no two limits contradict each other.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[sender]`.
    pub sender: Sender,
    /// `[ingress]`.
    pub ingress: Ingress,
    /// `[admin]`.
    pub admin: Admin,
    /// `[kafka]`.
    pub kafka: Kafka,
    /// `[registry]`; `None` where records are Avro single-object encoded.
    pub registry: Option<Registry>,
    /// `[dedupe]`.
    pub dedupe: Dedupe,
    /// `[dead_letter]`.
    pub dead_letter: DeadLetter,
    /// The built-in feeds, as the configuration changed them, then the feeds that it adds.
    pub feeds: Vec<Feed>,
}

impl Config {
    /// Every topic that the bridge writes to, each once: those of the feeds in their order, then the dead letters'.
    pub fn topics(&self) -> Vec<String> {
        let mut topics: Vec<String> = Vec::new();
        let all = self.feeds.iter().flat_map(Feed::topics).chain([self.dead_letter.topic.as_str()]);
        for topic in all {
            if !topics.iter().any(|known| known == topic) {
                topics.push(topic.to_owned());
            }
        }
        topics
    }

    /// The most HTTP/2 streams on all connections together: one for each request that may be held, and at least 400.
    pub fn streams_max(&self) -> usize {
        self.ingress.in_flight_max.saturating_mul(self.feeds.len() + 1).max(STREAMS_MIN)
    }
}

/// A new connection gets a quarter of the free streams. This minimum makes that 100, because a client opens up to
/// 100 streams before it has read its limit (RFC 9113, section 6.5.2, recommends no lower one).
const STREAMS_MIN: usize = 400;

/// `[sender]`: how ASAPP's side is set up.
#[derive(Debug, Clone)]
pub struct Sender {
    /// T: the time that ASAPP waits for a 200.
    pub timeout: Duration,
    /// How many times ASAPP posts an event again before it drops the event.
    pub retries: u32,
    /// The longest pause between two retries that we allow for: ASAPP does not document its pause.
    pub retry_pause_max: Duration,
}

/// `[ingress]`: the events' listener and its limits.
#[derive(Debug, Clone)]
pub struct Ingress {
    /// The address that takes events.
    pub listen: SocketAddr,
    /// The most held requests at a time, per feed.
    pub in_flight_max: usize,
    /// The most bytes of uncommitted records, including records whose request was already answered 503.
    pub queue_bytes_max: usize,
    /// The longest body, in bytes.
    pub body_bytes_max: usize,
    /// The most open connections.
    pub connections_max: usize,
    /// The longest that a connection may stay without a request.
    pub idle_max: Duration,
    /// The age at which a connection is closed with its next answer; up to a tenth earlier, so that not all close
    /// together.
    pub age_max: Duration,
    /// The longest time from the first byte of a request's head to its last.
    pub head_max: Duration,
    /// The deepest nesting of an event's JSON.
    pub depth_max: usize,
    /// The longest that a stopping bridge waits for held requests and uncommitted records.
    pub drain_max: Duration,
    /// `[ingress.tls]`.
    pub tls: Tls,
}

/// `[ingress.tls]`: our certificate, and which senders may connect. All files are PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Our certificate with its chain.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub private_key: PathBuf,
    /// The CA that signs the senders' certificates.
    pub client_ca: PathBuf,
    /// The list of revoked sender certificates.
    pub crl: Option<PathBuf>,
    /// The allow-list: a sender needs one of these names in its certificate.
    pub client_names: Vec<ClientName>,
    /// Whether TLS 1.2 is spoken beside 1.3 (`min_version = "1.2"`).
    pub tls_1_2: bool,
}

/// One entry of the allow-list of sender names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientName {
    /// `*`: any certificate that the client CA signed.
    Any,
    /// `dns:`: a DNS subject alternative name.
    Dns(String),
    /// `uri:`: a URI subject alternative name (SPIFFE).
    Uri(String),
    /// `cn:`: the subject's common name.
    CommonName(String),
    /// `subject:`: the whole subject as RFC 4514 writes it.
    Subject(Subject),
}

impl ClientName {
    const FORMS: &str = r#"write "dns:NAME", "uri:URI", "cn:NAME", "subject:DN" as in the sender's certificate, or ["*"] to take every certificate that the client CA signed"#;

    /// Reads an entry as the configuration writes it.
    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (form, name) = text.split_once(':').unwrap_or_default();
        // A backslash makes the space after it part of the name, so such an end must not be trimmed.
        let name = if form == "subject" && name.trim_end().ends_with('\\') { name.trim_start() } else { name.trim() };
        match form {
            _ if name.is_empty() => Err(Wrong::new(format!("holds {text:?}, which names nobody"), Self::FORMS)),
            "dns" => Ok(Self::Dns(name.to_owned())),
            "uri" => Ok(Self::Uri(name.to_owned())),
            "cn" => Ok(Self::CommonName(name.to_owned())),
            "subject" => Subject::parse(name).map(Self::Subject),
            _ => Err(Wrong::new(format!("holds {text:?}, which names nobody"), Self::FORMS)),
        }
    }
}

/// Writes the name as the configuration does.
impl fmt::Display for ClientName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => out.write_str("*"),
            Self::Dns(name) => write!(out, "dns:{name}"),
            Self::Uri(name) => write!(out, "uri:{name}"),
            Self::CommonName(name) => write!(out, "cn:{name}"),
            Self::Subject(name) => write!(out, "subject:{name}"),
        }
    }
}

/// `[admin]`: the listener for health and metrics.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The address of `/livez`, `/readyz` and `/metrics`.
    pub listen: SocketAddr,
}

/// `[kafka]`. Its `Debug` shows no secret.
#[derive(Clone)]
pub struct Kafka {
    /// The brokers to start from, each `host:port`.
    pub brokers: Vec<String>,
    /// Whether the bridge creates missing topics.
    pub create_topics: bool,
    /// `[kafka.topics]`.
    pub topics: NewTopics,
    /// `[kafka.client]`: librdkafka properties by name, in addition to those that Causeway sets. Secrets are already
    /// read from their files.
    pub client: BTreeMap<String, String>,
    /// The properties whose value was read from a file, with that file.
    pub client_files: BTreeMap<String, PathBuf>,
    /// Where tokens come from, if `sasl.mechanism` is OAUTHBEARER.
    pub oauth: Option<OAuth>,
}

impl Kafka {
    /// The producers' `message.max.bytes`, in bytes: librdkafka's default unless configured.
    pub fn message_bytes_max(&self) -> i64 {
        let given = self.client.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        given.unwrap_or(MESSAGE_BYTES_MAX_DEFAULT)
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): (&String, &String)| {
            let value = if client::is_secret(name) { "(hidden)" } else { value };
            (name.clone(), value.to_owned())
        };
        let client: BTreeMap<String, String> = self.client.iter().map(shown).collect();
        out.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("create_topics", &self.create_topics)
            .field("topics", &self.topics)
            .field("client", &client)
            .finish()
    }
}

/// `[kafka.topics]`: the shape of topics that the bridge creates. -1 is the broker's default.
#[derive(Debug, Clone)]
pub struct NewTopics {
    /// Partitions of a topic.
    pub partitions: i32,
    /// Replicas of a partition.
    pub replication: i32,
    /// How long a topic keeps its records, in milliseconds; here -1 is for ever.
    pub retention_ms: i64,
}

/// `[registry]`: a Confluent-compatible schema registry.
#[derive(Debug, Clone)]
pub struct Registry {
    /// The addresses of one registry, asked in turn.
    pub urls: Vec<String>,
    /// The user for basic authentication.
    pub user: Option<String>,
    /// That user's password.
    pub password: Option<Secret>,
    /// A bearer token. If it comes from a file, this is the file's content at the start.
    pub token: Option<Secret>,
    /// The file that holds the bearer token, read again for each request.
    pub token_file: Option<PathBuf>,
    /// The CA of the registry's certificate, if that is not a public one.
    pub ca: Option<PathBuf>,
    /// Our certificate for the registry and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether the bridge registers schemas that the registry does not have.
    pub auto_register: bool,
}

/// `[dedupe]`: the dedupe window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedupe {
    /// The most memory for recently committed events, in bytes.
    pub bytes_max: usize,
    /// Whether the window is filled from the topics at the start.
    pub warm: bool,
}

/// `[dead_letter]`: where a body goes that cannot be read as an event, or whose record its topic refuses for good.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The topic of the dead letters.
    pub topic: String,
}

/// A string that its `Debug` hides, so that no log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}

/// The time budget: all times that follow from how ASAPP's side is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// T: the time that ASAPP waits for a 200.
    pub timeout: Duration,
    /// D = T - max(250 ms, T/10): the time by which a held request is answered 503.
    pub answer_by: Duration,
    /// The time by which a body must be complete: D, at most 10 s.
    pub body_by: Duration,
    /// librdkafka's `socket.timeout.ms`: D, between 1 s and 10 s.
    pub socket_timeout: Duration,
    /// librdkafka's `message.timeout.ms`: (retries + 1) x T + `retry_pause_max`, so all attempts and one pause.
    pub message_timeout: Duration,
}

impl Budget {
    /// A stopping bridge waits D and this much longer by default.
    pub(crate) const DRAIN_BEYOND_ANSWER: Duration = Duration::from_secs(5);

    /// Held requests are cut off this long before the drain ends: time for their answers and the last commits.
    pub(crate) const CUT_OFF_BEFORE_DRAIN_END: Duration = Duration::from_millis(500);
}

impl Sender {
    /// Derives the time budget.
    pub fn budget(&self) -> Budget {
        let timeout = self.timeout;
        let answer_by = timeout.saturating_sub(Duration::from_millis(250).max(timeout / 10));
        Budget {
            timeout,
            answer_by,
            body_by: answer_by.min(Duration::from_secs(10)),
            socket_timeout: answer_by.clamp(Duration::from_secs(1), Duration::from_secs(10)),
            message_timeout: timeout * (self.retries + 1) + self.retry_pause_max,
        }
    }
}
