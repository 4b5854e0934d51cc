//! Topics: their present state, their proper state, and their creation.

use std::time::Duration;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{Connection, asker::Asker, keeper::Keeper, survey::is_unauthorized, token::NoToken};
pub use super::{
    asker::NoAnswer,
    survey::{Broker, Missing, Survey, Topic},
};
use crate::config;

/// A broker's own default of `max.message.bytes`.
const BROKER_MESSAGE_BYTES_MAX: i64 = 1_048_588;

/// Surveys and creates topics. Every call blocks for at most the connection's request timeout.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    asker: Asker,
    token: Keeper,
    timeout: Duration,
}

impl Admin {
    /// Connects with logging.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn new(connection: &Connection) -> Result<Self, KafkaError> {
        Self::make(connection, false)
    }

    /// Connects without logging: a caller that asks again and again reports by itself.
    ///
    /// # Errors
    /// As for [`Self::new`].
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

    /// Surveys `topics`.
    ///
    /// # Errors
    /// [`NoAnswer`]: no broker answered, or there is no token.
    pub fn survey(&self, topics: &[String]) -> Result<Survey, NoAnswer> {
        self.asker.survey(topics.iter().map(String::as_str))
    }

    /// Adds the settings of the topics found, where the broker tells them.
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

    /// Creates `topics` in the configured shape, with every setting that the promise needs. A topic that exists is no
    /// error.
    ///
    /// # Errors
    /// [`CreateError`]: there is no token, the cluster did not answer, or it refused a topic (the first one is named).
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
                    // The broker's default may be more than there are replicas.
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
    /// There is no token for the request.
    #[error(transparent)]
    Token(#[from] NoToken),
    /// The cluster did not answer the request.
    #[error("the cluster could not be asked to create topics")]
    Cluster(#[from] KafkaError),
    /// The broker refused this topic for this reason.
    #[error("topic {topic} could not be created: {code:?}")]
    Refused { topic: String, code: RDKafkaErrorCode },
}

impl CreateError {
    /// Whether the cluster has fewer brokers than a partition should have replicas.
    pub fn is_replication(&self) -> bool {
        matches!(self, Self::Refused { code: RDKafkaErrorCode::InvalidReplicationFactor, .. })
    }

    /// Whether this user may not create topics.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if is_unauthorized(*code))
    }
}
