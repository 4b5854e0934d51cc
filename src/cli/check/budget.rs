//! The arithmetic of the time budget and the limits, for an outage of Kafka.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::{
    cli::findings::{Findings, Level},
    config::Config,
    record::OVERHEAD_BYTES,
};

/// The time budget and the limits, with the `rate` of events per second that they are judged by.
pub struct BudgetLines {
    timeout: Duration,
    answer_by: Duration,
    socket_timeout: Duration,
    message_timeout: Duration,
    drain: Duration,
    rate: f64,
    in_flight_max: usize,
    queue_bytes_max: usize,
    dedupe_bytes_max: usize,
    connections_max: usize,
    streams_max: usize,
}

/// The body of a typical event, in bytes.
const BODY_BYTES: usize = 2048;
/// The bytes of one event in the queue: its body, and its record of about the same size.
const QUEUED_BYTES: usize = 2 * BODY_BYTES + OVERHEAD_BYTES;

/// Memory, measured and rounded up: of the process without connections, of a used connection, of a held request.
const PROCESS_BYTES: usize = 64 << 20;
const CONNECTION_BYTES: usize = 48 << 10;
const REQUEST_BYTES: usize = 4 << 10;
/// Allocators keep about a tenth more than is in use.
const ALLOCATED_OF_USED: (usize, usize) = (11, 10);

impl BudgetLines {
    /// The lines for `rate` events per second, all in one feed.
    pub fn of(config: &Config, rate: f64) -> Self {
        let budget = config.sender.budget();
        Self {
            timeout: budget.timeout,
            answer_by: budget.answer_by,
            socket_timeout: budget.socket_timeout,
            message_timeout: budget.message_timeout,
            drain: config.ingress.drain_max,
            rate,
            in_flight_max: config.ingress.in_flight_max,
            queue_bytes_max: config.ingress.queue_bytes_max,
            dedupe_bytes_max: config.dedupe.bytes_max,
            connections_max: config.ingress.connections_max,
            streams_max: config.streams_max(),
        }
    }

    /// The most memory that the process uses, in bytes, with everything at its limit.
    fn memory_max(&self) -> usize {
        // A connection's memory has room for its own few streams of HTTP/2. All further streams, over all connections,
        // are limited to `streams_max` (`server/door.rs`).
        let requests = self.streams_max * REQUEST_BYTES;
        let connections = self.connections_max * CONNECTION_BYTES;
        let used = PROCESS_BYTES + self.queue_bytes_max + self.dedupe_bytes_max + connections + requests;
        used / ALLOCATED_OF_USED.1 * ALLOCATED_OF_USED.0
    }

    /// The requests of one feed that are held at a time in an outage, each for D.
    fn held(&self) -> usize {
        (self.rate * self.answer_by.as_secs_f64()).ceil() as usize
    }

    fn queued_events_max(&self) -> usize {
        // One feed alone gets 8/9 of the queue (`quota.rs`).
        self.queue_bytes_max / 9 * 8 / QUEUED_BYTES
    }

    /// The time until the queue is full.
    fn queue_full_after(&self) -> Duration {
        Duration::from_secs_f64(self.queued_events_max() as f64 / self.rate)
    }

    /// The longest outage without a 503: no request is held longer than D, and none is refused.
    fn bridged(&self) -> Duration {
        let held_until_full = Duration::from_secs_f64(self.in_flight_max as f64 / self.rate);
        self.answer_by.min(held_until_full).min(self.queue_full_after())
    }

    /// The longest outage without a lost event: until one is refused, the queue is full, or a record is given up.
    fn kept(&self) -> Duration {
        if self.held() > self.in_flight_max {
            return self.bridged();
        }
        self.message_timeout.min(self.queue_full_after())
    }

    /// Notes limits that an outage reaches before D.
    pub fn judge(&self, findings: &mut Findings) {
        let rate = self.rate;
        if self.held() > self.in_flight_max {
            let what = format!(
                "at {rate} events/s in one feed an outage holds {} requests, more than in_flight_max = {}: the others are answered 503 at once",
                self.held(),
                self.in_flight_max
            );
            findings.add(
                Level::Note,
                "in_flight_max",
                what,
                format!("raise ingress.in_flight_max to {} or more", self.held()),
            );
        }
        if self.queue_full_after() < self.answer_by {
            let what = format!(
                "at {rate} events/s of 2 KB queue_bytes_max is full after {}, before the first 503",
                seconds(self.queue_full_after())
            );
            findings.add(
                Level::Note,
                "queue_bytes_max",
                what,
                format!("raise ingress.queue_bytes_max to {} or more", self.held() * QUEUED_BYTES / 8 * 9),
            );
        }
    }

    /// The lines as a page.
    pub fn text(&self) -> String {
        let (rate, events) = (self.rate, self.queued_events_max());
        format!(
            "\
T, the sender waits                 {timeout:>9}
D, a held request is answered by    {answer_by:>9}
socket.timeout.ms                   {socket:>9}
message.timeout.ms                  {message:>9}   how long a record is tried again: the sender's attempts, and one of its pauses
drain                               {drain:>9}   whatever stops the bridge must wait longer (terminationGracePeriodSeconds, TimeoutStopSec)

An outage of Kafka, at {rate} events/s of 2 KB in one feed (--rate):
  up to {bridged:<8} every event is answered 200: {held} requests are held for D, in_flight_max is {in_flight_max}
  up to {kept:<8} later events are answered 503 at D, but none is forgotten: once Kafka is back they are committed;
                 a retry of one at the same instance joins it, or gets its receipt
  beyond         what is refused then depends on the sender's retries
  queue_bytes_max = {queue} MiB holds some {events} events of 2 KB of one feed: {queue_seconds} at that rate, beyond it 503 at once

Memory at all limits: {memory} MiB, of which queue_bytes_max {queue}, dedupe.bytes_max {dedupe}, connections_max {connections}, in_flight_max {requests}
",
            timeout = seconds(self.timeout),
            answer_by = seconds(self.answer_by),
            socket = seconds(self.socket_timeout),
            message = seconds(self.message_timeout),
            drain = seconds(self.drain),
            bridged = seconds(self.bridged()),
            kept = seconds(self.kept()),
            held = self.held(),
            in_flight_max = self.in_flight_max,
            memory = self.memory_max() >> 20,
            dedupe = self.dedupe_bytes_max >> 20,
            connections = (self.connections_max * CONNECTION_BYTES) >> 20,
            requests = (self.streams_max * REQUEST_BYTES) >> 20,
            queue = self.queue_bytes_max >> 20,
            queue_seconds = seconds(self.queue_full_after()),
        )
    }

    /// The lines as one object, in milliseconds and bytes.
    pub fn json(&self) -> Json {
        let millis = |duration: Duration| duration.as_millis() as u64;
        json!({
            "timeout_ms": millis(self.timeout),
            "answer_by_ms": millis(self.answer_by),
            "socket_timeout_ms": millis(self.socket_timeout),
            "message_timeout_ms": millis(self.message_timeout),
            "drain_ms": millis(self.drain),
            "memory_bytes_max": self.memory_max(),
            "outage": {
                "events_per_second": self.rate,
                "body_bytes": BODY_BYTES,
                "held_requests": self.held(),
                "in_flight_max": self.in_flight_max,
                "queue_bytes_max": self.queue_bytes_max,
                "queued_events_max": self.queued_events_max(),
                "all_answered_200_ms": millis(self.bridged()),
                "none_forgotten_ms": millis(self.kept()),
            },
        })
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Parses `--rate`, in events per second.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate: Option<f64> = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.001 && *rate <= 1e9);
    rate.ok_or_else(|| "events per second: a number above 0, such as 200".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rate: f64) -> BudgetLines {
        let config = crate::config::from_toml("[ingress.tls]\nclient_names = ['*']\n").unwrap();
        BudgetLines::of(&config, rate)
    }

    #[test]
    fn an_outage_is_bridged_until_d_or_until_a_limit() {
        // T = 5 s, D = 4.5 s, 16,384 requests, 8/9 of 256 MiB at 5.6 KiB each.
        for (rate, held, bridged, kept) in
            [(1000.0, 4500, 4500, 41_425), (8192.0, 36_864, 2000, 2000), (0.5, 3, 4500, 50_000)]
        {
            let lines = lines(rate);
            assert_eq!(
                (lines.held(), lines.bridged().as_millis(), lines.kept().as_millis()),
                (held, bridged, kept),
                "{rate}"
            );
        }
        let mut findings = Findings::default();
        lines(1000.0).judge(&mut findings);
        assert!(findings.is_empty());
        lines(8192.0).judge(&mut findings);
        assert!(findings.text().contains("raise ingress.in_flight_max to 36864"), "{}", findings.text());
    }
}
