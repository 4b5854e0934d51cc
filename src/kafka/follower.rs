//! A reader that goes on: over outages of the cluster, and to partitions that are added.

use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::{
    Connection,
    reader::{Reader, Start, Stored, passes},
};

/// How often the topics' partitions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What [`Follower::next`] heard.
#[derive(Debug)]
pub enum Heard {
    Record(Stored),
    /// No record came while it waited.
    Nothing,
    /// No broker answers at the moment, for this reason.
    Away(KafkaError),
}

/// Reads topics on and on.
pub struct Follower {
    topics: Vec<String>,
    reader: Reader,
    looked: Instant,
}

impl Follower {
    /// Opens `topics` as [`Reader::open`] does.
    ///
    /// # Errors
    /// When no broker answers, or a topic is not there.
    pub fn open(connection: &Connection, name: &str, topics: &[String], start: Start) -> Result<Self, KafkaError> {
        let reader = Reader::open(connection, name, topics, start)?;
        Ok(Self { topics: topics.to_vec(), reader, looked: Instant::now() })
    }

    /// Waits for the next record, for a while.
    ///
    /// # Errors
    /// When the cluster reports a fault that does not pass by itself.
    pub fn next(&mut self, wait: Duration) -> Result<Heard, KafkaError> {
        let unanswered = if self.looked.elapsed() >= LOOK_EVERY { self.look() } else { None };
        Ok(match (self.reader.next(wait)?, unanswered) {
            (Some(record), _) => Heard::Record(record),
            (None, Some(error)) => Heard::Away(error),
            (None, None) => Heard::Nothing,
        })
    }

    /// The reader, for what it knows of its start.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Takes partitions that were added, from their first record on; gives why no broker told of them.
    fn look(&mut self) -> Option<KafkaError> {
        let looked = self.topics.iter().try_for_each(|topic| self.reader.take_added(topic));
        self.looked = Instant::now();
        match looked {
            Err(error) if passes(&error) => return Some(error),
            // A topic that is gone, or may not be seen any more, is the next record's matter.
            Err(error) => tracing::debug!(%error, "partitions could not be looked at"),
            Ok(()) => {}
        }
        None
    }
}
