//! One producer per feed (a lane): records in, delivery reports out, each as a [`Receipt`].

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock, PoisonError, RwLock, mpsc},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use prometheus::IntCounter;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer},
    util::Timeout,
};
use tokio::sync::oneshot;

use super::{
    Connection, Receipt, Undelivered,
    redelivery::{self, Failed},
    reports::{Counts, Fate, Parcel, Reports},
};
use crate::{
    metrics::Metrics,
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
    pub(super) producer: RwLock<Arc<ThreadedProducer<Reports>>>,
    /// Produces suspects one to a batch; made at the first one.
    pub(super) alone: OnceLock<ThreadedProducer<Reports>>,
    pub(super) connection: Connection,
    pub(super) counts: Arc<Counts>,
    pub(super) failed: mpsc::Sender<Failed>,
    pub(super) redelivered: IntCounter,
    pub(super) undelivered: IntCounter,
}

/// A body that was let in, with the room that was taken for it.
pub struct Accepted {
    pub body: Bytes,
    pub origin: Origin,
    pub bytes: Share,
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

    /// Hands an event's `record` to the producer of `lane`, for the topic at this position of the lane's.
    ///
    /// # Errors
    /// [`QueueFull`]: nothing was handed over. Every other fault of Kafka's is waited out.
    pub fn send_event(
        &self,
        lane: usize,
        topic: usize,
        record: &Record,
        accepted: Accepted,
    ) -> Result<Pending, QueueFull> {
        self.send(lane, topic, record, accepted, Fate::Event)
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
        accepted: Accepted,
    ) -> Result<Pending, QueueFull> {
        let fate = Fate::DeadLetter { stage: refused.stage(), feed: feed.map(str::to_owned) };
        self.send(self.dead_letter_lane(), 0, record, accepted, fate)
    }

    fn send(
        &self,
        lane: usize,
        topic: usize,
        record: &Record,
        accepted: Accepted,
        fate: Fate,
    ) -> Result<Pending, QueueFull> {
        let Some((lane, topic)) = self.lanes.get(lane).and_then(|lane| Some((lane, lane.topics.get(topic)?))) else {
            return Err(QueueFull);
        };
        let (parcel, pending) = Parcel::new(Arc::clone(topic), accepted, fate);
        lane.produce(record, parcel)?;
        Ok(Pending(pending))
    }

    pub(super) fn dead_letter_lane(&self) -> usize {
        self.lanes.len().saturating_sub(1)
    }

    /// Records that are not committed yet.
    pub fn outstanding(&self) -> usize {
        self.lanes.iter().map(|lane| lane.counts.outstanding()).sum()
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
        let counts = Arc::new(Counts::new(index, &spec.label, dead_letter, metrics));
        let reports = Reports::new(&counts, failed);
        Ok(Self {
            label: spec.label.clone(),
            topics: spec.topics.iter().map(|topic| Arc::from(topic.as_str())).collect(),
            producer: RwLock::new(Arc::new(connection.producer(false).create_with_context(reports)?)),
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
        let failed = Failed::Record { lane: self.counts.lane(), error, letter: redelivery::Letter::of(message) };
        // The receiver lives as long as the process: redelivery never ends.
        let _ = self.failed.send(failed);
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<ThreadedProducer<Reports>> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn reports(&self) -> Reports {
        Reports::new(&self.counts, &self.failed)
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
