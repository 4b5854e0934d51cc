//! Delivery reports: what librdkafka says of each record, and of itself.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use prometheus::{Histogram, IntCounter};
use rdkafka::{
    ClientContext, Message, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, ProducerContext},
};

use super::{
    Receipt,
    health::{Ailment, Health},
    letter::Letter,
    producer::{Accepted, Lane},
    reach::Met,
    redelivery::Failed,
    window::Ticket,
};
use crate::{
    metrics::{Metrics, ProducerMetrics},
    quota::Share,
    record::Origin,
};

/// What a lane's delivery reports count.
pub(super) struct Counts {
    lane: usize,
    label: String,
    outstanding: AtomicUsize,
    /// Records that librdkafka was given, and those that it has reported.
    handed_over: AtomicUsize,
    reported: AtomicUsize,
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
    pub(super) body: Arc<[u8]>,
    pub(super) origin: Origin,
    pub(super) topic: &'static str,
    pub(super) fate: Fate,
    pub(super) accepted: Instant,
    pub(super) attempts: u32,
    /// Produced in a batch of its own: what is refused now is refused for itself.
    pub(super) alone: bool,
    ticket: Ticket,
    _bytes: Share,
}

/// What a parcel's record is.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    Event,
    DeadLetter { stage: &'static str, feed: Option<String> },
}

impl Counts {
    pub(super) fn new(lane: usize, label: &str, dead_letters: bool, metrics: &Arc<Metrics>) -> Arc<Self> {
        let labels = [label];
        let committed = if dead_letters {
            Committed::DeadLetter
        } else {
            Committed::Feed {
                committed: metrics.committed.with_label_values(&labels),
                late: metrics.committed_late.with_label_values(&labels),
                seconds: metrics.commit_seconds.with_label_values(&labels),
            }
        };
        let counts = Arc::new(Self {
            lane,
            label: label.to_owned(),
            outstanding: AtomicUsize::new(0),
            handed_over: AtomicUsize::new(0),
            reported: AtomicUsize::new(0),
            committed,
            metrics: Arc::clone(metrics),
        });
        metrics.show(metrics.queue_records.with_label_values(&labels), &counts, Self::outstanding);
        // From 0, so that an alert sees the first one.
        let _ = Ailment::ALL.map(|ailment| metrics.producer_replaced.with_label_values(&[label, ailment.reason()]));
        counts
    }

    /// Which lane this is, counted from 0.
    pub(super) fn lane(&self) -> usize {
        self.lane
    }

    /// Records of the lane that are not committed yet.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Acquire)
    }

    /// Records that librdkafka has.
    pub(super) fn in_librdkafka(&self) -> usize {
        let reported = self.reported();
        self.handed_over.load(Ordering::Acquire).saturating_sub(reported)
    }

    pub(super) fn reported(&self) -> usize {
        self.reported.load(Ordering::Acquire)
    }

    /// A record is given to librdkafka: before, as its report may be faster.
    pub(super) fn hand_over(&self) {
        self.handed_over.fetch_add(1, Ordering::AcqRel);
    }

    /// librdkafka has given it back.
    pub(super) fn report(&self) {
        self.reported.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn replaced(&self, ailment: Ailment) {
        self.metrics.producer_replaced.with_label_values(&[&self.label, ailment.reason()]).inc();
    }

    /// Gives how many there were before.
    pub(super) fn begin(&self) -> usize {
        self.outstanding.fetch_add(1, Ordering::AcqRel)
    }

    pub(super) fn end(&self) {
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The delivery reports of one producer, on the thread that polls it (`pace.rs`).
pub(super) struct Reports {
    counts: Arc<Counts>,
    failed: mpsc::Sender<Failed>,
    /// Times that the producer was heard of: one each `statistics.interval.ms`.
    heard: AtomicUsize,
    /// Reports that came.
    reported: AtomicUsize,
    health: Health,
    met: Met,
    last_error: Mutex<Option<String>>,
    /// Its statistics are the lane's gauges: not those of a second producer, beside the first.
    shown: bool,
}

impl Reports {
    pub(super) fn new(counts: &Arc<Counts>, failed: &mpsc::Sender<Failed>, shown: bool) -> Self {
        Self {
            shown,
            counts: Arc::clone(counts),
            failed: failed.clone(),
            heard: AtomicUsize::new(0),
            reported: AtomicUsize::new(0),
            health: Health::default(),
            met: Met::default(),
            last_error: Mutex::default(),
        }
    }

    /// Whether it is the second time of two: rdkafka (0.39) hands over each error twice.
    fn is_echo(&self, error: &str) -> bool {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let echo = last.take().is_some_and(|last| last == error);
        if !echo {
            *last = Some(error.to_owned());
        }
        echo
    }

    /// How many reports came.
    pub(super) fn reported(&self) -> usize {
        self.reported.load(Ordering::Relaxed)
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// A number that changes as long as delivery reports can come.
    pub(super) fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }

    /// The brokers that it was connected to.
    pub(super) fn met(&self) -> &Met {
        &self.met
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Parcel>;

    fn delivery(&self, result: &DeliveryResult<'_>, parcel: Box<Parcel>) {
        self.reported.fetch_add(1, Ordering::Relaxed);
        self.counts.report();
        #[cfg(feature = "sabotage")]
        super::sabotage::report();
        match result {
            Ok(message) => {
                // The one place where a receipt is made. Librdkafka gives no offset after "duplicate sequence".
                let offset = Some(message.offset()).filter(|offset| *offset >= 0);
                let receipt = Receipt { topic: parcel.topic, partition: message.partition(), offset };
                parcel.committed(&receipt, &self.counts);
            }
            Err((error, message)) => {
                self.health.failed(parcel.topic, message.partition(), error.rdkafka_error_code());
                let letter = Letter::returned(&message.detach(), parcel);
                let _ = self.failed.send(Failed::Record { lane: self.counts.lane, error: error.clone(), letter });
            }
        }
    }
}

impl Parcel {
    pub(super) fn new(topic: &'static str, accepted: Accepted, fate: Fate, ticket: Ticket) -> Box<Self> {
        let Accepted { body, origin, bytes } = accepted;
        let accepted = Instant::now();
        Box::new(Self { body, origin, topic, fate, accepted, attempts: 0, alone: false, ticket, _bytes: bytes })
    }

    pub(super) fn committed(self: Box<Self>, receipt: &Receipt, counts: &Counts) {
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
        let answered = self.ticket.commit(receipt);
        if let (false, Committed::Feed { late, .. }) = (answered, &counts.committed) {
            late.inc();
        }
    }

    /// Whether a request still waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        self.ticket.is_awaited()
    }

    /// Whoever waits is told by the ticket's end.
    pub(super) fn give_up(self: Box<Self>, lane: &Lane) {
        lane.undelivered.inc();
        lane.counts.end();
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log(&self.counts.label, level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if self.is_echo(reason) {
            return;
        }
        tracing::warn!(producer = self.counts.label, %error, reason, "Kafka client error");
        if let KafkaError::Global(RDKafkaErrorCode::Fatal) = error {
            let _ = self.failed.send(Failed::Producer { lane: self.counts.lane });
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.met.note(&statistics);
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.health.observe(&statistics);
        if self.health.ailment().is_some() {
            let _ = self.failed.send(Failed::Producer { lane: self.counts.lane });
        }
        if self.shown {
            observe(&self.counts.metrics.producer, &self.counts.label, &statistics);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "nothing is sent")]
    fn an_error_is_told_once_each_time_it_comes() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let reports = Reports::new(&Counts::new(0, "feed", false, &metrics), &mpsc::channel().0, true);
        let told: Vec<_> = ["a", "a", "b", "b", "a", "a", "a", "a"].map(|error| !reports.is_echo(error)).into();
        assert_eq!(told, [true, false, true, false, true, false, true, false]);
    }
}
