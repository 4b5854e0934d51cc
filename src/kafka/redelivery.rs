//! What a delivery error leaves: produced again, dead-lettered, or given up.
//!
//! A failed batch takes innocent records with it, so a record is refused for itself only when it
//! was alone in its batch. Everything else is tried again, with backoff, until `message.timeout.ms`, and then as long as a
//! request waits for it: no attempt begins later. The last one may take as long again.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Weak, mpsc},
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer as _},
};

use super::{
    client::create_patient,
    letter::Letter,
    millis_now,
    producer::Producers,
    reports::{Fate, Reports},
    watch::{self, Watch},
};
use crate::record::{Record, Refused};

/// What a lane reports to the redelivery thread.
pub(super) enum Failed {
    Record {
        lane: usize,
        error: KafkaError,
        letter: Letter,
    },
    /// The producer can send nothing more and is replaced.
    Fatal {
        lane: usize,
    },
    /// The drain is over: what waits here is given up.
    GiveUp,
}

/// A letter that waits for its next attempt; the earliest first.
struct Waiting {
    due: Instant,
    lane: usize,
    letter: Letter,
}

/// Starts the thread that owns every failed record. It ends when the producers are gone.
pub(super) fn start(producers: &Arc<Producers>, failures: mpsc::Receiver<Failed>) {
    let producers = Arc::downgrade(producers);
    let run = move || {
        let waiting = BinaryHeap::new();
        Redelivery { producers, waiting, giving_up: false, rebuild_from: None, watch: Watch::default() }.run(&failures);
    };
    watch::spawn("redelivery", run);
}

struct Redelivery {
    producers: Weak<Producers>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    giving_up: bool,
    /// A dead producer could not be replaced, as one of its files cannot be read: not tried again before.
    rebuild_from: Option<Instant>,
    watch: Watch,
}

/// How often the thread looks whether the producers are still there.
const IDLE: Duration = Duration::from_secs(1);

/// Before a dead producer is tried to be replaced again.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

impl Redelivery {
    fn run(mut self, failures: &mpsc::Receiver<Failed>) {
        loop {
            let wait =
                self.waiting.peek().map_or(IDLE, |Reverse(next)| next.due.saturating_duration_since(Instant::now()));
            let failed = failures.recv_timeout(wait.min(IDLE));
            let Some(producers) = self.producers.upgrade() else { return };
            match failed {
                Ok(Failed::Record { lane, error, letter }) => self.take(&producers, lane, &error, letter),
                Ok(Failed::Fatal { lane }) => self.rebuild(&producers, lane),
                Ok(Failed::GiveUp) => {
                    self.giving_up = true;
                    for Reverse(waiting) in self.waiting.drain() {
                        give_up(&producers, waiting.lane, waiting.letter);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            self.send_due(&producers);
            self.watch.look(&producers);
        }
    }

    /// Decides what becomes of a record that failed.
    fn take(&mut self, producers: &Producers, lane: usize, error: &KafkaError, mut letter: Letter) {
        #[cfg(debug_assertions)]
        {
            let Some(parcel) = producers.lanes.get(lane).and_then(|lane| letter.parcel.sabotaged(lane)) else { return };
            letter.parcel = parcel;
        }
        let age = letter.parcel.accepted.elapsed();
        // A retry that joined it of late has its time still before it.
        if self.giving_up || age >= producers.message_timeout && !letter.parcel.is_awaited() {
            return give_up(producers, lane, letter);
        }
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::Fatal) {
            self.rebuild(producers, lane);
        }
        if code == Some(RDKafkaErrorCode::InvalidTimestamp) {
            // It is this machine's clock that is wrong, or the record waited for longer than its topic allows.
            letter.record.timestamp = millis_now();
        }
        let own_fault = code.is_some_and(refused_for_itself);
        // librdkafka itself refuses what is over its message.max.bytes, before there is a batch or a partition.
        let was_alone = letter.parcel.alone || !letter.batched;
        let is_event = matches!(letter.parcel.fate, Fate::Event);
        let now_has_key = was_alone && code == Some(RDKafkaErrorCode::InvalidRecord) && letter.give_key();
        if own_fault && was_alone && is_event && !now_has_key {
            return dead_letter(producers, lane, error, letter);
        }
        letter.parcel.alone |= own_fault;
        letter.parcel.attempts += 1;
        let backoff = Duration::from_millis(50 << letter.parcel.attempts.min(5)).min(Duration::from_secs(1));
        if let Some(lane) = producers.lanes.get(lane) {
            lane.redelivered.inc();
            tracing::debug!(feed = lane.label, %error, attempts = letter.parcel.attempts, "record is produced again");
        }
        self.waiting.push(Reverse(Waiting { due: Instant::now() + backoff, lane, letter }));
    }

    /// Replaces a producer that can send nothing any more. What it still held comes back as purged and is produced again;
    /// what is given to a dead one comes back too, and asks for this again, as do the statistics of one that knows no broker.
    fn rebuild(&mut self, producers: &Producers, lane: usize) {
        let Some(lane) = producers.lanes.get(lane) else { return };
        if let Some(why) = lane.made_alone().and_then(|alone| end_of(&alone)) {
            tracing::warn!(feed = lane.label, "{why}: the producer of suspects is replaced");
            lane.retire_alone();
        }
        let Some(why) = end_of(&lane.current()) else { return };
        if self.rebuild_from.is_some_and(|from| Instant::now() < from) {
            return;
        }
        match create_patient(&lane.connection.producer(false), lane.reports()) {
            Ok(fresh) => {
                tracing::warn!(feed = lane.label, "{why}: the producer is replaced");
                lane.replace(fresh);
            }
            Err(error) => {
                tracing::error!(
                    feed = lane.label,
                    %error,
                    "{why}, and the producer cannot be replaced yet: are the files that [kafka.client] names right?"
                );
                self.rebuild_from = Some(Instant::now() + REBUILD_PAUSE);
            }
        }
    }

    fn send_due(&mut self, producers: &Producers) {
        let now = Instant::now();
        while self.waiting.peek().is_some_and(|Reverse(next)| next.due <= now) {
            let Some(Reverse(Waiting { lane, letter, .. })) = self.waiting.pop() else { return };
            let Some(lane) = producers.lanes.get(lane) else { continue };
            lane.hand_over(letter);
        }
    }
}

/// Why the producer can send nothing any more, if that is so.
fn end_of(producer: &BaseProducer<Reports>) -> Option<&'static str> {
    if producer.client().fatal_error().is_some() {
        return Some("fatal producer error");
    }
    producer.context().is_lost().then_some("the cluster named none of its brokers, and librdkafka forgot them all")
}

/// The broker's objection is to the record, whatever else was in its batch.
fn refused_for_itself(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidRecord
    )
}

/// The record can never be stored in its topic: its body goes to the dead letters, and their receipt answers the sender.
fn dead_letter(producers: &Producers, from: usize, error: &KafkaError, letter: Letter) {
    let Letter { record: refused_record, mut parcel, .. } = letter;
    let Some(lane) = producers.lanes.get(producers.dead_letter_lane()) else { return };
    let reason = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| format!("{code:?}"));
    let refused = Refused::Unstorable(&reason);
    let from = producers.lanes.get(from);
    let feed = from.map(|lane| lane.label.clone());
    let mut record = Record::default();
    let origin = parcel.origin.clone();
    let known = feed.as_deref().map(|feed| (feed, parcel.topic));
    record.fill_dead_letter(&parcel.body, refused, known, refused_record.key(), &origin);
    tracing::warn!(feed, reason, "a record that its topic refuses goes to the dead letters");
    parcel.fate = Fate::DeadLetter { stage: refused.stage(), feed };
    parcel.alone = false;
    parcel.attempts = 1;
    if let Some(topic) = lane.topics.first() {
        parcel.topic = topic;
    }
    lane.produce(Letter::new(&record, parcel));
    // After it, so that who drains never sees it nowhere.
    if let Some(from) = from {
        from.counts.end();
    }
}

fn give_up(producers: &Producers, lane: usize, letter: Letter) {
    if let Some(lane) = producers.lanes.get(lane) {
        letter.parcel.give_up(lane);
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
