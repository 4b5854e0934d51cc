//! Reads records back, for `tail` and `replay`. A reader joins no consumer group, so nothing rebalances.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::Headers,
};

use super::{
    Connection,
    keeper::Keeper,
    log,
    thread::{Owned, Several},
};

/// A record as it stands in its topic.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
    /// The timestamp in milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// The key; `None` for a null key.
    pub key: Option<Vec<u8>>,
    /// The headers in their order: name and value.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The value; empty for a null value.
    pub value: Vec<u8>,
}

impl Stored {
    /// The first header called `name`.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    /// The text of the first header called `name`; `None` if it is not UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.header(name)?).ok()
    }
}

/// The start of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The first record of each partition.
    Beginning,
    /// The end of each partition: only new records are read.
    End,
    /// The first record from this time on, in milliseconds since 1970.
    Since(i64),
    /// Only these partitions (topic, partition), each from an offset.
    At(Vec<(String, i32, i64)>),
}

/// A consumer group's progress in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The partition's number.
    pub partition: i32,
    /// The first offset that still exists.
    pub first: i64,
    /// The offset after the last record.
    pub end: i64,
    /// The group's offset, if it has one.
    pub offset: Option<i64>,
    /// The offset of the mark that the group's offset was committed with, if any (`progress.rs`).
    pub mark: Option<i64>,
}

/// Reads all partitions of topics from a start on.
pub struct Reader {
    config: ClientConfig,
    consumer: BaseConsumer<Quiet>,
    /// (topic, partition, end when opened)
    ends: Vec<(String, i32, i64)>,
    token: Keeper,
    timeout: Duration,
    /// Consumers that were replaced.
    retired: Several,
}

/// How long the drop of a reader waits for the ends of replaced consumers.
const RETIRED_WITHIN: Duration = Duration::from_millis(500);

impl Drop for Reader {
    fn drop(&mut self) {
        self.retired.join_by(Instant::now() + RETIRED_WITHIN);
    }
}

#[derive(Default)]
struct Quiet {
    /// Whether librdkafka knows no broker any more.
    lost: AtomicBool,
}

impl ClientContext for Quiet {
    fn stats(&self, statistics: Statistics) {
        // The group's coordinator is listed too, but has no address of its own.
        let lost = statistics.brokers.values().all(|broker| broker.source == "logical");
        self.lost.store(lost, Ordering::Relaxed);
    }

    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log::line("reader", level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka client error");
    }
}

impl ConsumerContext for Quiet {}

impl Reader {
    /// Opens `topics` from `start`; `name` is the consumer group under which progress is committed.
    ///
    /// # Errors
    /// No broker answers, or a topic does not exist.
    pub fn open(connection: &Connection, name: &str, topics: &[String], start: Start) -> Result<Self, KafkaError> {
        let mut reader = Self::unassigned(connection, name)?;
        let mut list = TopicPartitionList::new();
        for topic in topics {
            let mut partitions = reader.partitions(topic)?;
            if let Start::At(places) = &start {
                partitions.retain(|partition| places.iter().any(|(of, placed, _)| (of, placed) == (topic, partition)));
            }
            for partition in partitions {
                let (_, end) = reader.consumer.fetch_watermarks(topic, partition, reader.timeout)?;
                reader.ends.push((topic.clone(), partition, end));
                list.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        reader.consumer.assign(&reader.begin_at(list, start)?)?;
        Ok(reader)
    }

    fn unassigned(connection: &Connection, name: &str) -> Result<Self, KafkaError> {
        let mut config = connection.client();
        config.set("group.id", name);
        config.set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "false");
        config.set("auto.offset.reset", "earliest");
        config.set("statistics.interval.ms", "5000");
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet::default())?;
        let token = Keeper::new(connection);
        token.keep(consumer.client()).map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self {
            config,
            consumer,
            ends: Vec::new(),
            token,
            timeout: connection.request_timeout(),
            retired: Several::default(),
        })
    }

    /// The progress of the group `name` in each partition of `topic`.
    ///
    /// # Errors
    /// No broker answers, or the group may not be seen.
    pub fn committed(connection: &Connection, name: &str, topic: &str) -> Result<Vec<Committed>, KafkaError> {
        let reader = Self::unassigned(connection, name)?;
        let mut list = TopicPartitionList::new();
        for partition in reader.partitions(topic)? {
            list.add_partition(topic, partition);
        }
        let told = reader.consumer.committed_offsets(list, reader.timeout)?;
        let elements = told.elements();
        elements
            .iter()
            .map(|element| {
                let partition = element.partition();
                let (first, end) = reader.consumer.fetch_watermarks(topic, partition, reader.timeout)?;
                let offset = match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                };
                let mark = offset.and_then(|_| element.metadata().parse().ok());
                Ok(Committed { partition, first, end, offset, mark })
            })
            .collect()
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(topic), self.timeout)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(Vec::new()) };
        match found.error() {
            Some(error) => Err(KafkaError::MetadataFetch(error.into())),
            None => Ok(found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()),
        }
    }

    fn begin_at(&self, mut list: TopicPartitionList, start: Start) -> Result<TopicPartitionList, KafkaError> {
        match start {
            Start::Beginning => {}
            Start::End => {
                for (topic, partition, end) in &self.ends {
                    list.set_partition_offset(topic, *partition, Offset::Offset(*end))?;
                }
            }
            Start::Since(time) => {
                let mut times = list.clone();
                times.set_all_offsets(Offset::Offset(time))?;
                list = self.consumer.offsets_for_times(times, self.timeout)?;
            }
            Start::At(places) => {
                for (topic, partition, offset) in places {
                    // A partition that was deleted meanwhile is not in the list.
                    if let Some(mut element) = list.find_partition(&topic, partition) {
                        element.set_offset(Offset::Offset(offset))?;
                    }
                }
            }
        }
        Ok(list)
    }

    /// The next record; `None` when none came within `wait`.
    ///
    /// An outage of the cluster is no error: later calls go on once a broker can be reached.
    ///
    /// # Errors
    /// The cluster reports a fault that does not pass by itself.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Stored>, KafkaError> {
        if self.consumer.client().context().lost.load(Ordering::Relaxed) {
            self.begin_again()?;
        }
        if let Err(error) = self.token.keep(self.consumer.client()) {
            tracing::debug!(client = "reader", %error, "the reader goes on with the token that it has");
        }
        let Some(message) = self.consumer.poll(wait) else { return Ok(None) };
        let message = match message {
            Err(error) if passes(&error) => {
                tracing::debug!(client = "reader", %error, "no broker can be reached; the reader goes on when one can");
                return Ok(None);
            }
            message => message?,
        };
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
        });
        Ok(Some(Stored {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            value: message.payload().unwrap_or_default().to_vec(),
        }))
    }

    /// Replaces the consumer by a new one at the same positions. The cluster named none of its brokers, and librdkafka
    /// forgot them all (its issue 5301; `health.rs`).
    fn begin_again(&mut self) -> Result<(), KafkaError> {
        tracing::warn!(client = "reader", "the cluster named none of its brokers: a new consumer goes on");
        let (assigned, positions) = (self.consumer.assignment()?, self.consumer.position()?);
        // This builds a new list: the old lists hold the old consumer's partitions, which librdkafka would take for the
        // new one's.
        let mut list = TopicPartitionList::new();
        for element in assigned.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let next = match positions.find_partition(topic, partition).map(|position| position.offset()) {
                Some(Offset::Offset(next)) => Offset::Offset(next),
                _ => element.offset(),
            };
            list.add_partition_offset(topic, partition, next)?;
        }
        let fresh: BaseConsumer<Quiet> = self.config.create_with_context(Quiet::default())?;
        self.token.begin_again();
        let lost = std::mem::replace(&mut self.consumer, fresh);
        // The old consumer's drop waits for brokers that it does not know, so it has a thread of its own.
        self.retired.add(Owned::spawn("retire", move || drop(lost)));
        self.consumer.assign(&list)
    }

    /// Takes up the partitions added to `topic`, from their first record on.
    ///
    /// # Errors
    /// No broker answers, or the topic does not exist.
    pub fn take_added(&self, topic: &str) -> Result<(), KafkaError> {
        let assigned = self.consumer.assignment()?;
        let mut added = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            if assigned.find_partition(topic, partition).is_none() {
                added.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        if added.count() > 0 {
            tracing::info!(topic, added = added.count(), "partitions were added: they are read from their beginning");
            self.consumer.incremental_assign(&added)?;
        }
        Ok(())
    }

    /// The number of records between the reader's position and the end that its topics had when it was opened.
    ///
    /// # Errors
    /// The reader's own position is not known.
    pub fn behind(&self) -> Result<i64, KafkaError> {
        let positions = self.consumer.position()?;
        let assigned = self.consumer.assignment()?;
        // A broker that does not answer is asked only once.
        let mut answers = true;
        Ok(self
            .ends
            .iter()
            .map(|(topic, partition, end)| {
                let at =
                    |list: &TopicPartitionList| list.find_partition(topic, *partition).map(|element| element.offset());
                let next = match (at(&positions), at(&assigned)) {
                    (Some(Offset::Offset(next)), _) | (_, Some(Offset::Offset(next))) => next,
                    (_, Some(Offset::End)) => *end,
                    _ => 0,
                };
                // Records that retention deleted since `next` was committed will never come.
                let first = (answers && next < *end).then(|| self.first(topic, *partition));
                answers &= first != Some(None);
                (end - next.max(first.flatten().unwrap_or(0))).max(0)
            })
            .sum())
    }

    fn first(&self, topic: &str, partition: i32) -> Option<i64> {
        self.consumer.fetch_watermarks(topic, partition, self.timeout).ok().map(|(first, _)| first)
    }

    /// Whether the record already existed when the reader was opened.
    pub fn was_there(&self, record: &Stored) -> bool {
        self.ends.iter().any(|(topic, partition, end)| {
            *topic == record.topic && *partition == record.partition && record.offset < *end
        })
    }

    /// Commits to the group that everything before `next` is done; the mark at offset `mark` says so in the topic.
    ///
    /// # Errors
    /// The broker does not take the commit.
    pub fn commit(&self, topic: &str, partition: i32, next: i64, mark: i64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(topic, partition);
        element.set_offset(Offset::Offset(next))?;
        element.set_metadata(mark.to_string());
        self.consumer.commit(&list, CommitMode::Sync)
    }
}

/// Whether the fault passes by itself: the cluster is away, and librdkafka connects again.
pub(super) fn passes(error: &KafkaError) -> bool {
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return false;
    }
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::MessageTimedOut
                | Code::RequestTimedOut
                | Code::BrokerNotAvailable
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::NetworkException
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
        )
    )
}
