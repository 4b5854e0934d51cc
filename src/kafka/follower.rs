//! A reader that goes on: over outages of the cluster, and to partitions that are added.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::{
    Connection,
    reader::{Reader, Start, Stored},
};

/// How often the topics' partitions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A consumer that has had no answer so many times is replaced: librdkafka can forget every broker for good (its issue 5301).
const UNANSWERED_MAX: u32 = 3;

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
    connection: Connection,
    name: &'static str,
    topics: Vec<String>,
    reader: Reader,
    looked: Instant,
    unanswered: u32,
}

impl Follower {
    /// Opens `topics` as [`Reader::open`] does.
    ///
    /// # Errors
    /// When no broker answers, or a topic is not there.
    pub fn open(
        connection: &Connection,
        name: &'static str,
        topics: &[String],
        start: Start,
    ) -> Result<Self, KafkaError> {
        let reader = Reader::open(connection, name, topics, start)?;
        let (connection, topics) = (connection.clone(), topics.to_vec());
        Ok(Self { connection, name, topics, reader, looked: Instant::now(), unanswered: 0 })
    }

    /// Waits for the next record, for a while.
    ///
    /// # Errors
    /// When the cluster reports a fault that does not pass by itself.
    pub fn next(&mut self, wait: Duration) -> Result<Heard, KafkaError> {
        let unanswered = if self.looked.elapsed() >= LOOK_EVERY { self.look() } else { None };
        match self.reader.next(wait) {
            Ok(Some(record)) => {
                self.unanswered = 0;
                Ok(Heard::Record(record))
            }
            Ok(None) => Ok(unanswered.map_or(Heard::Nothing, |error| {
                self.begin_again();
                Heard::Away(error)
            })),
            Err(error) if passes(&error) => Ok(Heard::Away(error)),
            Err(error) => Err(error),
        }
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
            Ok(()) => self.unanswered = 0,
        }
        None
    }

    /// Replaces a consumer that gets no answer any more by one that knows nothing but where this one was.
    fn begin_again(&mut self) {
        self.unanswered += 1;
        if self.unanswered < UNANSWERED_MAX {
            return;
        }
        let places = self.reader.places();
        match Reader::open(&self.connection, self.name, &self.topics, Start::At(places)) {
            Ok(fresh) => {
                self.reader.replace(fresh);
                self.unanswered = 0;
            }
            Err(error) => tracing::debug!(%error, "no broker answers a new reader either"),
        }
    }
}

/// The cluster is away for now: librdkafka connects again by itself.
fn passes(error: &KafkaError) -> bool {
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
