//! Topics: what they are, what they should be, and making them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    metadata::{Metadata, MetadataBroker, MetadataPartition},
    producer::{DeliveryResult, ProducerContext},
};

use super::{
    Connection,
    reach::Asker,
    token::{Keeper, NoToken},
};
use crate::config;

/// A topic as the cluster has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub partitions: usize,
    /// The smallest number of replicas that any partition has.
    pub replication: usize,
    /// The smallest number of in-sync replicas that any partition has now.
    pub in_sync: usize,
    /// Partitions without a leader.
    pub leaderless: usize,
    /// The ids of the brokers that lead the others.
    pub leaders: BTreeSet<i32>,
    /// Its configuration, defaults included; `None` where the broker cannot tell (no DescribeConfigs right, or the embedded broker).
    pub settings: Option<BTreeMap<String, String>>,
}

impl Topic {
    /// What would lose acked events, or stop new ones: whether it is so, `None` where that cannot be read.
    pub fn faults(&self) -> [(&'static str, Option<bool>); 6] {
        let is = |setting: &str, word: &str| Some(self.settings.as_ref()?.get(setting)?.contains(word));
        let replicas = i64::try_from(self.replication).unwrap_or(i64::MAX);
        // One broker alone may hold an acked event, or one broker down stops all writes.
        let in_sync_min = |min: i64| min < 2 && replicas > 2 || min >= replicas.max(2);
        [
            ("leader", Some(self.leaderless > 0)),
            ("replication", Some(self.replication < 3)),
            ("in_sync", Some(self.in_sync < self.replication)),
            ("min.insync.replicas", self.number("min.insync.replicas").map(in_sync_min)),
            ("unclean.leader.election.enable", is("unclean.leader.election.enable", "true")),
            ("cleanup.policy", is("cleanup.policy", "compact")),
        ]
    }

    /// One of the topic's settings as a number.
    pub fn number(&self, setting: &str) -> Option<i64> {
        self.settings.as_ref()?.get(setting)?.parse().ok()
    }
}

/// A broker as the cluster tells its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    /// What it advertises: `host:port`, an IPv6 address in brackets.
    pub address: String,
}

impl Broker {
    fn of(told: &MetadataBroker) -> Self {
        let host = told.host();
        let address = match host.contains(':') {
            true => format!("[{host}]:{}", told.port()),
            false => format!("{host}:{}", told.port()),
        };
        Self { id: told.id(), address }
    }
}

/// What the cluster says of the topics that were asked for.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    pub brokers: Vec<Broker>,
    pub found: Vec<Topic>,
    /// Not there, with the broker's word for it.
    pub missing: Vec<(String, String)>,
}

impl Survey {
    /// Takes up what was answered about the topic of this name.
    pub(super) fn add(&mut self, name: &str, metadata: &Metadata) {
        self.brokers = metadata.brokers().iter().map(Broker::of).collect();
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            self.missing.push((name.to_owned(), "not in the broker's answer".to_owned()));
            return;
        };
        if let Some(error) = topic.error() {
            let code = RDKafkaErrorCode::from(error);
            self.missing.push((name.to_owned(), format!("{code:?}")));
            return;
        }
        let partitions = topic.partitions();
        self.found.push(Topic {
            name: name.to_owned(),
            partitions: partitions.len(),
            replication: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
            in_sync: partitions.iter().map(|partition| partition.isr().len()).min().unwrap_or(0),
            leaderless: partitions.iter().filter(|partition| partition.leader() < 0).count(),
            leaders: partitions.iter().map(MetadataPartition::leader).filter(|leader| *leader >= 0).collect(),
            settings: None,
        });
    }

    /// What the brokers advertise.
    pub fn addresses(&self) -> Vec<&str> {
        self.brokers.iter().map(|broker| broker.address.as_str()).collect()
    }
}

/// A broker's own default of `max.message.bytes`.
const BROKER_MESSAGE_BYTES_MAX: i64 = 1_048_588;

/// Asks and changes topics. Every call blocks for at most the connection's request timeout.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    asker: Asker,
    token: Keeper,
    timeout: Duration,
}

/// Logs, and keeps, why the cluster could not be reached: no reason twice in a row.
pub(super) struct Said {
    pub(super) said: Arc<Mutex<Option<String>>>,
    pub(super) quiet: bool,
}

impl ClientContext for Said {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        if !self.quiet {
            super::reports::log("admin", level, fac, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down follows from what was said before of each, and comes again with every attempt to
        // connect: forty times a second, each time twice (rdkafka 0.39).
        let follows = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if said.as_deref().is_some_and(|said| follows || cause(said) == cause(reason)) {
            return;
        }
        if !self.quiet {
            tracing::warn!(client = "admin", %error, reason, "Kafka client error");
        }
        *said = Some(reason.to_owned());
    }
}

/// A reason without how long it took, and how often it was left unsaid.
fn cause(reason: &str) -> &str {
    reason.split_once(" (after ").map_or(reason, |(cause, _)| cause)
}

impl ProducerContext for Said {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// No broker answered; with librdkafka's word for the reason, if it had one.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error(transparent)]
    Token(#[from] NoToken),
    #[error("{}", .said.clone().unwrap_or_else(|| .error.to_string()))]
    Cluster { error: KafkaError, said: Option<String> },
}

impl NoAnswer {
    pub(super) fn new(error: KafkaError, said: &Mutex<Option<String>>) -> Self {
        Self::Cluster { error, said: said.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }
}

impl Admin {
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(connection: &Connection) -> Result<Self, KafkaError> {
        Self::make(connection, false)
    }

    /// One that logs nothing: whoever asks again and again tells by itself.
    ///
    /// # Errors
    /// As above.
    pub fn quiet(connection: &Connection) -> Result<Self, KafkaError> {
        Self::make(connection, true)
    }

    fn make(connection: &Connection, quiet: bool) -> Result<Self, KafkaError> {
        let asker = if quiet { Asker::quiet(connection) } else { Asker::new(connection) }?;
        Ok(Self {
            client: connection.client().create()?,
            asker,
            token: Keeper::new(connection),
            timeout: connection.request_timeout(),
        })
    }

    /// Looks at `topics`.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn survey(&self, topics: &[String]) -> Result<Survey, NoAnswer> {
        self.asker.survey(topics.iter().map(String::as_str))
    }

    /// Fills in the settings of the topics found, where the broker tells them.
    pub async fn describe(&self, survey: &mut Survey) {
        let names: Vec<String> = survey.found.iter().map(|topic| topic.name.clone()).collect();
        let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        if resources.is_empty() {
            return;
        }
        if let Err(error) = self.token.keep(self.client.inner()) {
            tracing::debug!(%error, "topic settings could not be read");
            return;
        }
        let described = match self.client.describe_configs(&resources, &self.options()).await {
            Ok(described) => described,
            Err(error) => {
                tracing::debug!(%error, "topic settings could not be read");
                return;
            }
        };
        for (topic, resource) in survey.found.iter_mut().zip(described) {
            if let Ok(resource) = resource {
                let settings = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
                topic.settings = Some(settings.collect());
            }
        }
    }

    /// Creates `topics` in the configured shape, with what the promise needs spelled out. One that is there already is no error.
    ///
    /// # Errors
    /// The first topic that could not be created, with the broker's reason.
    pub async fn create(&self, topics: &[String], kafka: &config::Kafka) -> Result<(), CreateError> {
        let shape = &kafka.topics;
        let (retention, bytes_max) =
            (shape.retention_ms.to_string(), kafka.message_bytes_max().max(BROKER_MESSAGE_BYTES_MAX).to_string());
        let new: Vec<_> = topics
            .iter()
            .map(|name| {
                let topic = NewTopic::new(name, shape.partitions, TopicReplication::Fixed(shape.replication))
                    .set("retention.ms", &retention)
                    .set("max.message.bytes", &bytes_max)
                    .set("cleanup.policy", "delete")
                    .set("unclean.leader.election.enable", "false");
                match shape.replication {
                    // Two of three in sync: an acked record outlives the loss of a broker.
                    3.. => topic.set("min.insync.replicas", "2"),
                    // The broker's default may be more than there are.
                    1 | 2 => topic.set("min.insync.replicas", "1"),
                    _ => topic,
                }
            })
            .collect();
        self.token.keep(self.client.inner())?;
        for created in self.client.create_topics(&new, &self.options()).await? {
            match created {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(CreateError::Refused { topic, code }),
            }
        }
        Ok(())
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout))
    }
}

/// Why topics could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    Token(#[from] NoToken),
    #[error("the cluster could not be asked to create topics")]
    Cluster(#[from] KafkaError),
    #[error("topic {topic} could not be created: {code:?}")]
    Refused { topic: String, code: RDKafkaErrorCode },
}
