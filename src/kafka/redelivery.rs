//! Redelivery of records that failed: each is produced again, dead-lettered, or given up.
//!
//! A failed batch takes innocent records with it, so a record counts as refused for itself only when it was alone in
//! its batch. Any other is tried again, with backoff, until `message.timeout.ms`, and after that as long as a request
//! waits for it. No attempt begins later; the last one may take `message.timeout.ms` again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer as _},
};

use super::{
    LaneId,
    client::create_patient,
    counts::RecordKind,
    health::Ailment,
    lane::{Lane, WhenRefused},
    lanes::Lanes,
    millis_now,
    outgoing::Outgoing,
    reports::{Failed, Reports},
    stall::Stalls,
    thread::Owned,
    watch::Watch,
};
use crate::record::{Record, Refused};

/// A record that waits for its next attempt; the earliest comes first.
struct Waiting {
    due: Instant,
    outgoing: Outgoing,
}

/// Starts the thread that owns every failed record. The thread ends at [`Failed::Stop`].
pub(super) fn start(lanes: Arc<Lanes>, failures: mpsc::Receiver<Failed>) -> Owned {
    Owned::spawn("redelivery", move || {
        let waiting = BinaryHeap::new();
        let (rebuild_from, watch, stalls) = (HashMap::new(), Watch::default(), Stalls::default());
        Redelivery { lanes, waiting, giving_up: false, rebuild_from, watch, stalls }.run(&failures);
    })
}

struct Redelivery {
    lanes: Arc<Lanes>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    giving_up: bool,
    /// For each lane, the earliest time of the next replacement of its producer, after a replacement or a failed try
    /// (one of its files cannot be read).
    rebuild_from: HashMap<LaneId, Instant>,
    watch: Watch,
    stalls: Stalls,
}

/// The longest time between two looks at the producers.
const IDLE: Duration = Duration::from_secs(1);

/// The pause before a lane's producer is replaced again, or before the next try.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// How long a producer may commit its records before a precautionary replacement, while all failed records wait.
const SETTLE_MAX: Duration = Duration::from_millis(500);

impl Redelivery {
    /// Handles one message at a time, in the order of their coming. So the records that a replaced producer gives back
    /// never race with its replacement. And the end of a drain ([`Failed::GiveUp`]) misses no failed record: one that
    /// came before waits here, and one that comes later is given up at once.
    fn run(mut self, failures: &mpsc::Receiver<Failed>) {
        loop {
            let wait =
                self.waiting.peek().map_or(IDLE, |Reverse(next)| next.due.saturating_duration_since(Instant::now()));
            match failures.recv_timeout(wait.min(IDLE)) {
                Ok(Failed::Record { error, outgoing }) => self.take(&error, outgoing),
                Ok(Failed::Producer { lane }) => self.rebuild(lane),
                Ok(Failed::GiveUp) => {
                    self.giving_up = true;
                    self.waiting.drain().for_each(|Reverse(waiting)| waiting.outgoing.parcel.give_up());
                }
                Ok(Failed::Stop { by }) => return self.stalls.join_by(by),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            self.send_due();
            self.watch.look(&self.lanes);
            if !self.giving_up {
                self.stalls.look(&self.lanes);
            }
        }
    }

    /// Decides the fate of a record that failed.
    fn take(&mut self, error: &KafkaError, mut outgoing: Outgoing) {
        let lanes = Arc::clone(&self.lanes);
        let lane = lanes.get(outgoing.parcel.topic.lane());
        #[cfg(feature = "sabotage")]
        {
            let Some(parcel) = super::sabotage::fail(outgoing.parcel, &lane.counts) else { return };
            outgoing.parcel = parcel;
        }
        let age = outgoing.parcel.accepted.elapsed();
        // A retry that joined the record of late still has time, so the record may be older than the timeout.
        if self.giving_up || age >= lanes.message_timeout && !outgoing.parcel.is_awaited() {
            return outgoing.parcel.give_up();
        }
        let code = error.rdkafka_error_code();
        self.rebuild(lane.id);
        if code == Some(RDKafkaErrorCode::InvalidTimestamp) {
            // Either this machine's clock is wrong, or the record waited for longer than its topic allows.
            outgoing.record.timestamp = millis_now();
        }
        let own_fault = code.is_some_and(refused_for_itself);
        // librdkafka itself refuses a record over its `message.max.bytes`, before it has a batch or a partition.
        let was_alone = outgoing.parcel.alone || !outgoing.batched;
        let now_has_key = was_alone && code == Some(RDKafkaErrorCode::InvalidRecord) && outgoing.give_key();
        if own_fault && was_alone && !now_has_key {
            match lane.when_refused {
                WhenRefused::DeadLetter => return dead_letter(&lanes, lane, error, outgoing),
                WhenRefused::Refuse => return refuse(lane, error, outgoing),
                WhenRefused::TryAgain => {}
            }
        }
        outgoing.parcel.alone |= own_fault;
        outgoing.parcel.attempts += 1;
        let backoff = Duration::from_millis(50 << outgoing.parcel.attempts.min(5)).min(Duration::from_secs(1));
        lane.redelivered();
        tracing::debug!(feed = lane.label, %error, attempts = outgoing.parcel.attempts, "record is produced again");
        self.waiting.push(Reverse(Waiting { due: Instant::now() + backoff, outgoing }));
    }

    /// Replaces a producer that can send nothing any more. Its records come back as purged and are produced again. A
    /// record that such a producer gets later comes back too, and calls this again, as do its statistics.
    fn rebuild(&mut self, id: LaneId) {
        let lane = self.lanes.get(id);
        if let Some(alone) = lane.made_alone()
            && let Some(ailment) = ailment(&alone)
        {
            // Only this thread gives records to the producer of suspects, so settling needs no gate.
            alone.settle(settled_by(ailment));
            lane.replaced(ailment);
            lane.retire_alone();
        }
        let Some(ailment) = ailment(&lane.current()) else { return };
        if self.rebuild_from.get(&id).is_none_or(|from| *from <= Instant::now()) {
            replace(lane, ailment);
            self.rebuild_from.insert(id, Instant::now() + REBUILD_PAUSE);
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while self.waiting.peek().is_some_and(|Reverse(next)| next.due <= now) {
            let Some(Reverse(Waiting { outgoing, .. })) = self.waiting.pop() else { return };
            self.lanes.get(outgoing.parcel.topic.lane()).hand_over(outgoing);
        }
    }
}

/// The reason why the producer can send nothing any more, if there is one.
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

/// The end of the wait for commits: only a producer whose epochs are nearly used up can still commit.
fn settled_by(ailment: Ailment) -> Instant {
    let patience = if ailment == Ailment::EpochsUsedUp { SETTLE_MAX } else { Duration::ZERO };
    Instant::now() + patience
}

/// Whether the broker objects to a record itself, so that one record of a batch can be at fault.
fn refused_for_itself(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidRecord
    )
}

/// The objection of the broker or of librdkafka; a code's name where there is a code.
fn reason(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| format!("{code:?}"))
}

/// Gives up a record that can never be stored in its topic, and tells the held requests so.
fn refuse(lane: &Lane, error: &KafkaError, outgoing: Outgoing) {
    tracing::warn!(feed = lane.label, reason = reason(error), "a record that its topic refuses is given up");
    outgoing.parcel.refuse();
}

/// Sends the body of a record that can never be stored to the dead letters; their receipt answers the sender.
fn dead_letter(lanes: &Lanes, from: &Lane, error: &KafkaError, outgoing: Outgoing) {
    let Outgoing { record: refused_record, mut parcel, .. } = outgoing;
    let reason = reason(error);
    let refused = Refused::Unstorable(&reason);
    let mut record = Record::default();
    let origin = parcel.origin.clone();
    let known = (from.label.as_str(), parcel.topic.name());
    record.fill_dead_letter(&parcel.body, refused, Some(known), refused_record.key(), &origin);
    tracing::warn!(feed = from.label, reason, "a record that its topic refuses goes to the dead letters");
    let kind = RecordKind::DeadLetter { stage: refused.stage(), feed: Some(from.label.clone()) };
    let topic = lanes.dead_letters();
    let lane = lanes.get(topic.lane());
    parcel.becomes_dead_letter(topic, kind, lane.begin());
    lane.produce(Outgoing::new(&record, parcel));
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
