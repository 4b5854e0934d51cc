//! librdkafka's own mock broker, for `causeway dev`: it answers real clients over TCP, and stores nothing on disk.
//!
//! It does not deduplicate, has no in-sync replicas and forgets older records, so it is no proof of the promise.

use rdkafka::{error::KafkaError, mocking::MockCluster, producer::DefaultProducerContext};

/// A running embedded broker; its drop ends it.
pub struct EmbeddedBroker(MockCluster<'static, DefaultProducerContext>);

impl EmbeddedBroker {
    /// Starts one broker on a free port of the loopback interface.
    ///
    /// # Errors
    /// librdkafka cannot listen.
    pub fn start() -> Result<Self, KafkaError> {
        MockCluster::new(1).map(Self)
    }

    /// The broker's `host:port`.
    pub fn brokers(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// Creates a topic by a call in the process: the embedded broker does not know the request that clients send.
    ///
    /// # Errors
    /// The topic exists already.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), KafkaError> {
        self.0.create_topic(topic, partitions, 1)
    }
}
