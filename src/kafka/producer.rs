//! One producer per feed (a lane): records in, delivery reports out, each as a [`Receipt`].

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use prometheus::{Histogram, IntCounter, IntGauge};
use rdkafka::{
    ClientContext, Message, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer},
    util::Timeout,
};
use tokio::sync::oneshot;

use super::{
    Connection, Receipt, Undelivered,
    redelivery::{self, Failed},
};
use crate::{
    metrics::{Metrics, ProducerMetrics},
    quota::Share,
    record::{Origin, Record, Refused},
};

/// All lanes; the last one is the dead letters'.
pub struct Producers {
    pub(super) lanes: Vec<Lane>,
    pub(super) message_timeout: Duration,
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
    pub(super) topics: Vec<Arc<str>>,
    /// Replaced when librdkafka calls an error fatal.
    pub(super) producer: std::sync::RwLock<Arc<ThreadedProducer<Reports>>>,
    /// Produces suspects one to a batch; made at the first one.
    pub(super) alone: OnceLock<ThreadedProducer<Reports>>,
    pub(super) connection: Connection,
    pub(super) counts: Arc<Counts>,
    pub(super) failed: mpsc::Sender<Failed>,
    pub(super) redelivered: IntCounter,
    pub(super) undelivered: IntCounter,
}

/// What a lane's delivery reports count.
pub(super) struct Counts {
    lane: usize,
    label: String,
    records: IntGauge,
    outstanding: AtomicUsize,
    committed: Committed,
    metrics: Arc<Metrics>,
}

enum Committed {
    Feed { committed: IntCounter, late: IntCounter, seconds: Histogram },
    DeadLetter,
}

/// A record on its way to the broker: everything that its delivery report needs.
pub(super) struct Parcel {
    /// The body as it was posted, for the dead letter should the topic refuse its record.
    pub(super) body: Bytes,
    pub(super) origin: Origin,
    pub(super) topic: Arc<str>,
    pub(super) fate: Fate,
    pub(super) accepted: Instant,
    pub(super) attempts: u32,
    /// Produced in a batch of its own: what is refused now is refused for itself.
    pub(super) alone: bool,
    done: Option<oneshot::Sender<Result<Receipt, Undelivered>>>,
    _bytes: Share,
}

/// What a parcel's record is.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    Event,
    DeadLetter { stage: &'static str, feed: Option<String> },
}

/// librdkafka's local queue would not take the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the producer's queue is full")]
pub struct QueueFull;

/// A record that was handed to Kafka. Dropping it changes nothing: the record lives on.
pub struct Pending(oneshot::Receiver<Result<Receipt, Undelivered>>);

impl Future for Pending {
    type Output = Result<Receipt, Undelivered>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|done| done.unwrap_or(Err(Undelivered)))
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
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>, KafkaError> {
        #[allow(clippy::disallowed_methods, reason = "bounded by queue_bytes_max: every record in it holds its share")]
        let (failed, failures) = mpsc::channel();
        let last = lanes.len().saturating_sub(1);
        let lanes = lanes
            .iter()
            .enumerate()
            .map(|(index, spec)| Lane::new(index, spec, index == last, connection, metrics, &failed))
            .collect::<Result<Vec<_>, _>>()?;
        let producers = Arc::new(Self { lanes, message_timeout, redelivery: failed });
        redelivery::start(&producers, failures);
        Ok(producers)
    }

    /// Hands an event's `record` to the producer of `lane`.
    ///
    /// # Errors
    /// [`QueueFull`]: nothing was handed over. Every other fault of Kafka's is waited out.
    pub fn send_event(
        &self,
        lane: usize,
        topic: usize,
        record: &Record,
        body: Bytes,
        origin: Origin,
        bytes: Share,
    ) -> Result<Pending, QueueFull> {
        self.send(lane, topic, record, body, origin, bytes, Fate::Event)
    }

    /// Hands a dead letter to its producer; `record` was filled by [`Record::fill_dead_letter`].
    ///
    /// # Errors
    /// [`QueueFull`]: nothing was handed over.
    pub fn send_dead_letter(
        &self,
        record: &Record,
        refused: &Refused<'_>,
        feed: Option<&str>,
        body: Bytes,
        origin: Origin,
        bytes: Share,
    ) -> Result<Pending, QueueFull> {
        let fate = Fate::DeadLetter { stage: refused.stage(), feed: feed.map(str::to_owned) };
        self.send(self.dead_letter_lane(), 0, record, body, origin, bytes, fate)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one parcel, named by its two callers")]
    fn send(
        &self,
        lane: usize,
        topic: usize,
        record: &Record,
        body: Bytes,
        origin: Origin,
        bytes: Share,
        fate: Fate,
    ) -> Result<Pending, QueueFull> {
        let Some((lane, topic)) = self.lanes.get(lane).and_then(|lane| Some((lane, lane.topics.get(topic)?))) else {
            return Err(QueueFull);
        };
        let (done, pending) = oneshot::channel();
        let parcel = Box::new(Parcel {
            body,
            origin,
            topic: Arc::clone(topic),
            fate,
            accepted: Instant::now(),
            attempts: 0,
            alone: false,
            done: Some(done),
            _bytes: bytes,
        });
        lane.produce(record, parcel)?;
        Ok(Pending(pending))
    }

    pub(super) fn dead_letter_lane(&self) -> usize {
        self.lanes.len().saturating_sub(1)
    }

    /// Records that are not committed yet.
    pub fn outstanding(&self) -> usize {
        self.lanes.iter().map(|lane| lane.counts.outstanding.load(Ordering::Acquire)).sum()
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
            lane.purge();
        }
        left
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
    ) -> Result<Self, KafkaError> {
        let label = [spec.label.as_str()];
        let committed = if dead_letter {
            Committed::DeadLetter
        } else {
            Committed::Feed {
                committed: metrics.committed.with_label_values(&label),
                late: metrics.committed_late.with_label_values(&label),
                seconds: metrics.commit_seconds.with_label_values(&label),
            }
        };
        let counts = Arc::new(Counts {
            lane: index,
            label: spec.label.clone(),
            records: metrics.queue_records.with_label_values(&label),
            outstanding: AtomicUsize::new(0),
            committed,
            metrics: Arc::clone(metrics),
        });
        let reports = Reports { counts: Arc::clone(&counts), failed: failed.clone() };
        Ok(Self {
            label: spec.label.clone(),
            topics: spec.topics.iter().map(|topic| Arc::from(topic.as_str())).collect(),
            producer: std::sync::RwLock::new(Arc::new(connection.producer(false).create_with_context(reports)?)),
            alone: OnceLock::new(),
            connection: connection.clone(),
            counts,
            failed: failed.clone(),
            redelivered: metrics.redelivered.with_label_values(&label),
            undelivered: metrics.undelivered.with_label_values(&label),
        })
    }

    fn produce(&self, record: &Record, parcel: Box<Parcel>) -> Result<(), QueueFull> {
        let mut headers = OwnedHeaders::new_with_capacity(10);
        for (key, value) in record.headers.iter() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let topic = Arc::clone(&parcel.topic);
        let mut message = BaseRecord::<[u8], [u8], _>::with_opaque_to(&topic, parcel)
            .payload(record.value.as_slice())
            .headers(headers)
            .timestamp(record.timestamp);
        if let Some(key) = &record.key {
            message = message.key(key.as_slice());
        }
        self.hand_over(message)
    }

    /// Takes over a parcel whose event's topic refused it. Not a first attempt: a full queue is waited out.
    pub(super) fn accept_dead_letter(&self, record: &Record, mut parcel: Box<Parcel>) {
        self.counts.begin();
        parcel.attempts = 1;
        let _ = self.produce(record, parcel);
    }

    /// Gives a message to librdkafka. What it refuses for now is tried again by redelivery; only a full queue is the caller's.
    pub(super) fn hand_over(&self, message: BaseRecord<'_, [u8], [u8], Box<Parcel>>) -> Result<(), QueueFull> {
        let first = message.delivery_opaque.attempts == 0;
        if first {
            self.counts.begin();
        }
        let sent = if message.delivery_opaque.alone {
            match self.alone() {
                Ok(producer) => producer.send(message),
                Err(error) => Err((error, message)),
            }
        } else {
            self.current().send(message)
        };
        let Err((error, message)) = sent else { return Ok(()) };
        if first && error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
            self.counts.end();
            return Err(QueueFull);
        }
        let failed = Failed::Record { lane: self.counts.lane, error, letter: redelivery::Letter::of(message) };
        // The receiver lives as long as the process: redelivery never ends.
        let _ = self.failed.send(failed);
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<ThreadedProducer<Reports>> {
        Arc::clone(&self.producer.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(super) fn reports(&self) -> Reports {
        Reports { counts: Arc::clone(&self.counts), failed: self.failed.clone() }
    }

    fn alone(&self) -> Result<&ThreadedProducer<Reports>, KafkaError> {
        if self.alone.get().is_none() {
            let producer = self.connection.producer(true).create_with_context(self.reports())?;
            let _ = self.alone.set(producer);
        }
        self.alone.get().ok_or(KafkaError::Canceled)
    }

    fn purge(&self) {
        let everything = || PurgeConfig::default().queue().inflight();
        self.current().purge(everything());
        if let Some(alone) = self.alone.get() {
            alone.purge(everything());
        }
        let _ = self.current().flush(Timeout::After(Duration::from_millis(500)));
    }
}

impl Counts {
    fn begin(&self) {
        self.outstanding.fetch_add(1, Ordering::AcqRel);
        self.records.inc();
    }

    pub(super) fn end(&self) {
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
        self.records.dec();
    }
}

/// The delivery reports of one lane, on librdkafka's polling thread.
pub(super) struct Reports {
    counts: Arc<Counts>,
    failed: mpsc::Sender<Failed>,
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Parcel>;

    fn delivery(&self, result: &DeliveryResult<'_>, parcel: Box<Parcel>) {
        match result {
            Ok(message) => {
                // The one place where a receipt is made. Librdkafka gives no offset after "duplicate sequence".
                let offset = Some(message.offset()).filter(|offset| *offset >= 0);
                let receipt = Receipt { topic: Arc::clone(&parcel.topic), partition: message.partition(), offset };
                parcel.committed(receipt, &self.counts);
            }
            Err((error, message)) => {
                let letter = redelivery::Letter { message: message.detach(), parcel };
                let _ = self.failed.send(Failed::Record { lane: self.counts.lane, error: error.clone(), letter });
            }
        }
    }
}

impl Parcel {
    fn committed(mut self: Box<Self>, receipt: Receipt, counts: &Counts) {
        let elapsed = self.accepted.elapsed();
        // Counted before it is answered, so that who was answered finds it counted.
        match (&counts.committed, &self.fate) {
            (Committed::Feed { committed, seconds, .. }, _) => {
                committed.inc();
                seconds.observe(elapsed.as_secs_f64());
            }
            (Committed::DeadLetter, Fate::DeadLetter { stage, feed }) => {
                let feed = feed.as_deref().unwrap_or("unknown");
                counts.metrics.dead_letters.with_label_values(&[feed, stage]).inc();
            }
            (Committed::DeadLetter, Fate::Event) => {}
        }
        counts.end();
        let answered = self.done.take().is_some_and(|done| done.send(Ok(receipt)).is_ok());
        if let (false, Committed::Feed { late, .. }) = (answered, &counts.committed) {
            late.inc();
        }
    }

    pub(super) fn give_up(mut self: Box<Self>, lane: &Lane) {
        lane.undelivered.inc();
        lane.counts.end();
        if let Some(done) = self.done.take() {
            let _ = done.send(Err(Undelivered));
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log(&self.counts.label, level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(producer = self.counts.label, %error, reason, "Kafka client error");
        if let KafkaError::Global(RDKafkaErrorCode::Fatal) = error {
            let _ = self.failed.send(Failed::Fatal { lane: self.counts.lane });
        }
    }

    fn stats(&self, statistics: Statistics) {
        observe(&self.counts.metrics.producer, &self.counts.label, &statistics);
    }
}

pub(super) fn log(client: &str, level: RDKafkaLogLevel, fac: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(client, fac, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(client, fac, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(client, fac, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(client, fac, "{message}"),
    }
}

fn observe(gauges: &ProducerMetrics, producer: &str, statistics: &Statistics) {
    let label = [producer];
    let brokers = || statistics.brokers.values();
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for (gauge, value) in [
        (&gauges.messages, count(statistics.msg_cnt)),
        (&gauges.bytes, count(statistics.msg_size)),
        (&gauges.sent_messages, statistics.txmsgs),
        (&gauges.sent_bytes, statistics.txmsg_bytes),
        (&gauges.requests, statistics.tx),
        (
            &gauges.brokers_up,
            count(brokers().filter(|broker| broker.nodeid >= 0 && broker.state == "UP").count() as u64),
        ),
        (
            &gauges.round_trip_us,
            brokers().filter_map(|broker| broker.rtt.as_ref().map(|rtt| rtt.p99)).max().unwrap_or(0),
        ),
        (&gauges.retries, count(brokers().map(|broker| broker.txretries).sum())),
        (&gauges.errors, count(brokers().map(|broker| broker.txerrs).sum())),
        (&gauges.timeouts, count(brokers().map(|broker| broker.req_timeouts).sum())),
        (&gauges.outbuf_requests, brokers().map(|broker| broker.outbuf_cnt.max(0) + broker.waitresp_cnt.max(0)).sum()),
    ] {
        gauge.with_label_values(&label).set(value);
    }
}
