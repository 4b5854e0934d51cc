//! A lane: one feed's producer and all that belongs to it. A record that Kafka refuses stalls the other partitions of its
//! producer, so feeds do not share one.

use std::{
    iter, mem,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::Thread,
    time::{Duration, Instant},
};

use prometheus::IntCounter;
use rdkafka::{
    error::KafkaError,
    producer::{BaseProducer, Producer as _},
};

use super::{
    Connection, LaneId, TopicId,
    client::create_patient,
    counts::{Counts, Drained, Outstanding},
    gate::Gate,
    handle::Handle,
    health::Ailment,
    ids::Mint,
    outgoing::Outgoing,
    reports::{Failed, Reports},
    thread::Several,
};
use crate::metrics::Metrics;

/// The label, the topics and the policy of a lane.
#[derive(Debug, Clone)]
pub struct LaneSpec {
    /// In metrics and logs.
    pub label: String,
    /// Its own topic.
    pub topic: String,
    /// Further topics, to which some of its records go.
    pub more_topics: Vec<String>,
    pub when_refused: WhenRefused,
}

/// The policy for a record that its topic refuses for itself, alone in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenRefused {
    /// Its body goes to the dead letters, and their receipt answers the sender.
    DeadLetter,
    /// The requests that wait for it get [`Undelivered::Refused`](super::Undelivered::Refused).
    Refuse,
    /// It is tried again as after any other fault: there is nowhere else to put it.
    TryAgain,
}

pub(super) struct Lane {
    pub(super) id: LaneId,
    pub(super) label: String,
    /// Its own.
    pub(super) topic: TopicId,
    /// All: its own, then the further ones.
    pub(super) topics: Vec<TopicId>,
    pub(super) when_refused: WhenRefused,
    pub(super) connection: Connection,
    pub(super) counts: Arc<Counts>,
    gate: Gate,
    /// Replaced when it can send nothing more (`health.rs`), and when passwords or certificates have changed.
    producer: RwLock<Arc<Handle>>,
    /// Produces suspects one to a batch; made at the first one.
    alone: Mutex<Option<Arc<Handle>>>,
    retired: Several,
    failed: mpsc::Sender<Failed>,
    redelivered: IntCounter,
    /// Its producer sent nothing though it had records and could reach each leader, and the one after it has not reported any yet.
    own_fault: AtomicBool,
}

/// Everything that all lanes share.
pub(super) struct Shared<'a> {
    pub(super) connection: &'a Connection,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) failed: mpsc::Sender<Failed>,
    /// The thread of `pace.rs`.
    pub(super) opener: Thread,
    pub(super) drained: Arc<Drained>,
}

impl Lane {
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub(super) fn new(
        mint: &mut Mint,
        spec: &LaneSpec,
        dead_letters: bool,
        shared: &Shared<'_>,
    ) -> Result<Self, KafkaError> {
        let Shared { connection, metrics, failed, opener, drained } = shared;
        let id = mint.lane()?;
        let topic = mint.topic(id, &spec.topic)?;
        let more = spec.more_topics.iter().map(|name| mint.topic(id, name)).collect::<Result<Vec<_>, _>>()?;
        let counts = Counts::new(id, &spec.label, dead_letters, metrics, drained);
        let reports = Reports::new(&counts, failed, true);
        let client = connection.producer(false);
        #[cfg(feature = "sabotage")]
        let client = super::sabotage::first_producer(client);
        let patience = connection.request_timeout().min(connection.answer_by() / 2);
        Ok(Self {
            id,
            label: spec.label.clone(),
            topic,
            topics: iter::once(topic).chain(more).collect(),
            when_refused: spec.when_refused,
            connection: (*connection).clone(),
            gate: Gate::new(opener, &counts, patience),
            producer: RwLock::new(Handle::new(create_patient(connection, &client, reports)?)),
            alone: Mutex::default(),
            retired: Several::default(),
            counts,
            failed: failed.clone(),
            redelivered: metrics.redelivered.with_label_values(&[&spec.label]),
            own_fault: AtomicBool::new(false),
        })
    }

    /// Takes up a record: it counts as one of the lane's until what is given back is dropped.
    pub(super) fn begin(&self) -> Outstanding {
        let (outstanding, before) = self.counts.begin();
        if before == 0 {
            self.gate.wake();
        }
        outstanding
    }

    /// Takes a record over for the first time.
    pub(super) fn produce(&self, outgoing: Outgoing) {
        self.gate.pass(outgoing, |outgoing| self.hand_over(outgoing));
    }

    /// Lets go what the gate has gathered, where it is time.
    pub(super) fn open_if_due(&self, now: Instant) {
        if self.gate.is_due(now) {
            self.gate.open(|outgoing| self.hand_over(outgoing));
        }
    }

    /// Gives a record to librdkafka. What it refuses is redelivery's to decide.
    pub(super) fn hand_over(&self, mut outgoing: Outgoing) {
        outgoing.parcel.outstanding.hand_over();
        let sent = if outgoing.parcel.alone {
            match self.alone() {
                Ok(producer) => outgoing.hand_over(&producer),
                Err(error) => Err((error, outgoing)),
            }
        } else {
            outgoing.hand_over(&self.current())
        };
        if let Err((error, mut outgoing)) = sent {
            outgoing.parcel.outstanding.report();
            // Where redelivery has ended, with the process, the record is given up by its parcel's end.
            let _ = self.failed.send(Failed::Record { error, outgoing });
        }
    }

    /// Gives up what the gate has gathered.
    pub(super) fn clear(&self) {
        self.gate.clear().into_iter().for_each(|outgoing| outgoing.parcel.give_up());
    }

    /// Takes what librdkafka has to say of records, without waiting for more.
    pub(super) fn take_reports(&self) {
        let producers = [Some(self.current()), self.made_alone()];
        for producer in producers.iter().flatten() {
            let reported = || producer.context().reported();
            // A poll takes one event: the reports of one request, if there are any.
            let mut before = None;
            while before != Some(reported()) {
                before = Some(reported());
                producer.poll(Duration::ZERO);
            }
        }
    }

    /// The producer of the moment.
    pub(super) fn current(&self) -> Arc<Handle> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn reports(&self) -> Reports {
        Reports::new(&self.counts, &self.failed, true)
    }

    /// Only redelivery asks for it, so nobody else makes one meanwhile; and all gates wait for who holds the lock.
    fn alone(&self) -> Result<Arc<Handle>, KafkaError> {
        if let Some(producer) = self.made_alone() {
            return Ok(producer);
        }
        let reports = Reports::new(&self.counts, &self.failed, false);
        let producer = Handle::new(create_patient(&self.connection, &self.connection.producer(true), reports)?);
        *self.alone.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// The producer of suspects, if there has been one.
    pub(super) fn made_alone(&self) -> Option<Arc<Handle>> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts that a record is produced again.
    pub(super) fn redelivered(&self) {
        self.redelivered.inc();
    }

    /// Counts and tells that a producer is replaced.
    pub(super) fn replaced(&self, ailment: Ailment) {
        tracing::warn!(feed = self.label, reason = ailment.reason(), "{}: the producer is replaced", ailment.why());
        self.counts.replaced(ailment);
    }

    /// Whether its producer does not send its records though it could.
    pub(super) fn is_at_fault(&self) -> bool {
        self.own_fault.load(Ordering::Relaxed)
    }

    pub(super) fn set_own_fault(&self, is: bool) {
        self.own_fault.store(is, Ordering::Relaxed);
    }

    /// Puts `fresh` in the producer's place. What the old one still held comes back as purged and is produced again; the
    /// process ends when that takes longer than `keeps_max`.
    ///
    /// Two threads do so: redelivery (an ailment, a stall) and renew. Each takes out what stands there at that moment and retires
    /// that: whichever comes first, no producer is retired twice, and none is forgotten.
    /// - Redelivery has a producer made (a probe's takes some seconds). Renew reads new passwords and puts its own there. Then
    ///   redelivery puts the first one in its place, which has the old passwords: its records stand still where those are worth
    ///   nothing any more, and the next probe's has the new ones.
    /// - A request's thread is given the old producer, which is replaced; only then it hands over its record. The old one is
    ///   asked for what it holds when nobody has it any more (`handle.rs`), so that record comes back with the others.
    pub(super) fn replace(&self, fresh: BaseProducer<Reports>, keeps_max: Option<Duration>) {
        let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        let old = mem::replace(&mut *current, Handle::new(fresh));
        drop(current);
        self.retire(old, keeps_max);
        self.retire_alone();
    }

    /// The same, once the old one has committed what it has, as far as that goes until `settled_by`. What comes meanwhile
    /// waits. Should renew and redelivery both be here, the first that reopens the gate lets records through to a producer that
    /// the other is about to replace: they come back as purged.
    pub(super) fn replace_settled(&self, fresh: BaseProducer<Reports>, settled_by: Instant) {
        self.gate.shut();
        self.current().settle(settled_by);
        self.replace(fresh, None);
        self.gate.reopen();
    }

    /// The next suspect has a new one made.
    pub(super) fn retire_alone(&self) {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner).take();
        alone.into_iter().for_each(|alone| self.retire(alone, None));
    }

    /// Ends a producer that nobody is given any more, or ever was.
    pub(super) fn retire(&self, producer: Arc<Handle>, keeps_max: Option<Duration>) {
        self.retired.add(producer.retire(keeps_max));
    }

    /// Waits for the ends of those that were retired.
    pub(super) fn join_retired(&self, by: Instant) {
        self.retired.join_by(by);
    }
}
