//! The figures of a measurement, and the summary of several rounds.

use std::{fs, time::Duration};

use serde::{Deserialize, Serialize};

/// One measurement: a server, or a producer alone, under one load.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    pub events: u64,
    /// The events that were due after the warm-up, divided by the seconds after it.
    pub events_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p99_9_ms: f64,
    /// CPU time per event, user and system: of the measured process; below, of the broker and of the load generator.
    pub cpu_us: f64,
    pub broker_cpu_us: f64,
    pub generator_cpu_us: f64,
    /// The largest resident memory of the measured process meanwhile.
    pub peak_mb: f64,
}

impl Figures {
    /// The figures without the CPU time of `part`, a part of the same load that was measured on its own.
    pub fn without(mut self, part: &Self) -> Self {
        let events = self.events.saturating_sub(part.events).max(1) as f64;
        let less =
            |each: f64, part_each: f64| (each * self.events as f64 - part_each * part.events as f64).max(0.0) / events;
        self.cpu_us = less(self.cpu_us, part.cpu_us);
        self.broker_cpu_us = less(self.broker_cpu_us, part.broker_cpu_us);
        self.generator_cpu_us = less(self.generator_cpu_us, part.generator_cpu_us);
        self
    }
}

/// One measurement, taken in every round.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    pub label: String,
    pub rounds: Vec<Figures>,
}

/// A function that picks one number of a measurement.
pub type Figure = fn(&Figures) -> f64;

impl Series {
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), rounds: Vec::new() }
    }

    pub fn median(&self, figure: Figure) -> f64 {
        median(self.rounds.iter().map(figure).collect())
    }

    /// The median of the rounds' ratios: a machine that is slow for a while is slow for both sides.
    pub fn ratio(&self, figure: Figure, to: &[&Self]) -> f64 {
        let rounds = self.rounds.iter().enumerate();
        median(rounds.map(|(at, it)| figure(it) / to.iter().map(|it| figure(&it.rounds[at])).sum::<f64>()).collect())
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => numbers[middle],
        _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

/// The CPU time of a process so far, user and system. A process that has ended can be asked until it is waited for.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let ticks: u64 = fields(&stat).skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
    // Linux shows CPU time in hundredths of a second on every machine (USER_HZ).
    Duration::from_millis(ticks * 10)
}

pub fn has_ended(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| fields(&stat).next() == Some("Z"))
}

/// The fields of a `stat` file from the third, the state, on. The second, a name in brackets, may hold anything, so the
/// text is split after the last bracket.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

/// The largest resident memory of a process since [`forget_peak`].
pub fn peak_mb(pid: u32) -> f64 {
    status_mb(pid, "VmHWM:")
}

pub fn resident_mb(pid: u32) -> f64 {
    status_mb(pid, "VmRSS:")
}

fn status_mb(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let kb = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    kb.expect(name).parse::<f64>().expect("a number") / 1024.0
}

pub fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a process of ours");
}

pub fn micros_each(time: Duration, events: u64) -> f64 {
    time.as_secs_f64() * 1e6 / events.max(1) as f64
}
