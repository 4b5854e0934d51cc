//! Fills the dedupe window at start with the events of earlier runs, read back from the ends of the topics.

use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::{
    Connection, Key, Producers, Receipt,
    lane::Lane,
    millis_now,
    reader::{Reader, Start, Stored},
};
use crate::record::dead_letter;

/// The longest time that reading back may hold up the start.
const WARMING_MAX: Duration = Duration::from_secs(30);

/// The result of reading back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warmed {
    /// The number of records remembered.
    pub events: u64,
    /// False when the time was over first, or the process was told to stop: the unread records are not remembered.
    pub whole: bool,
}

impl Producers {
    /// Remembers committed records, as far back as a retry can come, until done or `is_to_stop`. Blocks.
    ///
    /// # Errors
    /// No broker answers, a topic does not exist, or the right to read it is missing.
    pub fn warm(&self, connection: &Connection, is_to_stop: impl Fn() -> bool) -> Result<Warmed, KafkaError> {
        let now = millis_now();
        let until = Instant::now() + WARMING_MAX;
        let topics: Vec<String> = self.window.topics().names().map(ToOwned::to_owned).collect();
        let age = i64::try_from(self.window.age().as_millis()).unwrap_or(i64::MAX);
        let mut reader = Reader::open(connection, "causeway-warm", &topics, Start::Since(now.saturating_sub(age)))?;
        let mut left = reader.behind()?;
        let mut events = 0;
        while left > 0 && Instant::now() < until && !is_to_stop() {
            match reader.next(Duration::from_millis(200))? {
                Some(record) => {
                    left -= i64::from(reader.was_there(&record));
                    events += u64::from(self.recall(&record, now));
                }
                // A record that compaction or a transaction left out never comes, so ask again how many are left.
                None => left = reader.behind()?,
            }
        }
        Ok(Warmed { events, whole: left <= 0 })
    }

    fn recall(&self, record: &Stored, now: i64) -> bool {
        // A stub has only the beginning of a body, and a whole body may equal it.
        if record.header(dead_letter::STUB).is_some() {
            return false;
        }
        let hash = record.text(dead_letter::BODY).and_then(|digits| u128::from_str_radix(digits, 16).ok());
        let Some(hash) = hash else { return false };
        let ago = now.saturating_sub(record.timestamp.unwrap_or(now)).max(0);
        let named = |lane: &Lane| lane.topics.iter().copied().find(|topic| topic.name() == record.topic);
        let mut known = false;
        // Feeds may share a topic, and the record does not name its feed: remember it for each of them.
        for (lane, topic) in self.lanes.iter().filter_map(|lane| Some((lane.id, named(lane)?))) {
            let key = if lane == self.lanes.dead_letters().lane() {
                Key::dead_letter(lane, hash)
            } else {
                let Some(event_id) = record.text("ce_id") else { continue };
                Key::event(lane, event_id, hash)
            };
            let receipt = Receipt { topic, partition: record.partition, offset: Some(record.offset) };
            self.window.warm(key, &receipt, Duration::from_millis(ago.unsigned_abs()));
            known = true;
        }
        known
    }
}
