//! Records read back: for `tail` and `replay`. No group membership, so nothing rebalances.

use std::time::Duration;

use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::KafkaError,
    message::Headers,
};

use super::Connection;

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
    consumer: BaseConsumer<Quiet>,
    /// (topic, partition, end when opened)
    ends: Vec<(String, i32, i64)>,
    timeout: Duration,
}

struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        super::reports::log("reader", level, fac, message);
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
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
        Ok(Self { consumer, ends: Vec::new(), timeout: connection.request_timeout() })
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
    /// # Errors
    /// When the cluster reports a fault that does not pass by itself.
    pub fn next(&self, wait: Duration) -> Result<Option<Stored>, KafkaError> {
        let Some(message) = self.consumer.poll(wait) else { return Ok(None) };
        let message = message?;
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

    /// The next record of each partition. Where none was read from its beginning that is 0, which stands for it.
    pub fn places(&self) -> Vec<(String, i32, i64)> {
        let (Ok(positions), Ok(assigned)) = (self.consumer.position(), self.consumer.assignment()) else {
            return Vec::new();
        };
        let place = |topic: &str, partition: i32| {
            let at = |list: &TopicPartitionList| list.find_partition(topic, partition).map(|element| element.offset());
            match (at(&positions), at(&assigned)) {
                (Some(Offset::Offset(next)), _) | (_, Some(Offset::Offset(next))) => next,
                _ => 0,
            }
        };
        let elements = assigned.elements();
        let element = elements.iter().map(|element| (element.topic(), element.partition()));
        element.map(|(topic, partition)| (topic.to_owned(), partition, place(topic, partition))).collect()
    }

    /// Reads on with the consumer of another, which stands at the same places; the ends stay those of the opening.
    pub fn replace(&mut self, fresh: Self) {
        self.consumer = fresh.consumer;
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
