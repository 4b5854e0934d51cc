//! The result of a run: counted while the run goes on, and summed up at its end.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value as Json, json};

use super::outcome::{Broken, Outcome};
use crate::cli::Failure;

/// The end of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was answered 200.
    Acked,
    /// Its last attempt was not answered 200: ASAPP would drop it.
    Dropped,
    /// The run was stopped before its last attempt.
    Unfinished,
}

/// The counts of a few senders, or of all of them once added up.
#[derive(Clone)]
pub struct Tally {
    /// Events answered 200.
    pub acked: u64,
    /// Events whose attempts all failed.
    pub dropped: u64,
    /// Events that the stop of the run ended.
    pub unfinished: u64,
    /// Events that took more than one attempt.
    pub retried: u64,
    /// Attempts of all events.
    pub attempts: u64,
    /// Bytes of the acked events' bodies.
    bytes: u64,
    by_outcome: BTreeMap<Outcome, u64>,
    /// The first reason for each outcome that is not an answer.
    reasons: BTreeMap<Outcome, String>,
    /// Microseconds between the time at which an event was due and its 200.
    latency: Histogram<u64>,
    /// Microseconds between the sending of an attempt and its 200, including the handshake of a new connection.
    service: Histogram<u64>,
}

const LATENCY_MAX: Duration = Duration::from_secs(3_600);
/// The precision of the histograms: a latency is exact to a thousandth.
const SIGNIFICANT_DIGITS: u8 = 3;
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl Tally {
    /// A tally of nothing.
    ///
    /// # Errors
    /// The histograms' range is refused.
    pub fn new() -> Result<Self, Failure> {
        let histogram =
            Histogram::new_with_max(LATENCY_MAX.as_micros() as u64, SIGNIFICANT_DIGITS).map_err(Failure::new)?;
        Ok(Self {
            acked: 0,
            dropped: 0,
            unfinished: 0,
            retried: 0,
            attempts: 0,
            bytes: 0,
            by_outcome: BTreeMap::new(),
            reasons: BTreeMap::new(),
            latency: histogram.clone(),
            service: histogram,
        })
    }

    /// Counts an attempt, with its error if it had no answer.
    pub fn attempted(&mut self, outcome: Outcome, broken: Option<&Broken>) {
        self.attempts += 1;
        *self.by_outcome.entry(outcome).or_default() += 1;
        if let Some(broken) = broken {
            self.reasons.entry(outcome).or_insert_with(|| broken.reason.clone());
        }
    }

    /// Counts the end of an event after `attempts` attempts.
    pub fn ended(&mut self, fate: Fate, attempts: u32) {
        match fate {
            Fate::Acked => self.acked += 1,
            Fate::Dropped => self.dropped += 1,
            Fate::Unfinished => self.unfinished += 1,
        }
        self.retried += u64::from(attempts > 1);
    }

    /// Counts a 200 for a body of `bytes` bytes. `times` are latency and service time, or `None` during the warm-up.
    pub fn answered(&mut self, bytes: usize, times: Option<(Duration, Duration)>) {
        self.bytes += bytes as u64;
        if let Some((latency, service)) = times {
            self.latency.saturating_record(latency.as_micros() as u64);
            self.service.saturating_record(service.as_micros() as u64);
        }
    }

    /// Whether any attempt had an HTTP answer.
    pub fn has_answers(&self) -> bool {
        self.by_outcome.keys().any(|outcome| matches!(outcome, Outcome::Status(_)))
    }

    /// All events that have ended.
    pub fn sent(&self) -> u64 {
        self.acked + self.dropped + self.unfinished
    }

    /// Adds the counts of another tally.
    ///
    /// # Errors
    /// The histograms' ranges differ.
    pub fn add(&mut self, other: &Self) -> Result<(), Failure> {
        self.acked += other.acked;
        self.dropped += other.dropped;
        self.unfinished += other.unfinished;
        self.retried += other.retried;
        self.attempts += other.attempts;
        self.bytes += other.bytes;
        for (outcome, count) in &other.by_outcome {
            *self.by_outcome.entry(*outcome).or_default() += count;
        }
        for (outcome, reason) in &other.reasons {
            self.reasons.entry(*outcome).or_insert_with(|| reason.clone());
        }
        self.latency.add(&other.latency).and_then(|()| self.service.add(&other.service)).map_err(Failure::new)
    }
}

/// The result of the whole run.
pub struct Summary {
    /// The counts of all senders.
    pub tally: Tally,
    /// The time from its beginning to the end of its last event.
    pub took: Duration,
}

impl Summary {
    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.took.as_secs_f64().max(1e-6)
    }

    /// The result as one object. Times are in milliseconds, `p99_9` is the 99.9th percentile, and `count` is the number
    /// of events after the warm-up.
    pub fn json(&self) -> Json {
        let tally = &self.tally;
        let by_status: BTreeMap<String, u64> =
            tally.by_outcome.iter().map(|(outcome, count)| (outcome.to_string(), *count)).collect();
        let reasons: BTreeMap<String, &String> =
            tally.reasons.iter().map(|(outcome, reason)| (outcome.to_string(), reason)).collect();
        json!({
            "sent": tally.sent(),
            "acked": tally.acked,
            "retried": tally.retried,
            "dropped": tally.dropped,
            "unfinished": tally.unfinished,
            "attempts": tally.attempts,
            "by_status": by_status,
            "reasons": reasons,
            "seconds": self.took.as_secs_f64(),
            "events_per_second": self.rate(tally.acked),
            "bytes": tally.bytes,
            "latency_ms": percentiles(&tally.latency),
            "service_ms": percentiles(&tally.service),
        })
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Json {
    if histogram.is_empty() {
        return Json::Null;
    }
    let millis = |micros: u64| micros as f64 / 1_000.0;
    let quantiles = QUANTILES
        .iter()
        .map(|(name, quantile)| (name.replace('.', "_"), json!(millis(histogram.value_at_quantile(*quantile)))));
    let rest = [("max", json!(millis(histogram.max()))), ("count", json!(histogram.len()))];
    quantiles.chain(rest.map(|(name, value)| (name.to_owned(), value))).collect()
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        let (rate, bytes) = (HumanCount(self.rate(tally.acked) as u64), HumanBytes(self.rate(tally.bytes) as u64));
        writeln!(out, "sent      {} in {:.1} s", HumanCount(tally.sent()), self.took.as_secs_f64())?;
        writeln!(out, "acked     {}, {rate} events/s, {bytes}/s", HumanCount(tally.acked))?;
        writeln!(out, "retried   {}", HumanCount(tally.retried))?;
        writeln!(out, "dropped   {}", HumanCount(tally.dropped))?;
        if tally.unfinished > 0 {
            writeln!(out, "stopped   {}, before their last attempt", HumanCount(tally.unfinished))?;
        }
        for (outcome, count) in &tally.by_outcome {
            let reason = tally.reasons.get(outcome).map(|reason| format!("  {reason}")).unwrap_or_default();
            writeln!(out, "{:<9} {}{reason}", outcome.to_string(), HumanCount(*count))?;
        }
        writeln!(out, "latency   {}  (due to 200)", Times(&tally.latency))?;
        write!(out, "service   {}  (sent to 200)", Times(&tally.service))
    }
}

struct Times<'a>(&'a Histogram<u64>);

impl fmt::Display for Times<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return out.write_str("nothing measured");
        }
        for (name, quantile) in QUANTILES {
            write!(out, "{name} {}  ", millis(self.0.value_at_quantile(quantile)))?;
        }
        write!(out, "max {}", millis(self.0.max()))
    }
}

fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1_000.0;
    if millis < 100.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up_and_are_told_as_text_and_json() {
        let (mut one, mut other) = (Tally::new().unwrap(), Tally::new().unwrap());
        one.attempted(Outcome::Status(200), None);
        one.ended(Fate::Acked, 1);
        one.answered(700, Some((Duration::from_millis(5), Duration::from_millis(4))));
        assert!(!other.has_answers());
        for _ in 0..4 {
            other.attempted(Outcome::Timeout, Some(&Broken::timeout()));
        }
        other.ended(Fate::Dropped, 4);
        one.add(&other).unwrap();
        assert!(one.has_answers());
        let summary = Summary { tally: one, took: Duration::from_secs(2) };
        let text = summary.to_string();
        for line in [
            "sent      2 in 2.0 s",
            "acked     1, 0 events/s, 350 B/s",
            "retried   1",
            "dropped   1",
            "200       1",
            "timeout   4  no answer in time",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
        let json = summary.json();
        assert_eq!(json["by_status"], json!({"200": 1, "timeout": 4}));
        assert_eq!((&json["attempts"], &json["events_per_second"]), (&json!(5), &json!(0.5)));
        assert!((json["latency_ms"]["p50"].as_f64().unwrap() - 5.0).abs() < 0.01);
        assert_eq!(json["latency_ms"]["count"], 1);
        assert_eq!(Summary { tally: Tally::new().unwrap(), took: Duration::ZERO }.json()["latency_ms"], Json::Null);
    }
}
