//! Judges from a producer's statistics and delivery reports whether it can still send.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    Statistics,
    error::RDKafkaErrorCode,
    statistics::{Broker, Partition},
};

/// Why a producer is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ailment {
    Fatal,
    NoBroker,
    EpochRefused,
    EpochsUsedUp,
    StandsStill,
}

impl Ailment {
    pub(super) const ALL: [Self; 5] =
        [Self::Fatal, Self::NoBroker, Self::EpochRefused, Self::EpochsUsedUp, Self::StandsStill];

    /// The metric's `reason`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::NoBroker => "no_broker",
            Self::EpochRefused => "epoch_refused",
            Self::EpochsUsedUp => "epochs_used_up",
            Self::StandsStill => "stands_still",
        }
    }

    /// The text for the log.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Fatal => "fatal producer error",
            Self::NoBroker => "the cluster named none of its brokers, and librdkafka forgot them all",
            Self::EpochRefused => "a broker does not take this producer's epoch or sequence any more",
            Self::EpochsUsedUp => "this producer's epochs are nearly used up",
            Self::StandsStill => "records stand still though Kafka could store them, as a new client found",
        }
    }
}

/// Each refused batch costs an idempotent producer an epoch (KIP-360), and a producer id has 32,767 of them. After that
/// librdkafka begins with 0 again, which brokers refuse for good. The limit is far below, as an epoch takes one round
/// trip and statistics come each 5 s.
const EPOCH_MAX: i64 = 8192;

/// The number of statistics in a row (one each 5 s) for which a partition may stand still while its broker owes an
/// answer. A request ends with `socket.timeout.ms`, at most 10 s, and so does the next one. A replica that hangs holds
/// up every producer for 30 s, until its leader does without it (`replica.lag.time.max.ms`).
const UNANSWERED_MAX: u32 = 8;

/// The health of one producer.
#[derive(Default)]
pub(super) struct Health {
    no_broker: AtomicBool,
    epoch_refused: AtomicBool,
    epochs_used_up: AtomicBool,
    stands_still: AtomicBool,
    sends_nothing: AtomicBool,
    flow: Mutex<Flow>,
}

/// The state at the last statistics.
#[derive(Default)]
struct Flow {
    /// Partitions with records that came back since then: those do not stand still.
    failed: HashSet<(String, i32)>,
    partitions: HashMap<(String, i32), Course>,
    /// The number of responses by broker.
    answers: HashMap<i32, u64>,
    produce_requests: i64,
    throttled_until: Option<Instant>,
}

/// The progress of a partition's records.
#[derive(Default)]
struct Course {
    acked: u64,
    /// Records up to this number came back, or may have.
    settled: u64,
    waited: bool,
    /// The number of statistics in a row with waiting records, none of them acknowledged.
    still: u32,
}

impl Health {
    /// Takes note of a record that came back.
    pub(super) fn failed(&self, topic: &str, partition: i32, code: Option<RDKafkaErrorCode>) {
        self.flow().failed.insert((topic.to_owned(), partition));
        // The broker and the producer disagree on the producer's state, and will for the next record too.
        let refused = matches!(
            code,
            Some(
                RDKafkaErrorCode::InvalidProducerEpoch
                    | RDKafkaErrorCode::OutOfOrderSequenceNumber
                    | RDKafkaErrorCode::UnknownProducerId
                    | RDKafkaErrorCode::InvalidProducerIdMapping
                    | RDKafkaErrorCode::ProducerFenced
            )
        );
        if refused {
            self.epoch_refused.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn observe(&self, statistics: &Statistics) {
        // The brokers of `bootstrap.servers` are listed from the beginning. librdkafka (since 2.10; its issue 5301)
        // forgets each broker that a metadata response does not name. If a response names none, as while the whole
        // cluster is fenced, no broker is left to ask again.
        self.no_broker.store(statistics.brokers.is_empty(), Ordering::Relaxed);
        let eos = statistics.eos.as_ref();
        self.epochs_used_up.store(eos.is_some_and(|eos| eos.producer_epoch >= EPOCH_MAX), Ordering::Relaxed);
        let mut flow = self.flow();
        let requests_before = flow.produce_requests;
        let Standing { any, connected } = flow.observe(statistics, Instant::now());
        self.stands_still.store(any, Ordering::Relaxed);
        // Without a producer id, which the cluster assigns, nothing can be sent.
        let may_send = connected && eos.is_some_and(|eos| eos.idemp_state == "Assigned");
        let sends_nothing = any && may_send && flow.produce_requests == requests_before;
        self.sends_nothing.store(sends_nothing, Ordering::Relaxed);
    }

    /// The reason why the producer can send nothing more, if one is certain.
    pub(super) fn ailment(&self) -> Option<Ailment> {
        [
            (&self.no_broker, Ailment::NoBroker),
            (&self.epoch_refused, Ailment::EpochRefused),
            (&self.epochs_used_up, Ailment::EpochsUsedUp),
        ]
        .into_iter()
        .find_map(|(is, ailment)| is.load(Ordering::Relaxed).then_some(ailment))
    }

    /// Whether a partition has waiting records of which none was acknowledged or came back for at least 5 s. The cause
    /// may be Kafka.
    pub(super) fn stands_still(&self) -> bool {
        self.stands_still.load(Ordering::Relaxed)
    }

    /// Whether the producer does not even try to send, though it could. No broker is the cause.
    pub(super) fn sends_nothing(&self) -> bool {
        self.sends_nothing.load(Ordering::Relaxed)
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A summary of the partitions that stand still.
struct Standing {
    any: bool,
    /// Whether the leader of each is connected.
    connected: bool,
}

impl Flow {
    fn observe(&mut self, statistics: &Statistics, now: Instant) -> Standing {
        let brokers: HashMap<i32, &Broker> =
            statistics.brokers.values().map(|broker| (broker.nodeid, broker)).collect();
        let throttled = self.is_throttled(statistics, now);
        let failed = std::mem::take(&mut self.failed);
        let mut standing = Standing { any: false, connected: true };
        for (topic, partition) in statistics
            .topics
            .values()
            .flat_map(|topic| topic.partitions.values().map(|partition| (topic.topic.clone(), partition)))
        {
            let broker = brokers.get(&partition.broker);
            let unanswered = broker.is_some_and(|broker| self.is_unanswered(broker));
            let key = (topic, partition.partition);
            let excused = throttled || failed.contains(&key);
            let still = self.partitions.entry(key).or_default().observe(partition, excused);
            if still > if unanswered { UNANSWERED_MAX } else { 0 } {
                standing.any = true;
                standing.connected &= broker.is_some_and(|broker| broker.state == "UP");
            }
        }
        self.answers = brokers.into_iter().map(|(id, broker)| (id, broker.rx)).collect();
        self.produce_requests = statistics.brokers.values().filter_map(|broker| broker.req.get("Produce")).sum();
        standing
    }

    /// Whether a broker throttles us: then librdkafka sends nothing for as long as the broker said.
    fn is_throttled(&mut self, statistics: &Statistics, now: Instant) -> bool {
        let throttles = statistics.brokers.values().filter_map(|broker| broker.throttle.as_ref());
        let longest =
            throttles.map(|throttle| u64::try_from(throttle.max).unwrap_or_default()).max().unwrap_or_default();
        if longest > 0 {
            self.throttled_until = self.throttled_until.max(Some(now + Duration::from_millis(longest)));
        }
        longest > 0 || self.throttled_until.is_some_and(|until| now < until)
    }

    /// Whether the broker owes an answer: for records, or for any request if it answered none since the last
    /// statistics.
    fn is_unanswered(&self, broker: &Broker) -> bool {
        let none_answered = self.answers.get(&broker.nodeid) == Some(&broker.rx);
        broker.state == "UP"
            && (broker.waitresp_msg_cnt > 0 || none_answered && broker.waitresp_cnt + broker.outbuf_cnt > 0)
    }
}

impl Course {
    /// Takes note of a partition's state; returns how often in a row the partition stood still.
    fn observe(&mut self, partition: &Partition, excused: bool) -> u32 {
        // Records without a known partition are never acknowledged under it. The records of a real partition are
        // numbered from 1.
        let unassigned = partition.partition < 0;
        if excused {
            self.settled = partition.msgs;
        }
        let waits =
            if unassigned { partition.msgq_cnt > 0 } else { partition.msgs > partition.acked_msgid.max(self.settled) };
        let stood = waits && self.waited && !excused && partition.acked_msgid == self.acked;
        self.still = if stood { self.still + 1 } else { 0 };
        self.waited = waits;
        self.acked = partition.acked_msgid;
        self.still
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::{ExactlyOnceSemantics, Topic, Window};

    use super::*;

    /// Statistics of one broker and one partition, with ten records of which five are acknowledged.
    fn statistics(change: impl FnOnce(&mut Statistics, &mut Broker, &mut Partition)) -> Statistics {
        let mut statistics = Statistics {
            eos: Some(ExactlyOnceSemantics { idemp_state: "Assigned".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let req = [("Produce".to_owned(), 7)].into();
        let mut broker = Broker { nodeid: 1, state: "UP".to_owned(), req, ..Default::default() };
        let mut partition = Partition { broker: 1, msgs: 10, acked_msgid: 5, ..Default::default() };
        change(&mut statistics, &mut broker, &mut partition);
        let topic = Topic { topic: "t".to_owned(), partitions: [(0, partition)].into(), ..Default::default() };
        statistics.topics.insert("t".to_owned(), topic);
        statistics.brokers.insert("b".to_owned(), broker);
        statistics
    }

    fn looks(change: impl Fn(&mut Statistics, &mut Broker, &mut Partition)) -> Vec<bool> {
        let health = Health::default();
        let looks = (0..UNANSWERED_MAX + 2).map(|_| {
            health.observe(&statistics(&change));
            health.stands_still()
        });
        looks.collect()
    }

    #[test]
    fn a_partition_stands_still_whose_records_are_not_acknowledged_between_two_looks() {
        assert_eq!(looks(|_, _, _| ())[..3], [false, true, true]);
        assert!(!looks(|_, _, partition| partition.acked_msgid = 10).contains(&true));
        let throttles = Some(Window { max: 10_000, ..Default::default() });
        let throttled = looks(|_, broker, _| broker.throttle.clone_from(&throttles));
        assert!(!throttled.contains(&true), "a broker that throttles has said so");
        let asked = looks(|_, broker, _| broker.waitresp_cnt = 1);
        assert_eq!(
            asked.iter().position(|stands| *stands),
            Some(UNANSWERED_MAX as usize + 1),
            "a request has its time"
        );
        assert!(looks(|_, _, partition| (partition.partition, partition.msgq_cnt) = (-1, 1))[1], "without a partition");
        assert!(!looks(|_, _, partition| partition.partition = -1).contains(&true), "they have one by now");
    }

    #[test]
    fn a_record_that_came_back_does_not_stand_still() {
        let health = Health::default();
        health.observe(&statistics(|_, _, _| ()));
        health.failed("t", 0, Some(RDKafkaErrorCode::TopicAuthorizationFailed));
        for _ in 0..3 {
            health.observe(&statistics(|_, _, _| ()));
            assert!(!health.stands_still() && health.ailment().is_none());
        }
        for _ in 0..2 {
            health.observe(&statistics(|_, _, partition| partition.msgs = 11));
        }
        assert!(health.stands_still() && health.sends_nothing(), "another one came, and was never sent");
    }

    #[test]
    fn an_ailment_is_seen() {
        let health = Health::default();
        let ailment = |statistics: Statistics| {
            health.observe(&statistics);
            health.ailment()
        };
        assert_eq!(ailment(statistics(|_, _, _| ())), None);
        let used_up = |statistics: &mut Statistics, _: &mut Broker, _: &mut Partition| {
            statistics.eos.as_mut().unwrap().producer_epoch = EPOCH_MAX;
        };
        assert_eq!(ailment(statistics(used_up)), Some(Ailment::EpochsUsedUp));
        assert_eq!(ailment(Statistics::default()), Some(Ailment::NoBroker));
        health.failed("t", 0, Some(RDKafkaErrorCode::InvalidProducerEpoch));
        assert_eq!(ailment(statistics(|_, _, _| ())), Some(Ailment::EpochRefused));
    }
}
