//! Every metric's name, once.

mod producer;
mod register;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

pub use self::producer::ProducerMetrics;
use self::register::{counted_words, counter, counters, gauge, gauges, register};
use crate::config::Config;

/// The buckets in seconds: from half a millisecond to the longest `timeout_ms` that there can be. A quantile cannot see
/// beyond the last one.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 4.5, 5.0,
    6.0, 8.0, 10.0, 15.0, 30.0, 45.0, 60.0, 120.0, 300.0, 600.0,
];

/// The reasons of failed handshakes; the module `tls` chooses among them.
pub const HANDSHAKE_FAILURES: [&str; 14] = [
    "bad_certificate",
    "closed",
    "expired",
    "incompatible",
    "io",
    "no_certificate",
    "not_tls",
    "not_valid_yet",
    "other",
    "refused_by_client",
    "revoked",
    "timeout",
    "unknown_ca",
    "wrong_purpose",
];

/// All metrics of one bridge. Labels hold configured names and fixed words only, nothing that a sender chose.
pub struct Metrics {
    registry: Registry,
    /// Gauges that are read when somebody scrapes.
    shown: Mutex<Vec<Shown>>,
    pub received: IntCounter,
    pub answers: IntCounterVec,
    pub late: IntCounter,
    pub refused: IntCounterVec,
    pub answer_seconds: Histogram,
    pub committed: IntCounterVec,
    pub committed_late: IntCounterVec,
    pub dead_letters: IntCounterVec,
    pub commit_seconds: HistogramVec,
    pub redelivered: IntCounterVec,
    pub undelivered: IntCounterVec,
    pub producer_replaced: IntCounterVec,
    pub in_flight: IntGaugeVec,
    pub queue_bytes: IntGauge,
    pub queue_records: IntGaugeVec,
    pub connections: IntGauge,
    pub connections_accepted: IntCounter,
    pub connections_evicted: IntCounter,
    pub connections_refused: IntCounter,
    pub connections_closed: IntCounterVec,
    pub handshake_failures: IntCounterVec,
    pub certificate_expiry: IntGaugeVec,
    pub tls_reloads: IntCounterVec,
    pub kafka_renewals: IntCounterVec,
    pub reload_refused: IntGaugeVec,
    pub kafka_token_expiry: IntGauge,
    pub topic_faults: IntGaugeVec,
    pub unknown_members: IntCounterVec,
    pub null_keys: IntCounterVec,
    pub events_by_major: IntCounterVec,
    pub ready: IntGauge,
    limits: LimitMetrics,
    pub window: WindowMetrics,
    pub producer: ProducerMetrics,
}

/// Sets a gauge to what it shows.
type Shown = Box<dyn Fn() + Send + Sync>;

/// The configured limits as metrics, so that alerts compare with them and need no configuration of their own.
struct LimitMetrics {
    timeout: Gauge,
    answer_by: Gauge,
    attempts: IntGauge,
    in_flight: IntGauge,
    queue_bytes: IntGauge,
    connections: IntGauge,
}

/// The outcomes of events that came again.
#[derive(Clone)]
pub struct WindowMetrics {
    pub joined_under_way: IntCounter,
    pub joined_committed: IntCounter,
    pub ids_reused: IntCounter,
    pub remembered: IntGauge,
    pub forgotten_early: IntCounter,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name: a mistake in this file that its test finds.
    #[allow(clippy::too_many_lines, reason = "a table, not a flow")]
    pub fn new() -> prometheus::Result<Self> {
        let r = Registry::new();
        // It reads /proc, and is there on Linux alone.
        #[cfg(target_os = "linux")]
        r.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let info = counters(&r, "causeway_build_info", "The version that runs; always 1.", &["version"])?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).inc();
        Ok(Self {
            received: counter(&r, "causeway_requests_received_total", "Requests whose head was read.")?,
            answers: counters(
                &r,
                "causeway_answers_total",
                "Answers by HTTP status and by their `code` (`committed` for a 200).",
                &["status", "code"],
            )?,
            late: counter(
                &r,
                "causeway_answers_late_total",
                "Answers of 200 that came after sender.timeout_ms, by the sender's clock: it had given that attempt up.",
            )?,
            refused: counters(
                &r,
                "causeway_refused_total",
                "Events answered 503, by code and feed (`unknown` where it was not read to its end).",
                &["feed", "code"],
            )?,
            answer_seconds: register(
                &r,
                Histogram::with_opts(
                    HistogramOpts::new("causeway_answer_seconds", "From the request's head to its answer.")
                        .buckets(SECONDS.to_vec()),
                ),
            )?,
            committed: counters(&r, "causeway_committed_total", "Events committed to their feed's topics.", &["feed"])?,
            committed_late: counters(
                &r,
                "causeway_committed_late_total",
                "Events committed after their request was answered 503 or its client had gone.",
                &["feed"],
            )?,
            dead_letters: counters(
                &r,
                "causeway_dead_letters_total",
                "Bodies committed to the dead-letter topic, by stage (READ, PRODUCE, RECEIVE) and feed where known.",
                &["feed", "stage"],
            )?,
            commit_seconds: register(
                &r,
                HistogramVec::new(
                    HistogramOpts::new("causeway_commit_seconds", "From the body's last byte to the broker's commit.")
                        .buckets(SECONDS.to_vec()),
                    &["feed"],
                ),
            )?,
            redelivered: counters(
                &r,
                "causeway_redelivered_total",
                "Records produced again after a delivery error.",
                &["feed"],
            )?,
            undelivered: counters(
                &r,
                "causeway_undelivered_total",
                "Records given up at message.timeout.ms or at the end of a drain; none of them was answered 200.",
                &["feed"],
            )?,
            producer_replaced: counters(
                &r,
                "causeway_producer_replaced_total",
                "Producers replaced as they could send nothing more, by reason; what they held is produced again.",
                &["feed", "reason"],
            )?,
            in_flight: gauges(&r, "causeway_in_flight_requests", "Held requests.", &["feed"])?,
            queue_bytes: gauge(&r, "causeway_queue_bytes", "Bytes of bodies and records not yet committed.")?,
            queue_records: gauges(
                &r,
                "causeway_queue_records",
                "Records not yet committed, those past their 503 included.",
                &["feed"],
            )?,
            connections: gauge(&r, "causeway_connections", "Open connections.")?,
            connections_accepted: counter(
                &r,
                "causeway_connections_accepted_total",
                "Connections that finished their handshake.",
            )?,
            connections_evicted: counter(
                &r,
                "causeway_connections_evicted_total",
                "Idle connections closed to make room at connections_max.",
            )?,
            connections_refused: counter(
                &r,
                "causeway_connections_refused_total",
                "Connections that were not taken at connections_max, as none was idle.",
            )?,
            connections_closed: counted_words(
                &r,
                "causeway_connections_closed_total",
                "Connections that the bridge ended: `idle`, `age`, `slow_head`, or `certificate` (no longer good after a change).",
                "reason",
                &["idle", "age", "slow_head", "certificate"],
            )?,
            handshake_failures: counted_words(
                &r,
                "causeway_handshake_failures_total",
                "TLS handshakes that failed, by reason.",
                "reason",
                &HANDSHAKE_FAILURES,
            )?,
            certificate_expiry: gauges(
                &r,
                "causeway_certificate_expiry_timestamp_seconds",
                "When it ends, seconds since 1970: `server`, `client_ca`, `crl`, and `sender` by its name on the allow-list.",
                &["certificate", "name"],
            )?,
            tls_reloads: counted_words(
                &r,
                "causeway_tls_reloads_total",
                "Changes of the certificate files that were taken up (`ok`), or `refused` while the old ones stay in use.",
                "result",
                &["ok", "refused"],
            )?,
            kafka_renewals: counters(
                &r,
                "causeway_kafka_renewals_total",
                "Tries to use changed passwords or certificates for Kafka: `ok`, or `refused` while the old ones stay in use.",
                &["result"],
            )?,
            reload_refused: gauges(
                &r,
                "causeway_reload_refused",
                "1 while changed files of `tls` or `kafka` are not in use, as they could not be used, or the next `kafka_token` cannot be had.",
                &["files"],
            )?,
            kafka_token_expiry: gauge(
                &r,
                "causeway_kafka_token_expiry_timestamp_seconds",
                "When the token for Kafka in use ends, seconds since 1970; 0 where there is none.",
            )?,
            topic_faults: gauges(
                &r,
                "causeway_topic_fault",
                "1 where a topic does not keep what was acked as the promise wants it, 0 where it does, absent where it cannot be read.",
                &["topic", "fault"],
            )?,
            unknown_members: counters(
                &r,
                "causeway_unknown_members_total",
                "Members that went to `extras`, as the schema does not name them or cannot give them back.",
                &["feed"],
            )?,
            null_keys: counters(&r, "causeway_null_keys_total", "Events without a key.", &["feed"])?,
            events_by_major: counters(
                &r,
                "causeway_events_by_major_total",
                "Events by the major number of their api_version (`other` beyond 0 to 9).",
                &["feed", "major"],
            )?,
            ready: gauge(&r, "causeway_ready", "1 when /readyz says so.")?,
            limits: LimitMetrics::new(&r)?,
            window: WindowMetrics::new(&r)?,
            producer: ProducerMetrics::new(&r)?,
            registry: r,
            shown: Mutex::default(),
        })
    }

    /// Publishes the configured limits.
    pub fn show_limits(&self, config: &Config) {
        let (budget, ingress) = (config.sender.budget(), &config.ingress);
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.limits.timeout.set(budget.timeout.as_secs_f64());
        self.limits.answer_by.set(budget.answer_by.as_secs_f64());
        self.limits.attempts.set(i64::from(config.sender.retries) + 1);
        self.limits.in_flight.set(number(ingress.in_flight_max));
        self.limits.queue_bytes.set(number(ingress.queue_bytes_max));
        self.limits.connections.set(number(ingress.connections_max));
    }

    /// Lets a gauge show an amount that is counted elsewhere anyway: to count it twice would cost every event.
    pub fn show<T: Send + Sync + 'static>(
        &self,
        gauge: IntGauge,
        of: &Arc<T>,
        amount: impl Fn(&T) -> usize + Send + Sync + 'static,
    ) {
        let of = Arc::downgrade(of);
        let look = move || {
            if let Some(of) = of.upgrade() {
                gauge.set(i64::try_from(amount(&of)).unwrap_or(i64::MAX));
            }
        };
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(look));
    }

    /// The Prometheus text exposition format.
    pub fn text(&self) -> Vec<u8> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|look| look());
        let mut text = Vec::new();
        // A Vec takes every write, and metrics of this registry have consistent names.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

impl LimitMetrics {
    fn new(r: &Registry) -> prometheus::Result<Self> {
        let seconds = |name: &str, help: &str| register(r, Gauge::new(name, help));
        Ok(Self {
            timeout: seconds(
                "causeway_sender_timeout_seconds",
                "sender.timeout_ms: when the sender gives an attempt up.",
            )?,
            answer_by: seconds("causeway_answer_by_seconds", "When a held request is answered 503.")?,
            attempts: gauge(
                r,
                "causeway_sender_attempts_max",
                "sender.retries + 1: after so many attempts the sender drops an event.",
            )?,
            in_flight: gauge(r, "causeway_in_flight_requests_max", "ingress.in_flight_max, of each feed.")?,
            queue_bytes: gauge(r, "causeway_queue_bytes_max", "ingress.queue_bytes_max.")?,
            connections: gauge(r, "causeway_connections_max", "ingress.connections_max.")?,
        })
    }
}

impl WindowMetrics {
    fn new(r: &Registry) -> prometheus::Result<Self> {
        let joined = counters(
            r,
            "causeway_joined_total",
            "Requests with an event that was here before: `under_way` waited for the first attempt's receipt, `committed` got it.",
            &["first_attempt"],
        )?;
        Ok(Self {
            joined_under_way: joined.with_label_values(&["under_way"]),
            joined_committed: joined.with_label_values(&["committed"]),
            ids_reused: counter(
                r,
                "causeway_event_ids_reused_total",
                "Events whose event_id came before with another body: each is an event of its own.",
            )?,
            remembered: gauge(r, "causeway_dedupe_events", "Committed events that are remembered.")?,
            forgotten_early: counter(
                r,
                "causeway_dedupe_forgotten_early_total",
                "Committed events forgotten before their time, as dedupe.bytes_max was full.",
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_request_that_is_held_to_the_longest_deadline_is_seen() {
        let longest = "[ingress.tls]\nclient_names = ['*']\n[sender]\ntimeout_ms = 600000\n";
        let answer_by = crate::config::from_toml(longest).unwrap().sender.budget().answer_by;
        assert!(*super::SECONDS.last().unwrap() > answer_by.as_secs_f64());
    }

    #[test]
    fn every_name_stands_once() {
        let metrics = super::Metrics::new().unwrap();
        metrics.received.inc();
        let text = String::from_utf8(metrics.text()).unwrap();
        assert!(text.contains("causeway_requests_received_total 1"), "{text}");
    }
}
