//! A lane: one feed's producer, its gate and their counts. Feeds do not share a producer, as a record that Kafka
//! refuses stalls the other partitions of its producer.

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
    /// The label in metrics and logs.
    pub label: String,
    /// The lane's own topic.
    pub topic: String,
    /// Further topics, for some of its records.
    pub more_topics: Vec<String>,
    /// The policy for a record that its topic refuses.
    pub when_refused: WhenRefused,
}

/// The policy for a record that its topic refuses while it is alone in its batch, so that no other record can be at
/// fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenRefused {
    /// The record's body goes to the dead letters, and their receipt answers the sender.
    DeadLetter,
    /// The held requests get [`Undelivered::Refused`](super::Undelivered::Refused).
    Refuse,
    /// The record is tried again, as after any other fault: no other topic could take it.
    TryAgain,
}

pub(super) struct Lane {
    pub(super) id: LaneId,
    pub(super) label: String,
    /// The lane's own topic.
    pub(super) topic: TopicId,
    /// All topics: the lane's own, then the further ones.
    pub(super) topics: Vec<TopicId>,
    pub(super) when_refused: WhenRefused,
    pub(super) connection: Connection,
    pub(super) counts: Arc<Counts>,
    gate: Gate,
    /// Replaced when it can send nothing more (`health.rs`), and when passwords or certificates have changed.
    producer: RwLock<Arc<Handle>>,
    /// The producer of suspects, one record to a batch; made for the first suspect.
    alone: Mutex<Option<Arc<Handle>>>,
    retired: Several,
    failed: mpsc::Sender<Failed>,
    redelivered: IntCounter,
    /// The producer sent nothing though it had records and could reach each leader, and its successor has not reported
    /// any record yet.
    own_fault: AtomicBool,
}

/// The parts that all lanes share.
pub(super) struct Shared<'a> {
    pub(super) connection: &'a Connection,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) failed: mpsc::Sender<Failed>,
    /// The thread of `pace.rs`, which opens the gates.
    pub(super) opener: Thread,
    pub(super) drained: Arc<Drained>,
}

impl Lane {
    /// # Errors
    /// librdkafka refuses the configuration, or no number is left for the lane or a topic.
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

    /// Counts a new record, until the returned guard is dropped.
    pub(super) fn begin(&self) -> Outstanding {
        let (outstanding, before) = self.counts.begin();
        if before == 0 {
            self.gate.wake();
        }
        outstanding
    }

    /// Takes a record for its first attempt.
    pub(super) fn produce(&self, outgoing: Outgoing) {
        self.gate.pass(outgoing, |outgoing| self.hand_over(outgoing));
    }

    /// Opens the gate for its gathered records, if they may leave.
    pub(super) fn open_if_due(&self, now: Instant) {
        if self.gate.is_due(now) {
            self.gate.open(|outgoing| self.hand_over(outgoing));
        }
    }

    /// Gives a record to librdkafka. If librdkafka refuses it, redelivery decides its fate.
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
            // If redelivery has ended with the process, the parcel's drop gives the record up.
            let _ = self.failed.send(Failed::Record { error, outgoing });
        }
    }

    /// Gives up the gate's gathered records.
    pub(super) fn clear(&self) {
        self.gate.clear().into_iter().for_each(|outgoing| outgoing.parcel.give_up());
    }

    /// Takes the delivery reports that librdkafka has, without waiting for more.
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

    /// The present producer.
    pub(super) fn current(&self) -> Arc<Handle> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn reports(&self) -> Reports {
        Reports::new(&self.counts, &self.failed, true)
    }

    /// The producer of suspects. Only the redelivery thread calls this, so no second one is created. The lock is not
    /// held while creating: the pace thread takes it for every lane.
    fn alone(&self) -> Result<Arc<Handle>, KafkaError> {
        if let Some(producer) = self.made_alone() {
            return Ok(producer);
        }
        let reports = Reports::new(&self.counts, &self.failed, false);
        let producer = Handle::new(create_patient(&self.connection, &self.connection.producer(true), reports)?);
        *self.alone.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// The producer of suspects, if one was made.
    pub(super) fn made_alone(&self) -> Option<Arc<Handle>> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts that a record is produced again.
    pub(super) fn redelivered(&self) {
        self.redelivered.inc();
    }

    /// Counts and logs that the producer is replaced.
    pub(super) fn replaced(&self, ailment: Ailment) {
        tracing::warn!(feed = self.label, reason = ailment.reason(), "{}: the producer is replaced", ailment.why());
        self.counts.replaced(ailment);
    }

    /// Whether the producer does not send its records, though it could.
    pub(super) fn is_at_fault(&self) -> bool {
        self.own_fault.load(Ordering::Relaxed)
    }

    pub(super) fn set_own_fault(&self, is: bool) {
        self.own_fault.store(is, Ordering::Relaxed);
    }

    /// Replaces the producer by `fresh`. The old one's records come back as purged and are produced again; the process
    /// ends when that takes longer than `keeps_max`.
    ///
    /// Two threads call this: redelivery (an ailment, a stall) and renew. Each takes out the producer that is current
    /// at that moment and retires it: in any order, no producer is retired twice, and none is forgotten.
    /// - Redelivery makes a producer, which takes some seconds for a probe. Meanwhile renew reads new passwords and
    ///   installs its own producer. Then redelivery installs the first one, which has the old passwords. If those are
    ///   no longer valid, its records stand still, and the next probe's producer has the new ones.
    /// - A request's thread borrows the old producer, which is then replaced; only after that the thread hands over its
    ///   record. The old producer is purged once no thread holds it (`handle.rs`), so that record comes back with the
    ///   others.
    pub(super) fn replace(&self, fresh: BaseProducer<Reports>, keeps_max: Option<Duration>) {
        let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        let old = mem::replace(&mut *current, Handle::new(fresh));
        drop(current);
        self.retire(old, keeps_max);
        self.retire_alone();
    }

    /// Replaces the producer as [`Self::replace`] does, after the old one has committed its records, at most until
    /// `settled_by`. New records wait at the gate meanwhile. If renew and redelivery are both here, the first to reopen
    /// the gate lets records through to a producer that the other is about to replace: those come back as purged.
    pub(super) fn replace_settled(&self, fresh: BaseProducer<Reports>, settled_by: Instant) {
        self.gate.shut();
        self.current().settle(settled_by);
        self.replace(fresh, None);
        self.gate.reopen();
    }

    /// Retires the producer of suspects; the next suspect has a new one made.
    pub(super) fn retire_alone(&self) {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner).take();
        alone.into_iter().for_each(|alone| self.retire(alone, None));
    }

    /// Ends a producer that is not lent out any more, or never was.
    pub(super) fn retire(&self, producer: Arc<Handle>, keeps_max: Option<Duration>) {
        self.retired.add(producer.retire(keeps_max));
    }

    /// Waits for the ends of the retired producers.
    pub(super) fn join_retired(&self, by: Instant) {
        self.retired.join_by(by);
    }
}
