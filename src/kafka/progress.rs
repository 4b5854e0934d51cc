//! The progress of `replay`, kept in the dead-letter topic itself so that it lives as long as the dead letters.
//!
//! A mark is a record in the partition that it is about, behind all the records that it calls done. Retention deletes
//! the oldest records of a partition first, so a mark outlives every dead letter that it covers, and is deleted with
//! them when the topic is. The consumer group's offset has the same content and is found without reading. But Kafka
//! forgets it 7 days later (`offsets.retention.minutes`), a group can be deleted, and an offset may be of an earlier
//! topic of the same name. So an offset counts only while the mark that it was committed with stands at its place.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::oneshot;

use super::{
    Connection,
    keeper::Keeper,
    log, millis_now,
    reader::{Committed, Reader, Start, Stored},
};

/// The header that makes a record a mark. Its value is the offset of the first record that is not done.
pub const MARK: &str = "causeway_replayed";

/// The key of all marks, so that a compacted partition keeps the last one.
const KEY: &str = "causeway-replay";

/// The progress in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The partition's number.
    pub partition: i32,
    /// The offset of the next record to take.
    pub next: i64,
    /// An upper bound of the records that were deleted before any run handled them.
    pub missed: i64,
}

/// Finds the progress in each partition of `topic`. Blocks.
///
/// # Errors
/// The cluster does not tell the group's offsets, or the topic cannot be read.
pub fn find(connection: &Connection, group: &str, topic: &str) -> Result<Vec<Place>, KafkaError> {
    let committed = Reader::committed(connection, group, topic)?;
    let from_hints: Vec<_> = committed.iter().filter_map(|it| Some((it.partition, first_to_look_at(it)?))).collect();
    let mut marks = Marks::read(connection, group, topic, from_hints)?;
    let unproven = |it: &&Committed| hint(it).is_some_and(|hint| !marks.stands(it, hint));
    let whole: Vec<_> = committed.iter().filter(unproven).map(|it| (it.partition, it.first)).collect();
    let again = Marks::read(connection, group, topic, whole.clone())?;
    for (partition, _) in whole {
        marks.0.remove(&partition);
    }
    marks.0.extend(again.0);
    Ok(committed.iter().map(|it| place(it, &marks)).collect())
}

/// The offset of the mark that the group's offset was committed with, if the mark may still exist.
fn hint(committed: &Committed) -> Option<i64> {
    committed.mark.filter(|mark| (committed.first..committed.end).contains(mark))
}

/// The first offset to search for marks; `None` where no search is needed.
fn first_to_look_at(committed: &Committed) -> Option<i64> {
    let first = hint(committed).unwrap_or(committed.first);
    (first < committed.end && by_hand(committed).is_none()).then_some(first)
}

/// An offset that an operator set with Kafka's own tools. It counts without a mark, as long as such a place exists.
fn by_hand(committed: &Committed) -> Option<i64> {
    let offset = committed.offset.filter(|_| committed.mark.is_none());
    offset.filter(|offset| (committed.first..=committed.end).contains(offset))
}

fn place(committed: &Committed, marks: &Marks) -> Place {
    let Committed { partition, first, offset, mark, .. } = *committed;
    let marked = marks.0.get(&partition).and_then(|found| found.last()).map(|(_, done)| *done);
    // The mark is deleted, and with it all records before it: the group's offset is the best knowledge left.
    let gone = offset.filter(|_| mark.is_some_and(|mark| mark < first));
    let done = by_hand(committed).or(marked).or(gone);
    let marks_gone = |done: i64| i64::from(mark.is_some_and(|mark| (done..first).contains(&mark)));
    let missed = done.map_or(0, |done| (first - done - marks_gone(done)).max(0));
    Place { partition, next: done.unwrap_or(first).max(first), missed }
}

/// The marks of each partition: their own offsets, and the first offset that is not done.
struct Marks(BTreeMap<i32, Vec<(i64, i64)>>);

impl Marks {
    /// Reads each partition from an offset to its end.
    fn read(connection: &Connection, group: &str, topic: &str, from: Vec<(i32, i64)>) -> Result<Self, KafkaError> {
        let mut marks: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
        if from.is_empty() {
            return Ok(Self(marks));
        }
        let places = from.into_iter().map(|(partition, offset)| (topic.to_owned(), partition, offset)).collect();
        let mut reader = Reader::open(connection, group, &[topic.to_owned()], Start::At(places))?;
        loop {
            match reader.next(Duration::from_millis(100))? {
                Some(record) => {
                    if let Some(done) = mark_of(&record).filter(|_| reader.was_there(&record)) {
                        marks.entry(record.partition).or_default().push((record.offset, done));
                    }
                }
                None if reader.behind()? == 0 => return Ok(Self(marks)),
                None => {}
            }
        }
    }

    /// Whether the mark at `hint` agrees with the group's offset.
    fn stands(&self, committed: &Committed, hint: i64) -> bool {
        let marks = self.0.get(&committed.partition);
        marks.is_some_and(|marks| marks.iter().any(|(at, done)| *at == hint && committed.offset == Some(*done)))
    }
}

/// The first offset that is not done, if the record is a mark.
pub fn mark_of(record: &Stored) -> Option<i64> {
    record.text(MARK)?.parse().ok()
}

/// Writes marks.
pub struct Marker {
    producer: ThreadedProducer<Answers>,
    token: Keeper,
    topic: String,
}

/// Sends each mark's delivery report to its waiting caller.
struct Answers;

type Answer = oneshot::Sender<Result<i64, KafkaError>>;

impl ClientContext for Answers {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log::line("marks", level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka client error");
    }
}

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, report: &DeliveryResult<'_>, answer: Box<Answer>) {
        let offset = report.as_ref().map(Message::offset).map_err(|(error, _)| error.clone());
        // The caller may have been stopped meanwhile.
        let _ = answer.send(offset);
    }
}

impl Marker {
    /// Makes the producer of marks for `topic`.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn new(connection: &Connection, topic: &str) -> Result<Self, KafkaError> {
        let producer = connection.producer(false).create_with_context(Answers)?;
        Ok(Self { producer, token: Keeper::new(connection), topic: topic.to_owned() })
    }

    /// Marks all records before `next` in `partition` as done; returns the offset of the mark.
    ///
    /// # Errors
    /// There is no token, or the cluster does not take the mark before `message.timeout.ms`.
    pub async fn mark(&self, partition: i32, next: i64) -> Result<i64, KafkaError> {
        let kept = tokio::task::block_in_place(|| self.token.keep(self.producer.client()));
        kept.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        let (answer, told) = oneshot::channel();
        let done = next.to_string();
        let headers = OwnedHeaders::new().insert(Header { key: MARK, value: Some(done.as_bytes()) });
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(answer)).partition(partition);
        let record = record.key(KEY).payload(&done).headers(headers).timestamp(millis_now());
        self.producer.send(record).map_err(|(error, _)| error)?;
        told.await.map_err(|_| KafkaError::Canceled)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(committed: (Option<i64>, Option<i64>), marks: &[(i64, i64)], first: i64) -> (i64, i64) {
        let (offset, mark) = committed;
        let committed = Committed { partition: 0, first, end: 20, offset, mark };
        let Place { next, missed, .. } = place(&committed, &Marks(BTreeMap::from([(0, marks.to_vec())])));
        (next, missed)
    }

    #[test]
    fn a_partition_goes_on_behind_its_last_mark() {
        // (offset and mark of the group), marks, first -> the next offset, and the number of records that were missed
        for (committed, marks, first, expected) in [
            ((None, None), &[][..], 3, (3, 0)),
            ((None, None), &[(5, 5), (9, 8)], 0, (8, 0)),
            ((Some(5), Some(5)), &[(5, 5), (9, 8)], 0, (8, 0)),
            // Offsets set by hand.
            ((Some(2), None), &[(5, 5)], 0, (2, 0)),
            ((Some(99), None), &[(5, 5)], 0, (5, 0)),
            // Deleted records: only done ones and their mark; then also one or two behind the mark.
            ((Some(5), Some(5)), &[], 6, (6, 0)),
            ((Some(5), Some(5)), &[], 8, (8, 2)),
            ((Some(5), Some(6)), &[], 8, (8, 2)),
            ((None, None), &[(9, 8)], 9, (9, 1)),
            // Offsets of an earlier topic of this name.
            ((Some(50), Some(50)), &[], 0, (0, 0)),
            ((Some(5), Some(5)), &[], 0, (0, 0)),
        ] {
            assert_eq!(placed(committed, marks, first), expected, "{committed:?} {marks:?} {first}");
        }
    }
}
