//! Topics of a [`Kafka`]: create, configure, read all of it. These calls block.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use super::kafka::Kafka;
use super::{HANG, wait_until};

/// A request to the cluster has an answer within this time, or fails the test.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    /// In their order; a header without a value has an empty one here.
    pub headers: Vec<(String, Vec<u8>)>,
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// The first header of this name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(std::str::from_utf8(value).expect("a header of ours is UTF-8"))
    }
}

impl Kafka {
    /// Creates the topic, with as many replicas as there are brokers but at most three, and waits for its leaders.
    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let replicas = i32::try_from(self.brokers().len().min(3)).unwrap();
        let topic = config
            .iter()
            .fold(NewTopic::new(name, partitions, TopicReplication::Fixed(replicas)), |topic, (key, value)| {
                topic.set(key, value)
            });
        let results = wait(self.admin.create_topics([&topic], &options())).unwrap();
        assert!(results.iter().all(Result::is_ok), "create {name}: {results:?}");
        wait_until("the new topic has its leaders", || {
            let leaders = self.leaders(name);
            leaders.len() == usize::try_from(partitions).unwrap() && leaders.iter().all(|leader| *leader >= 0)
        });
    }

    /// Creates the topic with one partition and one replica: on this broker, which leads it.
    pub fn create_topic_on(&self, name: &str, broker: i32) {
        let replicas: &[&[i32]] = &[&[broker]];
        let topic = NewTopic::new(name, 1, TopicReplication::Variable(replicas));
        let results = wait(self.admin.create_topics([&topic], &options())).unwrap();
        assert!(results.iter().all(Result::is_ok), "create {name}: {results:?}");
        wait_until("the new topic has its leader", || self.leaders(name) == [broker]);
    }

    /// Deletes the topic and waits until no broker that we ask knows it.
    pub fn delete_topic(&self, name: &str) {
        let results = wait(self.admin.delete_topics(&[name], &options())).unwrap();
        assert!(results.iter().all(Result::is_ok), "delete {name}: {results:?}");
        wait_until("the topic is gone", || self.leaders(name).is_empty());
    }

    /// Sets these and leaves what else was set on the topic.
    pub fn alter_topic_config(&self, name: &str, config: &[(&str, &str)]) {
        let mut wanted = self.topic_config_where(name, |source| *source == ConfigSource::DynamicTopic);
        wanted.extend(config.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        // librdkafka 2.12's AlterConfigs replaces them all.
        let alter = wanted
            .iter()
            .fold(AlterConfig::new(ResourceSpecifier::Topic(name)), |alter, (key, value)| alter.set(key, value));
        let results = wait(self.admin.alter_configs([&alter], &options())).unwrap();
        assert!(results.iter().all(Result::is_ok), "alter {name}: {results:?}");
        wait_until("the topic's configuration has changed", || {
            let now = self.topic_config(name);
            config.iter().all(|(key, value)| now.get(*key).is_some_and(|it| it == value))
        });
    }

    /// The topic's whole configuration, defaults included.
    pub fn topic_config(&self, name: &str) -> BTreeMap<String, String> {
        self.topic_config_where(name, |_| true)
    }

    fn topic_config_where(&self, name: &str, source: impl Fn(&ConfigSource) -> bool) -> BTreeMap<String, String> {
        let mut resources = wait(self.admin.describe_configs([&ResourceSpecifier::Topic(name)], &options())).unwrap();
        let entries = resources.remove(0).unwrap().entries.into_iter().filter(|entry| source(&entry.source));
        entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()
    }

    /// The broker id that leads the partition.
    pub fn leader(&self, topic: &str, partition: i32) -> i32 {
        self.leaders(topic)[usize::try_from(partition).unwrap()]
    }

    /// By partition; -1 where there is none at the moment, empty when there is no such topic.
    pub fn leaders(&self, topic: &str) -> Vec<i32> {
        let metadata = self.metadata(topic);
        let Some(topic) = metadata.topics().first().filter(|topic| topic.error().is_none()) else {
            return Vec::new();
        };
        let leaders: BTreeMap<i32, i32> = topic.partitions().iter().map(|it| (it.id(), it.leader())).collect();
        leaders.into_values().collect()
    }

    /// Asked more than once: the broker that is asked may be one that stands still.
    fn metadata(&self, topic: &str) -> Metadata {
        let started = Instant::now();
        loop {
            match self.admin.inner().fetch_metadata(Some(topic), Duration::from_secs(3)) {
                Ok(metadata) => return metadata,
                Err(error) => assert!(started.elapsed() < HANG, "metadata of {topic}: {error}"),
            }
        }
    }

    /// The least number of in-sync replicas that a partition of the topic has; `None` when there is no such topic.
    pub fn in_sync(&self, topic: &str) -> Option<usize> {
        let metadata = self.metadata(topic);
        let topic = metadata.topics().first().filter(|topic| topic.error().is_none())?;
        topic.partitions().iter().map(|it| it.isr().len()).min()
    }

    /// The topic has so many partitions from now on, and each has its leader.
    pub fn add_partitions(&self, name: &str, partitions: usize) {
        let more = NewPartitions::new(name, partitions);
        let results = wait(self.admin.create_partitions([&more], &options())).unwrap();
        assert!(results.iter().all(Result::is_ok), "partitions of {name}: {results:?}");
        wait_until("the new partitions have their leaders", || {
            let leaders = self.leaders(name);
            leaders.len() == partitions && leaders.iter().all(|leader| *leader >= 0)
        });
    }

    /// Deletes what stands before `offset` in the topic's first partition, as retention does.
    pub fn delete_records(&self, name: &str, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, 0, Offset::Offset(offset)).unwrap();
        let deleted = wait(self.admin.delete_records(&list, &options())).unwrap();
        assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    }

    /// Tells the cluster to delete these and does not wait for it.
    pub fn forget_topics(&self, names: &[&str]) {
        let results = wait(self.admin.delete_topics(names, &options())).unwrap();
        assert!(results.iter().all(Result::is_ok), "delete {names:?}: {results:?}");
    }

    /// By partition: the offset that the next record gets.
    pub fn end_offsets(&self, topic: &str) -> Vec<i64> {
        self.watermarks(topic).into_iter().map(|(_, high)| high).collect()
    }

    fn watermarks(&self, topic: &str) -> Vec<(i64, i64)> {
        let partitions = i32::try_from(self.leaders(topic).len()).unwrap();
        assert!(partitions > 0, "there is no topic {topic}");
        (0..partitions).map(|partition| self.watermark(topic, partition)).collect()
    }

    /// A partition that was just made may have no leader yet, another one than the client knows, or not be known to it at all.
    fn watermark(&self, topic: &str, partition: i32) -> (i64, i64) {
        let mut found = Ok((0, 0));
        wait_until("a partition's watermarks are told", || {
            found = self.admin.inner().fetch_watermarks(topic, partition, HANG);
            let code = found.as_ref().err().and_then(KafkaError::rdkafka_error_code);
            !matches!(code, Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::UnknownPartition))
        });
        found.expect("watermarks")
    }

    /// All records from the beginning to what is the end when the call begins, by partition and offset.
    pub fn read(&self, topic: &str) -> Vec<Record> {
        self.read_on(topic, &mut Vec::new())
    }

    /// The same from where the last call ended: `read_to` has an offset for each partition, none before the first call.
    pub fn read_on(&self, topic: &str, read_to: &mut Vec<i64>) -> Vec<Record> {
        let mut assignment = TopicPartitionList::new();
        // The partitions that are not read to their end yet, with the offset of it.
        let mut ends = HashMap::new();
        let watermarks = self.watermarks(topic);
        for (partition, (low, high)) in (0..).zip(&watermarks) {
            let from = read_to.get(partition as usize).map_or(*low, |read_to| *read_to.max(low));
            if from < *high {
                assignment.add_partition_offset(topic, partition, Offset::Offset(from)).unwrap();
                ends.insert(partition, *high);
            }
        }
        *read_to = watermarks.into_iter().map(|(_, high)| high).collect();
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "causeway-tests")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10")
            .create()
            .unwrap();
        consumer.assign(&assignment).unwrap();
        let mut last = Instant::now();
        let mut records = Vec::new();
        while !ends.is_empty() {
            assert!(last.elapsed() < HANG, "{topic}: stuck after {} records, before {ends:?}", records.len());
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(message)) => {
                    last = Instant::now();
                    // Records that came after the call began are not part of it.
                    let Some(&end) = ends.get(&message.partition()) else { continue };
                    if message.offset() < end {
                        records.push(record(&message));
                    }
                    if message.offset() + 1 >= end {
                        ends.remove(&message.partition());
                    }
                }
                // The last offsets may hold no record: compacted away, or a transaction's marker.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ends.remove(&partition);
                }
                Some(Err(error)) => panic!("{topic}: {error}"),
            }
        }
        records.sort_by_key(|record: &Record| (record.partition, record.offset));
        records
    }
}

fn record(message: &impl Message) -> Record {
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|it| (it.key.to_owned(), it.value.unwrap_or_default().to_vec())).collect());
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(HANG)).operation_timeout(Some(HANG))
}

/// Blocks on one of the admin client's futures, which its own thread completes. Tokio's `block_on` would panic inside an
/// async test.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
