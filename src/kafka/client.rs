//! librdkafka's properties: what the promise needs, spelled out, and what the configuration adds.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::KafkaResult,
};

use super::patience::be_patient;
use crate::{
    config::{Budget, Config},
    sabotage::Sabotage,
};

/// Which cluster, and how to reach it. Not `Debug`: its properties hold secrets.
#[derive(Clone)]
pub struct Connection {
    brokers: String,
    properties: BTreeMap<String, String>,
    /// The values that stand in files, as last read.
    secrets: Arc<Mutex<BTreeMap<String, String>>>,
    secret_files: BTreeMap<String, PathBuf>,
    budget: Budget,
    queue_bytes_max: usize,
}

impl Connection {
    pub fn new(config: &Config) -> Self {
        Self {
            brokers: config.kafka.brokers.join(","),
            properties: config.kafka.client.clone(),
            secrets: Arc::default(),
            secret_files: config.kafka.client_files.clone(),
            budget: config.sender.budget(),
            queue_bytes_max: config.ingress.queue_bytes_max,
        }
    }

    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// D.
    pub(super) fn answer_by(&self) -> Duration {
        self.budget.answer_by
    }

    /// How long one request to a broker may take.
    pub fn request_timeout(&self) -> Duration {
        self.budget.socket_timeout
    }

    /// The files whose contents every new client uses.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let named = self.properties.iter().filter(|(name, _)| name.ends_with(".location")).map(|(_, file)| file.into());
        let files = self.secret_files.values().cloned().chain(named);
        files.filter(|file: &PathBuf| file.is_file()).collect()
    }

    /// Reads the secrets that stand in files again. One that cannot be read, or is empty, stays as it was.
    pub fn read_secrets(&self) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, file) in &self.secret_files {
            match std::fs::read_to_string(file) {
                Ok(text) if !text.trim().is_empty() => drop(secrets.insert(name.clone(), text.trim().to_owned())),
                _ => tracing::warn!(property = name, "the file of a secret is empty or cannot be read"),
            }
        }
    }

    /// What every client of ours has: the configured properties below, ours on top.
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("client.id", "causeway");
        // KIP-714: brokers may ask clients for their metrics. Few do, and keeping them takes 300 KB a producer.
        client.set("enable.metrics.push", "false");
        client.extend(self.properties.clone());
        client.extend(self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone());
        client.set("bootstrap.servers", &self.brokers);
        client.set("socket.timeout.ms", millis(self.budget.socket_timeout));
        // To look at a topic must not make it.
        client.set("allow.auto.create.topics", "false");
        // An outage must not outlast its cause by much: all is 200 again within 15 s of healing.
        client.set("reconnect.backoff.ms", "50");
        client.set("reconnect.backoff.max.ms", "1000");
        client.set("retry.backoff.ms", "100");
        client.set("retry.backoff.max.ms", "500");
        client.set_log_level(RDKafkaLogLevel::Warning);
        client
    }

    /// A producer that keeps the promise; `alone` puts each record into a batch of its own.
    pub(super) fn producer(&self, alone: bool) -> ClientConfig {
        let mut client = self.client();
        if !self.properties.contains_key("compression.type") && !self.properties.contains_key("compression.codec") {
            client.set("compression.type", "lz4");
        }
        if !self.properties.contains_key("linger.ms") && !self.properties.contains_key("queue.buffering.max.ms") {
            // What should go together is handed over together (`pace.rs`): librdkafka need not wait for more.
            client.set("linger.ms", "0");
        }
        if alone {
            client.set("batch.num.messages", "1");
        }
        client.set("acks", "all");
        client.set("enable.idempotence", "true");
        // While one request is under way the next batches gather: few large requests cost less than many small ones.
        client.set("max.in.flight.requests.per.connection", "1");
        let partitioner = if Sabotage::KeyHashedAnotherWay.is_on() { "consistent_random" } else { "murmur2_random" };
        client.set("partitioner", partitioner);
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
        client
    }
}

/// Makes a client whose threads are patient: librdkafka's take the scheduling policy of the thread that makes them.
pub(super) fn create_patient<C, T>(config: &ClientConfig, context: C) -> KafkaResult<T>
where
    C: ClientContext + Send,
    T: FromClientConfigAndContext<C> + Send,
{
    let make = || {
        be_patient();
        config.create_with_context(context)
    };
    std::thread::scope(|scope| scope.spawn(make).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// What librdkafka has against a property, if anything.
pub fn property_fault(name: &str, value: &str) -> Option<String> {
    let mut client = ClientConfig::new();
    client.set(name, value);
    // The error's own text would repeat the value, which may be a secret.
    client.create_native_config().err().map(|error| match error {
        rdkafka::error::KafkaError::ClientConfig(rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => {
            "librdkafka does not know this property".to_owned()
        }
        _ => "librdkafka does not take this value for the property".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_is_configured_goes_before_our_defaults_and_behind_the_promise() {
        let producer = |more: &str| {
            let text = format!("[ingress.tls]\nclient_names = ['*']\n[kafka]\nbrokers = ['localhost:9092']\n{more}");
            let made = Connection::new(&config::from_toml(&text).unwrap()).producer(false);
            ["enable.metrics.push", "compression.type", "linger.ms", "acks"]
                .map(|name| made.get(name).unwrap().to_owned())
        };
        assert_eq!(producer(""), ["false", "lz4", "0", "all"]);
        let set = "[kafka.client]\n'enable.metrics.push' = true\n'compression.type' = 'zstd'\n'linger.ms' = 2\n";
        assert_eq!(producer(set), ["true", "zstd", "2", "all"]);
    }
}
