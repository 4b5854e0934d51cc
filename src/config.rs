//! Strings -> typed limits: one TOML file, the environment and flags become a [`Config`], or every error at once.
//!
//! `source` makes one flat map of the three, `settings` reads it key by key, `load` puts the [`Config`]
//! together (with `feeds` and `client`), and `relations` compares the limits with each other.
//! [`KEYS`] lists every key once: name, what it takes, default, description. `reference` prints them.

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

/// What a record may need in bytes beyond its body: key, headers, Kafka's framing.
pub const RECORD_OVERHEAD_BYTES_MAX: usize = 16_384;

/// librdkafka's `message.max.bytes` where `kafka.client` does not set it.
pub const MESSAGE_BYTES_MAX_DEFAULT: i64 = 1_000_000;

/// Everything the bridge was told, checked: limits do not contradict each other.
#[derive(Debug, Clone)]
pub struct Config {
    pub sender: Sender,
    pub ingress: Ingress,
    pub admin: Admin,
    pub kafka: Kafka,
    pub registry: Option<Registry>,
    pub dedupe: Dedupe,
    pub dead_letter: DeadLetter,
    /// Built-in feeds (overridden) first, then those that the configuration adds.
    pub feeds: Vec<Feed>,
}

impl Config {
    /// Every topic that the bridge writes to: the feeds' in their order, the dead letters' last, each once.
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

    /// HTTP/2: streams for all connections together: as many as the feeds may hold, but the first connection has 100 in any case.
    pub fn streams_max(&self) -> usize {
        self.ingress.in_flight_max.saturating_mul(self.feeds.len() + 1).max(STREAMS_MIN)
    }
}

/// Clients begin with 100 streams before they have read how many they may have (RFC 9113, section 6.5.2, recommends no fewer), and a
/// connection takes a quarter of what is free.
const STREAMS_MIN: usize = 400;

/// `[sender]`: what ASAPP was told.
#[derive(Debug, Clone)]
pub struct Sender {
    /// T: how long ASAPP waits for a 200.
    pub timeout: Duration,
    pub retries: u32,
    /// ASAPP does not say how long it waits between retries; this is what we allow for.
    pub retry_pause_max: Duration,
}

/// `[ingress]`: the endpoint and its limits.
#[derive(Debug, Clone)]
pub struct Ingress {
    pub listen: SocketAddr,
    /// Held requests, per feed.
    pub in_flight_max: usize,
    /// Bytes of records not yet committed, those past their 503 included.
    pub queue_bytes_max: usize,
    pub body_bytes_max: usize,
    pub connections_max: usize,
    /// Of a connection, without a request.
    pub idle_max: Duration,
    /// Of a connection, whatever it does.
    pub age_max: Duration,
    /// From a head's first byte to its last.
    pub head_max: Duration,
    pub depth_max: usize,
    pub drain_max: Duration,
    pub tls: Tls,
}

/// `[ingress.tls]`.
#[derive(Debug, Clone)]
pub struct Tls {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    pub client_ca: PathBuf,
    pub crl: Option<PathBuf>,
    pub client_names: Vec<ClientName>,
    /// Also speak TLS 1.2 (`min_version = "1.2"`).
    pub tls_1_2: bool,
}

/// One entry of the allow-list of sender names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientName {
    /// `*`: any certificate that the client CA signed.
    Any,
    /// `dns:` a DNS subject alternative name.
    Dns(String),
    /// `uri:` a URI subject alternative name (SPIFFE).
    Uri(String),
    /// `cn:` the subject's common name.
    CommonName(String),
    /// `subject:` the whole subject as RFC 4514 writes it.
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
        // A space at the end may be one that a backslash keeps.
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

/// As the configuration writes it.
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

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct Admin {
    pub listen: SocketAddr,
}

/// `[kafka]`. Its `Debug` shows no secret.
#[derive(Clone)]
pub struct Kafka {
    pub brokers: Vec<String>,
    pub create_topics: bool,
    pub topics: NewTopics,
    /// librdkafka properties beyond ours, by their names; secrets resolved from their files.
    pub client: BTreeMap<String, String>,
    /// Those whose value is the content of a file.
    pub client_files: BTreeMap<String, PathBuf>,
    /// How tokens are had, where `sasl.mechanism` is OAUTHBEARER.
    pub oauth: Option<OAuth>,
}

impl Kafka {
    /// `message.max.bytes` of the producers: librdkafka's default unless configured.
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

/// `[kafka.topics]`: the shape of topics that we create.
#[derive(Debug, Clone)]
pub struct NewTopics {
    pub partitions: i32,
    pub replication: i32,
    pub retention_ms: i64,
}

/// `[registry]`: a Confluent-compatible schema registry.
#[derive(Debug, Clone)]
pub struct Registry {
    /// The addresses of one registry, asked in turn.
    pub urls: Vec<String>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// A bearer token; of one in a file what it held at the start.
    pub token: Option<Secret>,
    pub token_file: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    pub auto_register: bool,
}

/// `[dedupe]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedupe {
    /// Memory for the events that were committed of late.
    pub bytes_max: usize,
    /// Fill it at the start from the topics.
    pub warm: bool,
}

/// `[dead_letter]`.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub topic: String,
}

/// A string that no log and no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}

/// The times that follow from what ASAPP was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// T: when ASAPP gives up.
    pub timeout: Duration,
    /// D = T - max(250 ms, T/10): when a held request is answered 503.
    pub answer_by: Duration,
    /// How long a body may take: D, at most 10 s.
    pub body_by: Duration,
    /// `socket.timeout.ms`: D, between 1 s and 10 s.
    pub socket_timeout: Duration,
    /// `message.timeout.ms`: (retries + 1) x T + `retry_pause_ms_max`: the sender's attempts, and one of its pauses.
    pub message_timeout: Duration,
}

impl Budget {
    /// How much longer than D a stopping bridge waits by default for what it holds.
    pub(crate) const DRAIN_BEYOND_ANSWER: Duration = Duration::from_secs(5);

    /// What is left of the drain when held requests are cut off, for their answers and the last commits.
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
