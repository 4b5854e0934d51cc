//! One producer per feed (a lane): records in, delivery reports out, each as a [`Receipt`](super::Receipt).

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    thread::Thread,
    time::{Duration, Instant},
};

use prometheus::IntCounter;
use rdkafka::{
    error::KafkaError,
    producer::{BaseProducer, Producer as _, PurgeConfig},
};
use tokio::sync::oneshot;

use super::{
    Connection, Undelivered,
    client::create_patient,
    health::Ailment,
    letter::Letter,
    pace::{self, Gate},
    redelivery::{self, Failed},
    renew,
    reports::{Counts, Fate, Parcel, Reports},
    token, watch,
    window::{Entered, Key, Outcome, Ticket, Window},
};
use crate::{
    metrics::Metrics,
    quota::Share,
    record::{Origin, Record, Refused},
};

/// How long a committed event is remembered beyond `message.timeout.ms`, the longest that its sender tries.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// All lanes; the last one is the dead letters'.
pub struct Producers {
    pub(super) lanes: Vec<Lane>,
    pub(super) message_timeout: Duration,
    pub(super) window: Arc<Window>,
    redelivery: mpsc::Sender<Failed>,
}

/// What a lane is for.
#[derive(Debug, Clone)]
pub struct LaneSpec {
    pub label: String,
    pub topics: Vec<String>,
}

/// One feed's producer. A record that Kafka refuses stalls the other partitions of its producer, so feeds do not share one.
pub(super) struct Lane {
    pub(super) label: String,
    pub(super) topics: Vec<&'static str>,
    pub(super) gate: Gate,
    /// Replaced when it can send nothing more (`health.rs`), and when passwords or certificates have changed.
    pub(super) producer: RwLock<Arc<BaseProducer<Reports>>>,
    /// Produces suspects one to a batch; made at the first one.
    pub(super) alone: Mutex<Option<Arc<BaseProducer<Reports>>>>,
    pub(super) connection: Connection,
    pub(super) counts: Arc<Counts>,
    pub(super) failed: mpsc::Sender<Failed>,
    pub(super) redelivered: IntCounter,
    pub(super) undelivered: IntCounter,
    /// Its producer sent nothing though it had records and could reach each leader, and the one after it has not reported any yet.
    own_fault: AtomicBool,
}

/// A body that was let in, with the room that was taken for it.
pub struct Accepted {
    pub body: Arc<[u8]>,
    pub origin: Origin,
    pub bytes: Share,
}

/// Where the receipt of an accepted event will be, or is. Dropping it changes nothing: the record lives on.
pub enum Pending {
    Waiting(oneshot::Receiver<Outcome>),
    /// It was committed before this attempt came, or nobody waits any more.
    Decided(Outcome),
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Waiting(answer) => {
                Pin::new(answer).poll(context).map(|done| done.unwrap_or(Err(Undelivered::GivenUp)))
            }
            Self::Decided(outcome) => Poll::Ready(*outcome),
        }
    }
}

impl Producers {
    /// Makes a producer for each of `lanes`, the dead letters' last. Connects in the background.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn start(
        connection: &Connection,
        lanes: &[LaneSpec],
        message_timeout: Duration,
        dedupe_bytes_max: usize,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>, KafkaError> {
        #[allow(clippy::disallowed_methods, reason = "bounded by queue_bytes_max: every record in it holds its share")]
        let (failed, failures) = mpsc::channel();
        let (to_opener, paced) = mpsc::sync_channel(1);
        let opener = pace::start(paced);
        // What changes from here on is noticed.
        let files = renew::files(connection);
        let last = lanes.len().saturating_sub(1);
        let lanes = lanes
            .iter()
            .enumerate()
            .map(|(index, spec)| Lane::new(index, spec, index == last, connection, metrics, &failed, &opener))
            .collect::<Result<Vec<_>, _>>()?;
        let topics = lanes.iter().flat_map(|lane| lane.topics.iter().copied()).collect();
        let window = Window::new(topics, dedupe_bytes_max, message_timeout + REMEMBERED_FOR, metrics);
        let producers = Arc::new(Self { lanes, message_timeout, window, redelivery: failed });
        redelivery::start(&producers, failures);
        let _ = to_opener.send(Arc::downgrade(&producers));
        renew::start(&producers, connection, files, metrics);
        token::start(&producers, connection, metrics);
        Ok(producers)
    }

    /// Looks whether an event is on its way already, or was committed of late.
    pub fn enter(&self, key: Key) -> Entered {
        self.window.enter(key)
    }

    /// The same for a dead letter, known by its body's hash alone.
    pub fn enter_dead_letter(&self, body_hash: u128) -> Entered {
        self.window.enter(Key::dead_letter(self.dead_letter_lane(), body_hash))
    }

    /// For a record that is like no other, such as a stub.
    pub fn enter_alone(&self) -> Entered {
        self.window.alone()
    }

    /// Ends the wait for all receipts; what is under way goes on.
    pub fn dismiss(&self) {
        self.window.dismiss();
    }

    /// Hands an event's `record` to the producer of `lane`, for the topic at this position of the lane's. Every fault of
    /// Kafka's is waited out.
    pub fn send_event(&self, lane: usize, topic: usize, record: &Record, accepted: Accepted, ticket: Ticket) {
        self.send(lane, topic, record, accepted, Fate::Event, ticket);
    }

    /// Hands a dead letter to its producer; `record` was filled by [`Record::fill_dead_letter`].
    pub fn send_dead_letter(
        &self,
        record: &Record,
        refused: &Refused<'_>,
        feed: Option<&str>,
        accepted: Accepted,
        ticket: Ticket,
    ) {
        let fate = Fate::DeadLetter { stage: refused.stage(), feed: feed.map(str::to_owned) };
        self.send(self.dead_letter_lane(), 0, record, accepted, fate, ticket);
    }

    fn send(&self, lane: usize, topic: usize, record: &Record, accepted: Accepted, fate: Fate, ticket: Ticket) {
        let lane = self.lanes.get(lane).and_then(|lane| Some((lane, lane.topics.get(topic)?)));
        if let Some((lane, topic)) = lane {
            #[cfg(feature = "sabotage")]
            let ticket = super::sabotage::hand_over(ticket, topic);
            let parcel = Parcel::new(topic, accepted, fate, ticket);
            lane.produce(Letter::new(record, parcel));
        }
    }

    pub(super) fn dead_letter_lane(&self) -> usize {
        self.lanes.len().saturating_sub(1)
    }

    /// Records that are not committed yet.
    pub fn outstanding(&self) -> usize {
        self.lanes.iter().map(|lane| lane.counts.outstanding()).sum()
    }

    /// The lanes whose producer does not send its records though it could.
    pub fn at_fault(&self) -> Vec<&str> {
        let lanes = self.lanes.iter().filter(|lane| lane.own_fault.load(Ordering::Relaxed));
        lanes.map(|lane| lane.label.as_str()).collect()
    }

    /// Waits until every record is committed, at most until `deadline`; then gives the rest up.
    ///
    /// Returns how many were given up. Blocks.
    pub fn drain(&self, deadline: Instant) -> usize {
        while self.outstanding() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let left = self.outstanding();
        let _ = self.redelivery.send(Failed::GiveUp);
        for lane in &self.lanes {
            for letter in lane.gate.clear() {
                letter.parcel.give_up(lane);
            }
        }
        left
    }

    /// Ends the producers, as far as that goes until `deadline`: one whose thread waits for a name to be resolved
    /// ends when that is over, and cannot be hurried. Blocks.
    pub fn close(self: Arc<Self>, deadline: Instant) {
        let (ended, end) = mpsc::sync_channel(1);
        watch::spawn("close", move || {
            while Arc::strong_count(&self) > 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(self);
            let _ = ended.send(());
        });
        let _ = end.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Lane {
    fn new(
        index: usize,
        spec: &LaneSpec,
        dead_letter: bool,
        connection: &Connection,
        metrics: &Arc<Metrics>,
        failed: &mpsc::Sender<Failed>,
        opener: &Thread,
    ) -> Result<Self, KafkaError> {
        let label = [spec.label.as_str()];
        let counts = Counts::new(index, &spec.label, dead_letter, metrics);
        let reports = Reports::new(&counts, failed, true);
        let client = connection.producer(false);
        #[cfg(feature = "sabotage")]
        let client = super::sabotage::first_producer(client);
        Ok(Self {
            label: spec.label.clone(),
            topics: spec.topics.iter().map(|topic| &*topic.clone().leak()).collect(),
            gate: Gate::new(opener, &counts, connection.request_timeout().min(connection.answer_by() / 2)),
            producer: RwLock::new(Arc::new(create_patient(connection, &client, reports)?)),
            alone: Mutex::default(),
            connection: connection.clone(),
            counts,
            failed: failed.clone(),
            redelivered: metrics.redelivered.with_label_values(&label),
            undelivered: metrics.undelivered.with_label_values(&label),
            own_fault: AtomicBool::new(false),
        })
    }

    /// Takes a record over for the first time.
    pub(super) fn produce(&self, letter: Letter) {
        if self.counts.begin() == 0 {
            self.gate.wake();
        }
        self.gate.pass(letter, |letter| self.hand_over(letter));
    }

    /// Gives a letter to librdkafka. What it refuses is redelivery's to decide.
    pub(super) fn hand_over(&self, letter: Letter) {
        self.counts.hand_over();
        let sent = if letter.parcel.alone {
            match self.alone() {
                Ok(producer) => letter.hand_over(&producer),
                Err(error) => Err((error, letter)),
            }
        } else {
            letter.hand_over(&self.current())
        };
        if let Err((error, letter)) = sent {
            self.counts.report();
            // The receiver lives as long as the process: redelivery never ends.
            let _ = self.failed.send(Failed::Record { lane: self.counts.lane(), error, letter });
        }
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

    pub(super) fn current(&self) -> Arc<BaseProducer<Reports>> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn reports(&self) -> Reports {
        Reports::new(&self.counts, &self.failed, true)
    }

    /// Only redelivery asks for it, so nobody else makes one meanwhile; and all gates wait for who holds the lock.
    fn alone(&self) -> Result<Arc<BaseProducer<Reports>>, KafkaError> {
        if let Some(producer) = self.made_alone() {
            return Ok(producer);
        }
        let reports = Reports::new(&self.counts, &self.failed, false);
        let producer = Arc::new(create_patient(&self.connection, &self.connection.producer(true), reports)?);
        *self.alone.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// The producer of suspects, if there has been one.
    pub(super) fn made_alone(&self) -> Option<Arc<BaseProducer<Reports>>> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts and tells that a producer is replaced.
    pub(super) fn replaced(&self, ailment: Ailment) {
        tracing::warn!(feed = self.label, reason = ailment.reason(), "{}: the producer is replaced", ailment.why());
        self.counts.replaced(ailment);
    }

    pub(super) fn set_own_fault(&self, is: bool) {
        self.own_fault.store(is, Ordering::Relaxed);
    }

    /// Puts `fresh` in the producer's place. What the old one still held comes back as purged and is produced again; the
    /// process ends when that takes longer than `keeps_max`.
    pub(super) fn replace(&self, fresh: BaseProducer<Reports>, keeps_max: Option<Duration>) {
        let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        let old = mem::replace(&mut *current, Arc::new(fresh));
        drop(current);
        retire(old, keeps_max);
        self.retire_alone();
    }

    /// The same, once the old one has committed what it has, as far as that goes until `settled_by`. What comes meanwhile
    /// waits.
    pub(super) fn replace_settled(&self, fresh: BaseProducer<Reports>, settled_by: Instant) {
        self.gate.shut();
        settle(&self.current(), settled_by);
        self.replace(fresh, None);
        self.gate.reopen();
    }

    /// The next suspect has a new one made.
    pub(super) fn retire_alone(&self) {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner).take();
        alone.into_iter().for_each(|alone| retire(alone, None));
    }
}

/// Waits until the producer has reported all that it holds, at most until `settled_by`.
pub(super) fn settle(producer: &BaseProducer<Reports>, settled_by: Instant) {
    while producer.in_flight_count() > 0 && Instant::now() < settled_by {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a producer that nobody is given any more, on a thread of its own: its broker threads may be waiting for a name
/// to be resolved.
///
/// It is asked until all that it held has been reported: what it keeps beyond its end would never be. One of which it is known
/// that Kafka is not why has `keeps_max` for it, as its records cannot be produced again before.
pub(super) fn retire(producer: Arc<BaseProducer<Reports>>, keeps_max: Option<Duration>) {
    let asked = Instant::now();
    watch::spawn("retire", move || {
        while Arc::strong_count(&producer) > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        while producer.in_flight_count() > 0 {
            producer.purge(PurgeConfig::default().queue().inflight().non_blocking());
            producer.poll(Duration::from_millis(100));
            if keeps_max.is_some_and(|max| asked.elapsed() > max) {
                watch::end("a producer that was replaced does not give back the records that it holds");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, kafka::embedded::EmbeddedBroker, quota::Quota};

    /// librdkafka reports what it gives back partition by partition, and stops where its end comes first.
    #[test]
    fn a_producer_that_is_replaced_reports_all_that_it_held() {
        const RECORDS: usize = 100_000;
        let broker = EmbeddedBroker::start().unwrap();
        broker.create_topic("feed", 12).unwrap();
        let text = format!("[ingress.tls]\nclient_names = ['*']\n[kafka]\nbrokers = ['{}']\n", broker.brokers());
        let connection = Connection::new(&config::from_toml(&text).unwrap());
        let lanes = ["feed", "dead-letter"].map(|label| LaneSpec { label: label.into(), topics: vec![label.into()] });
        let metrics = Arc::new(Metrics::new().unwrap());
        let producers = Producers::start(&connection, &lanes, Duration::from_secs(600), 0, &metrics).unwrap();
        let lane = &producers.lanes[0];
        let room = Quota::new(RECORDS);
        let hand_over = |number: usize| {
            let origin = Origin {
                received_at: 0,
                sender: "".into(),
                content_type: None,
                content_encoding: None,
                traceparent: None,
                tracestate: None,
                attempts: 0,
            };
            let accepted = Accepted { body: [].into(), origin, bytes: room.take(1).unwrap() };
            let Entered::First(ticket, _) = producers.enter_alone() else { unreachable!() };
            let mut record = Record::default();
            record.begin(Some(number.to_string().as_bytes()), 1);
            (0..7).for_each(|_| record.header("name", b"value"));
            lane.counts.begin();
            lane.hand_over(Letter::new(&record, Parcel::new("feed", accepted, Fate::Event, ticket)));
        };
        // Long before those that were produced again are reported too, at their `message.timeout.ms`.
        let wait_reported = |records: usize| {
            let started = Instant::now();
            while lane.counts.reported() < records {
                assert!(started.elapsed() < Duration::from_secs(20), "{} of {records}", lane.counts.reported());
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        // From then on the partitions are known, and nobody takes what comes for them.
        hand_over(0);
        wait_reported(1);
        drop(broker);
        (1..RECORDS).for_each(hand_over);
        lane.replace(create_patient(&connection, &connection.producer(false), lane.reports()).unwrap(), None);
        wait_reported(RECORDS);
        assert_eq!(lane.counts.outstanding(), RECORDS - 1, "they go on");
        assert_eq!(room.taken(), RECORDS - 1);
    }
}
