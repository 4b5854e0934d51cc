//! Records read back: for `tail` and `replay`. No group membership, so nothing rebalances.

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
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub value: Vec<u8>,
}

impl Stored {
    /// The first header called `name`.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    /// The first header called `name`, when it is UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.header(name)?).ok()
    }
}

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Beginning,
    End,
    /// At the first record from this time on, milliseconds since 1970.
    Since(i64),
    /// These partitions alone (topic, partition), each at an offset.
    At(Vec<(String, i32, i64)>),
}

/// What a consumer group says of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub partition: i32,
    /// The first offset that is still there.
    pub first: i64,
    /// The offset after the last.
    pub end: i64,
    /// The group's offset, if it has one.
    pub offset: Option<i64>,
    /// The offset of the mark that it was committed with, if it was (`progress.rs`).
    pub mark: Option<i64>,
}

/// Reads topics from a start on, all partitions.
pub struct Reader {
    config: ClientConfig,
    consumer: BaseConsumer<Quiet>,
    /// (topic, partition, end when opened)
    ends: Vec<(String, i32, i64)>,
    token: Keeper,
    timeout: Duration,
    /// Consumers that others have taken the place of.
    retired: Several,
}

/// So long the end of a reader waits for theirs.
const RETIRED_WITHIN: Duration = Duration::from_millis(500);

impl Drop for Reader {
    fn drop(&mut self) {
        self.retired.join_by(Instant::now() + RETIRED_WITHIN);
    }
}

#[derive(Default)]
struct Quiet {
    /// It knows no broker any more.
    lost: AtomicBool,
}

impl ClientContext for Quiet {
    fn stats(&self, statistics: Statistics) {
        // The group's coordinator has no address of its own.
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
    /// Opens `topics`; `name` is the consumer group under which progress is committed.
    ///
    /// # Errors
    /// When no broker answers, or a topic is not there.
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

    /// What the group `name` has committed for each partition of `topic`.
    ///
    /// # Errors
    /// When no broker answers, or the group may not be seen.
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
                    // One that is gone since is in no list.
                    if let Some(mut element) = list.find_partition(&topic, partition) {
                        element.set_offset(Offset::Offset(offset))?;
                    }
                }
            }
        }
        Ok(list)
    }

    /// The next record, or `None` when none came within `wait`.
    ///
    /// Waits on while no broker can be reached.
    ///
    /// # Errors
    /// When the cluster reports a fault that does not pass by itself.
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

    /// Takes another consumer, which goes on where this one is. The cluster named none of its brokers, and librdkafka forgot
    /// them all (its issue 5301; `health.rs`).
    fn begin_again(&mut self) -> Result<(), KafkaError> {
        tracing::warn!(client = "reader", "the cluster named none of its brokers: a new consumer goes on");
        let (assigned, positions) = (self.consumer.assignment()?, self.consumer.position()?);
        // A list of its own: those hold the old consumer's partitions, which librdkafka would take for the new one's.
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
        // Its end waits for brokers that it does not know.
        self.retired.add(Owned::spawn("retire", move || drop(lost)));
        self.consumer.assign(&list)
    }

    /// Takes the partitions of `topic` that were added since, from their first record on.
    ///
    /// # Errors
    /// When no broker answers, or the topic is not there.
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

    /// How many records lay between here and the end when the reader was opened.
    ///
    /// # Errors
    /// When the reader's own position cannot be told.
    pub fn behind(&self) -> Result<i64, KafkaError> {
        let positions = self.consumer.position()?;
        let assigned = self.consumer.assignment()?;
        // A broker that does not answer is asked once.
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
                // What retention has deleted since `next` was committed does not come any more.
                let first = (answers && next < *end).then(|| self.first(topic, *partition));
                answers &= first != Some(None);
                (end - next.max(first.flatten().unwrap_or(0))).max(0)
            })
            .sum())
    }

    fn first(&self, topic: &str, partition: i32) -> Option<i64> {
        self.consumer.fetch_watermarks(topic, partition, self.timeout).ok().map(|(first, _)| first)
    }

    /// The record stood before the end when the reader was opened.
    pub fn was_there(&self, record: &Stored) -> bool {
        self.ends.iter().any(|(topic, partition, end)| {
            *topic == record.topic && *partition == record.partition && record.offset < *end
        })
    }

    /// Commits to the group that everything before `next` is done, as the mark at offset `mark` says too.
    ///
    /// # Errors
    /// When the broker does not take the commit.
    pub fn commit(&self, topic: &str, partition: i32, next: i64, mark: i64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(topic, partition);
        element.set_offset(Offset::Offset(next))?;
        element.set_metadata(mark.to_string());
        self.consumer.commit(&list, CommitMode::Sync)
    }
}

/// The cluster is away for now: librdkafka connects again by itself.
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
