//! A reader that lives through outages of the cluster, and takes up partitions that are added.

use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::{
    Connection,
    reader::{Reader, Start, Stored, passes},
};

/// The time between two looks for added partitions.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The result of [`Follower::next`].
#[derive(Debug)]
pub enum Heard {
    /// The next record.
    Record(Stored),
    /// No record came while it waited.
    Nothing,
    /// No broker answers at the moment, for this reason.
    Away(KafkaError),
}

/// Reads topics on and on, past the ends that they have now.
pub struct Follower {
    topics: Vec<String>,
    reader: Reader,
    looked: Instant,
}

impl Follower {
    /// Opens `topics` as [`Reader::open`] does.
    ///
    /// # Errors
    /// No broker answers, or a topic does not exist.
    pub fn open(connection: &Connection, name: &str, topics: &[String], start: Start) -> Result<Self, KafkaError> {
        let reader = Reader::open(connection, name, topics, start)?;
        Ok(Self { topics: topics.to_vec(), reader, looked: Instant::now() })
    }

    /// Waits for the next record, for at most `wait`.
    ///
    /// # Errors
    /// The cluster reports a fault that does not pass by itself.
    pub fn next(&mut self, wait: Duration) -> Result<Heard, KafkaError> {
        let unanswered = if self.looked.elapsed() >= LOOK_EVERY { self.look() } else { None };
        Ok(match (self.reader.next(wait)?, unanswered) {
            (Some(record), _) => Heard::Record(record),
            (None, Some(error)) => Heard::Away(error),
            (None, None) => Heard::Nothing,
        })
    }

    /// The reader, which knows its start and its progress.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Takes up added partitions from their first record on; returns the reason when no broker told of them.
    fn look(&mut self) -> Option<KafkaError> {
        let looked = self.topics.iter().try_for_each(|topic| self.reader.take_added(topic));
        self.looked = Instant::now();
        match looked {
            Err(error) if passes(&error) => return Some(error),
            // If a topic is gone, or may not be seen any more, the next read reports it.
            Err(error) => tracing::debug!(%error, "partitions could not be looked at"),
            Ok(()) => {}
        }
        None
    }
}
