//! librdkafka's own broker, for `causeway dev`: it answers real clients over TCP, and keeps nothing.
//!
//! It does not deduplicate, has no in-sync replicas and forgets older records: no proof of the promise.

use rdkafka::{error::KafkaError, mocking::MockCluster, producer::DefaultProducerContext};

/// A running embedded broker; it ends when dropped.
pub struct EmbeddedBroker(MockCluster<'static, DefaultProducerContext>);

impl EmbeddedBroker {
    /// Starts one broker on a free port of the loopback interface.
    ///
    /// # Errors
    /// When librdkafka cannot listen.
    pub fn start() -> Result<Self, KafkaError> {
        MockCluster::new(1).map(Self)
    }

    /// `host:port` of the broker.
    pub fn brokers(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// Creates a topic: the embedded broker does not know the request that other clients would send.
    ///
    /// # Errors
    /// When the topic is there already.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), KafkaError> {
        self.0.create_topic(topic, partitions, 1)
    }
}
