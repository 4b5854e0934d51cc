//! What a delivery error leaves: produced again, dead-lettered, or given up.
//!
//! A failed batch takes innocent records with it, so a record is refused for itself only when it
//! was alone in its batch. Everything else is tried again, with backoff, until `message.timeout.ms`, and then as long as a
//! request waits for it: no attempt begins later. The last one may take as long again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, Weak, mpsc},
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer as _},
};

use super::{
    client::create_patient,
    health::Ailment,
    letter::Letter,
    millis_now,
    producer::{Lane, Producers, settle},
    reports::{Fate, Reports},
    stall::Stalls,
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
    /// A producer can send nothing more and is replaced.
    Producer {
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
        let (rebuild_from, watch, stalls) = (HashMap::new(), Watch::default(), Stalls::default());
        Redelivery { producers, waiting, giving_up: false, rebuild_from, watch, stalls }.run(&failures);
    };
    watch::spawn("redelivery", run);
}

struct Redelivery {
    producers: Weak<Producers>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    giving_up: bool,
    /// By lane: its producer was replaced, or could not be, as one of its files cannot be read. Not done again before.
    rebuild_from: HashMap<usize, Instant>,
    watch: Watch,
    stalls: Stalls,
}

/// How often the thread looks whether the producers are still there.
const IDLE: Duration = Duration::from_secs(1);

/// Before a lane's producer is replaced again, or that is tried again.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// A producer that is replaced before it has to be may first commit what it has, while all failed records wait.
const SETTLE_MAX: Duration = Duration::from_millis(500);

impl Redelivery {
    fn run(mut self, failures: &mpsc::Receiver<Failed>) {
        loop {
            let wait =
                self.waiting.peek().map_or(IDLE, |Reverse(next)| next.due.saturating_duration_since(Instant::now()));
            let failed = failures.recv_timeout(wait.min(IDLE));
            let Some(producers) = self.producers.upgrade() else { return };
            match failed {
                Ok(Failed::Record { lane, error, letter }) => self.take(&producers, lane, &error, letter),
                Ok(Failed::Producer { lane }) => self.rebuild(&producers, lane),
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
            if !self.giving_up {
                self.stalls.look(&producers);
            }
        }
    }

    /// Decides what becomes of a record that failed.
    fn take(&mut self, producers: &Producers, lane: usize, error: &KafkaError, mut letter: Letter) {
        #[cfg(feature = "sabotage")]
        {
            let taken = producers.lanes.get(lane).and_then(|lane| super::sabotage::fail(letter.parcel, lane));
            let Some(parcel) = taken else { return };
            letter.parcel = parcel;
        }
        let age = letter.parcel.accepted.elapsed();
        // A retry that joined it of late has its time still before it.
        if self.giving_up || age >= producers.message_timeout && !letter.parcel.is_awaited() {
            return give_up(producers, lane, letter);
        }
        let code = error.rdkafka_error_code();
        self.rebuild(producers, lane);
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
    /// what is given to such a one comes back too, and asks for this again, as do its statistics.
    fn rebuild(&mut self, producers: &Producers, index: usize) {
        let Some(lane) = producers.lanes.get(index) else { return };
        if let Some(alone) = lane.made_alone()
            && let Some(ailment) = ailment(&alone)
        {
            // Nobody else gives it records.
            settle(&alone, settled_by(ailment));
            lane.replaced(ailment);
            lane.retire_alone();
        }
        let Some(ailment) = ailment(&lane.current()) else { return };
        if self.rebuild_from.get(&index).is_none_or(|from| *from <= Instant::now()) {
            replace(lane, ailment);
            self.rebuild_from.insert(index, Instant::now() + REBUILD_PAUSE);
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
fn ailment(producer: &BaseProducer<Reports>) -> Option<Ailment> {
    let fatal = producer.client().fatal_error().map(|_| Ailment::Fatal);
    fatal.or_else(|| producer.context().health().ailment())
}

fn replace(lane: &Lane, ailment: Ailment) {
    match create_patient(&lane.connection, &lane.connection.producer(false), lane.reports()) {
        Ok(fresh) => {
            lane.replaced(ailment);
            lane.replace_settled(fresh, settled_by(ailment));
        }
        Err(error) => tracing::error!(
            feed = lane.label,
            %error,
            "{}, and the producer cannot be replaced yet: are the files that [kafka.client] names right?",
            ailment.why()
        ),
    }
}

/// Only a producer whose epochs are nearly used up can still commit.
fn settled_by(ailment: Ailment) -> Instant {
    let patience = if ailment == Ailment::EpochsUsedUp { SETTLE_MAX } else { Duration::ZERO };
    Instant::now() + patience
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
