//! Delivery reports and statistics: librdkafka's word on each record, and on itself.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use rdkafka::{
    ClientContext, Message, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, ProducerContext},
};

use super::{LaneId, Receipt, counts::Counts, health::Health, log, outgoing::Outgoing, parcel::Parcel, reach::Met};
use crate::metrics::ProducerMetrics;

/// A message to the redelivery thread.
pub(super) enum Failed {
    Record {
        error: KafkaError,
        outgoing: Outgoing,
    },
    /// A producer can send nothing more, so it must be replaced.
    Producer {
        lane: LaneId,
    },
    /// The drain is over: the records that wait for their next attempt are given up.
    GiveUp,
    /// The thread must end. Until `by` it waits for the threads that it has started.
    Stop {
        by: Instant,
    },
}

/// The delivery reports of one producer, on the thread that polls it (`pace.rs`).
pub(super) struct Reports {
    counts: Arc<Counts>,
    failed: mpsc::Sender<Failed>,
    /// The number of statistics that came: one each `statistics.interval.ms`.
    heard: AtomicUsize,
    /// The number of delivery reports that came.
    reported: AtomicUsize,
    health: Health,
    met: Met,
    last_error: Mutex<Option<String>>,
    /// Whether its statistics set the lane's gauges. A second producer of the lane would overwrite the first one's.
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

    /// Whether this is the second of two calls: rdkafka (0.39) reports each error twice.
    fn is_echo(&self, error: &str) -> bool {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let echo = last.take().is_some_and(|last| last == error);
        if !echo {
            *last = Some(error.to_owned());
        }
        echo
    }

    /// The number of delivery reports that came.
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

    /// The brokers that the producer was connected to.
    pub(super) fn met(&self) -> &Met {
        &self.met
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Parcel>;

    fn delivery(&self, result: &DeliveryResult<'_>, mut parcel: Box<Parcel>) {
        self.reported.fetch_add(1, Ordering::Relaxed);
        parcel.outstanding.report();
        #[cfg(feature = "sabotage")]
        super::sabotage::report();
        match result {
            Ok(message) => {
                // A receipt is made of a delivery only here. librdkafka gives no offset after "duplicate sequence".
                let offset = Some(message.offset()).filter(|offset| *offset >= 0);
                let receipt = Receipt { topic: parcel.topic, partition: message.partition(), offset };
                parcel.committed(&receipt, &self.counts);
            }
            Err((error, message)) => {
                self.health.failed(parcel.topic.name(), message.partition(), error.rdkafka_error_code());
                let outgoing = Outgoing::returned(&message.detach(), parcel);
                // If redelivery has ended with the process, the parcel's drop gives the record up.
                let _ = self.failed.send(Failed::Record { error: error.clone(), outgoing });
            }
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log::line(&self.counts.label, level, fac, message);
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
        let metrics = Arc::new(crate::metrics::Metrics::new().unwrap());
        let counts = Counts::new(LaneId::FIRST, "feed", false, &metrics, &Arc::default());
        let reports = Reports::new(&counts, &mpsc::channel().0, true);
        let told: Vec<_> = ["a", "a", "b", "b", "a", "a", "a", "a"].map(|error| !reports.is_echo(error)).into();
        assert_eq!(told, [true, false, true, false, true, false, true, false]);
    }
}
