//! librdkafka's properties: the ones that the promise needs, and those of the configuration.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    config::RDKafkaLogLevel,
    error::KafkaResult,
    producer::{BaseProducer, Producer as _, ProducerContext},
};

use super::{
    patience::be_patient,
    token::{NoToken, Token},
    tokens::Tokens,
};
use crate::{
    config::{Budget, Config, is_for_tokens},
    files::certificates,
};

/// librdkafka replaces a connection that was idle for this long, in milliseconds. Some NATs and firewalls silently
/// forget one after 30 s. Requests on a forgotten connection go nowhere, and nobody misses them before D is nearly
/// over. The system's own keep-alives begin after two hours, and librdkafka cannot change that.
const IDLE_MS_MAX: &str = "20000";

/// A cluster, and the way to reach it. It is not `Debug`, as its properties hold secrets.
#[derive(Clone)]
pub struct Connection {
    brokers: String,
    properties: BTreeMap<String, String>,
    /// The secrets from files, as last read.
    secrets: Arc<Mutex<BTreeMap<String, String>>>,
    secret_files: BTreeMap<String, PathBuf>,
    /// The source of tokens for SASL/OAUTHBEARER.
    tokens: Option<Arc<Tokens>>,
    budget: Budget,
    queue_bytes_max: usize,
}

impl Connection {
    /// The cluster of the configuration. Secrets in files are read later, by [`Self::read_secrets`].
    pub fn new(config: &Config) -> Self {
        let protocol = config.kafka.client.get("security.protocol").map_or("", String::as_str);
        Self {
            brokers: config.kafka.brokers.iter().map(|broker| named(broker, protocol)).collect::<Vec<_>>().join(","),
            properties: librdkafkas(&config.kafka.client),
            secrets: Arc::default(),
            secret_files: librdkafkas(&config.kafka.client_files),
            tokens: config.kafka.oauth.clone().map(|oauth| Arc::new(Tokens::new(oauth))),
            budget: config.sender.budget(),
            queue_bytes_max: config.ingress.queue_bytes_max,
        }
    }

    /// The bootstrap servers: `host:port`, comma-separated.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    pub(super) fn tokens(&self) -> Option<Arc<Tokens>> {
        self.tokens.clone()
    }

    /// The token of this connection's clients; `None` where they need none. Blocks for as long as the token server
    /// takes.
    pub fn token(&self) -> Option<Result<Arc<Token>, NoToken>> {
        self.tokens.as_ref().map(|tokens| tokens.current())
    }

    /// This connection to one broker alone, under the address that it has here.
    pub(super) fn at(&self, address: &str) -> Self {
        let mut at = Self { brokers: address.to_owned(), ..self.clone() };
        // The other mode calls bootstrap brokers by their canonical names, which may differ from their names as
        // leaders.
        at.properties.insert("client.dns.lookup".to_owned(), "use_all_dns_ips".to_owned());
        at
    }

    /// This connection without a password, and without a check of the name in the broker's certificate.
    pub(super) fn nameless(&self) -> Self {
        let mut nameless = Self { tokens: None, ..self.clone() };
        for (name, value) in [("security.protocol", "ssl"), ("ssl.endpoint.identification.algorithm", "none")] {
            nameless.properties.insert(name.to_owned(), value.to_owned());
        }
        nameless
    }

    /// D: the time by which the bridge answers.
    pub(super) fn answer_by(&self) -> Duration {
        self.budget.answer_by
    }

    /// The longest time that one request to a broker may take.
    pub fn request_timeout(&self) -> Duration {
        self.budget.socket_timeout
    }

    /// The files whose contents every new client uses.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let named = self.properties.iter().filter(|(name, _)| name.ends_with(".location")).map(|(_, file)| file.into());
        let files = self.secret_files.values().cloned().chain(named);
        let is_watched = |path: &PathBuf| path.is_file() || self.ca_folder().is_some_and(|folder| folder == path);
        files.filter(is_watched).collect()
    }

    /// The folder of CAs; `None` where its files have the names that OpenSSL finds by itself, a hash and a number.
    fn ca_folder(&self) -> Option<&Path> {
        let folder = self.properties.get("ssl.ca.location").map(Path::new).filter(|path| path.is_dir())?;
        let is_hash = |name: &str| name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_hashed = |name: &str| {
            name.split_once('.').is_some_and(|(hash, number)| is_hash(hash) && number.parse::<u32>().is_ok())
        };
        let mut names = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name());
        (!names.any(|name| name.to_str().is_some_and(is_hashed))).then_some(folder)
    }

    /// Reads the secrets in files again. A secret keeps its old value where its file is empty or cannot be read.
    pub fn read_secrets(&self) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, file) in &self.secret_files {
            match std::fs::read_to_string(file) {
                Ok(text) if !text.trim().is_empty() => drop(secrets.insert(name.clone(), text.trim().to_owned())),
                _ => tracing::warn!(property = name, "the file of a secret is empty or cannot be read"),
            }
        }
    }

    /// The properties of every client: our defaults, the configured ones over them, and those that the promise needs on
    /// top.
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("client.id", "causeway");
        // KIP-714: brokers may ask clients for their metrics. Few do, and keeping them takes 300 KB a producer.
        client.set("enable.metrics.push", "false");
        client.set("connections.max.idle.ms", IDLE_MS_MAX);
        client.extend(self.properties.clone());
        client.extend(self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone());
        if let Some(pem) = self.ca_folder().and_then(certificates) {
            client.remove("ssl.ca.location");
            let given = client.get("ssl.ca.pem").unwrap_or_default();
            let all = format!("{given}\n{}", String::from_utf8_lossy(&pem));
            client.set("ssl.ca.pem", all);
        }
        client.set("bootstrap.servers", &self.brokers);
        client.set("socket.timeout.ms", millis(self.budget.socket_timeout));
        // A survey must not create a topic.
        client.set("allow.auto.create.topics", "false");
        // An outage must not outlast its cause by much: within 15 s of healing every answer is 200 again.
        client.set("reconnect.backoff.ms", "50");
        client.set("reconnect.backoff.max.ms", "1000");
        client.set("retry.backoff.ms", "100");
        client.set("retry.backoff.max.ms", "500");
        client.set_log_level(RDKafkaLogLevel::Warning);
        client
    }

    /// The properties of a producer that keeps the promise; `alone` puts each record into a batch of its own.
    pub(super) fn producer(&self, alone: bool) -> ClientConfig {
        let mut client = self.client();
        if !self.properties.contains_key("compression.type") && !self.properties.contains_key("compression.codec") {
            client.set("compression.type", "lz4");
        }
        if !self.properties.contains_key("linger.ms") && !self.properties.contains_key("queue.buffering.max.ms") {
            // The gates hand records over together (`pace.rs`), so librdkafka need not wait for more.
            client.set("linger.ms", "0");
        }
        if alone {
            client.set("batch.num.messages", "1");
        }
        client.set("acks", "all");
        client.set("enable.idempotence", "true");
        // While one request is under way the next batches gather: few large requests cost less than many small ones.
        client.set("max.in.flight.requests.per.connection", "1");
        client.set("partitioner", "murmur2_random");
        client.set("message.timeout.ms", millis(self.budget.message_timeout));
        client.set("request.timeout.ms", millis(self.budget.socket_timeout));
        client.set("delivery.report.only.error", "false");
        // Our own limits refuse before librdkafka's do.
        client.set("queue.buffering.max.messages", "0");
        client.set("queue.buffering.max.kbytes", (self.queue_bytes_max.div_ceil(512)).max(1024).to_string());
        client.set("topic.metadata.refresh.interval.ms", "10000");
        client.set("topic.metadata.propagation.max.ms", "5000");
        client.set("enable.sparse.connections", "false");
        client.set("statistics.interval.ms", "5000");
        #[cfg(feature = "sabotage")]
        super::sabotage::producer(&mut client);
        client
    }
}

/// Makes a producer whose threads are patient: librdkafka's threads inherit the scheduling policy of their creator. The
/// producer gets the latest token; without one it waits for the thread of `hand_round.rs`.
pub(super) fn create_patient<C: ProducerContext>(
    connection: &Connection,
    config: &ClientConfig,
    context: C,
) -> KafkaResult<BaseProducer<C>> {
    let make = || {
        be_patient();
        config.create_with_context(context)
    };
    let made = std::thread::scope(|scope| scope.spawn(make).join());
    let producer: BaseProducer<C> = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    if let Some((tokens, token)) = connection.tokens.as_ref().and_then(|tokens| Some((tokens, tokens.latest()?)))
        && let Err(error) = tokens.give(producer.client(), &token)
    {
        tracing::warn!(%error, "a producer has no token yet");
    }
    Ok(producer)
}

/// The properties for librdkafka, without those for our own token requests.
fn librdkafkas<T: Clone>(properties: &BTreeMap<String, T>) -> BTreeMap<String, T> {
    let theirs = properties.iter().filter(|(name, _)| !is_for_tokens(name));
    theirs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A broker's name as in its certificate: in TLS no name ends in a dot (RFC 6066, section 3), but librdkafka would send
/// one.
fn named(broker: &str, protocol: &str) -> String {
    let (protocol, _) = broker.split_once("://").unwrap_or((protocol, ""));
    let (host, port) = match broker.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, format!(":{port}")),
        _ => (broker, String::new()),
    };
    match host.strip_suffix('.') {
        Some(name) if protocol.to_ascii_lowercase().ends_with("ssl") => format!("{name}{port}"),
        _ => broker.to_owned(),
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn under_tls_no_name_ends_in_a_dot() {
        for (broker, protocol, expected) in [
            ("kafka.example.:9093", "ssl", "kafka.example:9093"),
            ("kafka.example.:9093", "SASL_SSL", "kafka.example:9093"),
            ("kafka.example.", "sasl_ssl", "kafka.example"),
            ("ssl://kafka.example.:9093", "", "ssl://kafka.example:9093"),
            ("ssl://kafka.example.", "", "ssl://kafka.example"),
            ("kafka.example.:9092", "", "kafka.example.:9092"),
            ("plaintext://kafka.example.:9092", "ssl", "plaintext://kafka.example.:9092"),
            ("[::1]:9093", "ssl", "[::1]:9093"),
            ("kafka", "ssl", "kafka"),
        ] {
            assert_eq!(named(broker, protocol), expected, "{broker} {protocol}");
        }
    }

    #[test]
    fn what_is_configured_goes_before_our_defaults_and_behind_the_promise() {
        let producer = |more: &str| {
            let text = format!("[ingress.tls]\nclient_names = ['*']\n[kafka]\nbrokers = ['localhost:9092']\n{more}");
            let made = Connection::new(&config::from_toml(&text).unwrap()).producer(false);
            ["enable.metrics.push", "compression.type", "linger.ms", "connections.max.idle.ms", "acks"]
                .map(|name| made.get(name).unwrap().to_owned())
        };
        assert_eq!(producer(""), ["false", "lz4", "0", "20000", "all"]);
        let set = "[kafka.client]\n'enable.metrics.push' = true\n'compression.type' = 'zstd'\n'linger.ms' = 2\n\
                   'connections.max.idle.ms' = 0\n";
        assert_eq!(producer(set), ["true", "zstd", "2", "0", "all"]);
    }
}
