//! The report of a run: tables, plots, and the parts of `docs/PERFORMANCE.md` that a run writes.

use std::{fmt, fs, path::Path, thread::available_parallelism};

use serde::Serialize;

use super::{
    Plan, RATE,
    figures::{Figure, Series},
    page,
    plot::{self, Bar, Line, Panel},
    sweeps::{Place, Swept, SweptLine},
    table::{Table, number},
};

#[derive(Debug, Serialize)]
pub struct Report {
    machine: String,
    pub closed: Vec<Series>,
    pub open: Vec<Series>,
    pub fresh: Vec<Series>,
    pub idle: Option<Idle>,
    pub sweeps: Vec<Swept>,
}

#[derive(Debug, Serialize)]
pub struct Idle {
    pub cpu_percent: f64,
    pub resident_mb: f64,
    pub connection_kb: f64,
    pub connections: usize,
}

const THROUGHPUT: Figure = |it| it.events_per_second;
const CPU: Figure = |it| it.cpu_us;
const BROKER_CPU: Figure = |it| it.broker_cpu_us;
const GENERATOR_CPU: Figure = |it| it.generator_cpu_us;
const PEAK: Figure = |it| it.peak_mb;
const P50: Figure = |it| it.p50_ms;
const P99: Figure = |it| it.p99_ms;
const P99_9: Figure = |it| it.p99_9_ms;
/// The number of busy cores.
const CORES: Figure = |it| it.cpu_us * it.events_per_second / 1e6;

/// The most that an instance's cores should be busy, so that the instance can take over from another one.
const BUSY: f64 = 0.6;

impl Report {
    pub fn new(plan: &Plan) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let model = model.map_or("unknown processor", |(_, model)| model);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        let machine = format!(
            "{cores} cores ({model}), shared by broker, bridge and generator; {} rounds of {} s each; load average before: {load}",
            plan.rounds, plan.seconds
        );
        Self { machine, closed: Vec::new(), open: Vec::new(), fresh: Vec::new(), idle: None, sweeps: Vec::new() }
    }

    fn closed(&self) -> String {
        let [bare, rdkafka, ..] = self.closed.as_slice() else { return String::new() };
        let is_bridge = |series: &Series| series.label.starts_with("causeway");
        let times = |series: &Series, to: &[&Series]| format!("{} x", number(series.ratio(CPU, to), 2));
        let table = Table::of("256 requests at a time")
            .median("events/s", 0, THROUGHPUT)
            .column("of (a)", |it| format!("{} %", number(100.0 * it.ratio(THROUGHPUT, &[bare]), 0)))
            .median("CPU, us/event", 1, CPU)
            .column("beside (a)", |it| times(it, &[bare]))
            .column("(a) + (b)", |it| if is_bridge(it) { times(it, &[bare, rdkafka]) } else { String::new() })
            .median("broker's", 1, BROKER_CPU)
            .median("generator's", 1, GENERATOR_CPU);
        latencies(table, 1).median("peak, MB", 0, PEAK).print(&self.closed)
    }

    fn paced(first: &str, rows: &[Series]) -> String {
        latencies(Table::of(first), 2)
            .median("CPU, us/event", 0, CPU)
            .median("cores busy", 2, CORES)
            .median("broker's us/event", 0, BROKER_CPU)
            .median("peak, MB", 0, PEAK)
            .print(rows)
    }

    fn idle(&self) -> String {
        self.idle.as_ref().map_or_else(String::new, |idle| {
            format!(
                "Idle: {} % of a core, {} MB resident; {} KB more for each of {} idle connections.\n",
                number(idle.cpu_percent, 1),
                number(idle.resident_mb, 0),
                number(idle.connection_kb, 0),
                number(idle.connections as f64, 0)
            )
        })
    }

    fn load(&self) -> String {
        if self.closed.is_empty() {
            return String::new();
        }
        [
            format!("{}.\n", self.machine),
            self.closed(),
            Self::paced("1,000 events/s, 32 connections", &self.open),
            Self::paced("1,000 events/s, a fresh connection each", &self.fresh),
            self.idle(),
        ]
        .join("\n")
    }

    fn sweeps(&self) -> String {
        let tables = self.sweeps.iter().flat_map(|sweep| {
            sweep.lines.iter().map(|line| {
                let rows: Vec<Series> = line.points.iter().map(|(_, series)| series.clone()).collect();
                Table::of(&format!("{}: {}", line.label, sweep.axis))
                    .median("events/s", 0, THROUGHPUT)
                    .median("CPU, us/event", 1, CPU)
                    .median("broker's", 1, BROKER_CPU)
                    .median("p99, ms", 1, P99)
                    .median("peak, MB", 0, PEAK)
                    .print(&rows)
            })
        });
        tables.collect::<Vec<_>>().join("\n")
    }

    /// The table of the cores to provide, from the CPU time per event at the nearest measured load; beyond the rate
    /// that this machine carried, in proportion.
    fn sizing(&self) -> String {
        let (Some(calm), Some(busy)) = (self.open.last(), self.closed.last()) else { return String::new() };
        let reached = busy.median(THROUGHPUT);
        let mut text = String::from(
            "| events/s | bridge: cores busy | to provide, at 60 % | broker: cores busy, one replica | basis |\n|---:|---:|---:|---:|---|\n",
        );
        for rate in [1_000.0, 10_000.0, 100_000.0] {
            let near = if rate <= RATE { calm } else { busy };
            let cores = rate * near.median(CPU) / 1e6;
            let basis = match rate {
                rate if rate <= RATE => "measured at this rate",
                rate if rate <= reached => "CPU per event of the closed loop, which carried more",
                _ => "extrapolated: CPU per event of the closed loop, in proportion",
            };
            text += &format!(
                "| {} | {} | {} | {} | {basis} |\n",
                number(rate, 0),
                number(cores, 2),
                number(cores / BUSY, 1),
                number(rate * near.median(BROKER_CPU) / 1e6, 2)
            );
        }
        text
    }

    /// The table of instructions of each stage and feed, as counted when the budget was written.
    fn instructions() -> String {
        let counted = |case: &str| {
            let line = include_str!("../instructions.budget").lines().find_map(|line| line.strip_prefix(case));
            line.and_then(|count| count.trim().parse().ok()).map_or_else(String::new, |count| number(count, 0))
        };
        let mut text = String::from("| instructions an event | activity | journey | queue |\n|---|---:|---:|---:|\n");
        for stage in ["translate", "tape", "record", "request"] {
            let [activity, journey, queue] =
                ["activity", "journey", "queue"].map(|feed| counted(&format!("{stage}-{feed} ")));
            text += &format!("| `{stage}` | {activity} | {journey} | {queue} |\n");
        }
        text
    }

    pub fn plot(&self, out: &Path) {
        if !self.closed.is_empty() {
            cpu_bars(&out.join("cpu.svg"), "256 requests at a time", self.closed.iter());
            let bars: Vec<Bar> = self.open.iter().map(|it| Bar { label: it.label.clone(), parts: tail(it) }).collect();
            let title = "Latency at 1,000 events/s over 32 connections, ms";
            plot::bars(&out.join("latency.svg"), title, &["p50", "to p99", "to p99.9"], &bars);
        }
        for sweep in &self.sweeps {
            sweep.plot(out);
        }
    }

    /// Puts the figures between their marks in the page.
    pub fn write(&self, page: &Path) {
        page::put(page, "load", &self.load());
        page::put(page, "sweeps", &self.sweeps());
        page::put(page, "instructions", &Self::instructions());
        page::put(page, "sizing", &self.sizing());
    }
}

impl Swept {
    /// Draws lines where places are numbers, bars where places are names.
    fn plot(&self, out: &Path) {
        let file = out.join(format!("{}.svg", self.name));
        let panel = |title: &str, figure: Figure| Panel {
            title: title.to_owned(),
            lines: self.lines.iter().map(|line| line.over(figure)).collect(),
        };
        if self.lines.iter().flat_map(|line| &line.points).any(|(place, _)| matches!(place, Place::Name(_))) {
            let series = self.lines.iter().flat_map(|line| &line.points).map(|(_, series)| series);
            cpu_bars(&file, self.axis, series);
        } else {
            let panels = [panel("CPU, us/event", CPU), panel("events/s", THROUGHPUT), panel("peak memory, MB", PEAK)];
            plot::lines(&file, self.axis, &panels);
        }
    }
}

impl SweptLine {
    fn over(&self, figure: Figure) -> Line {
        let points = self.points.iter().filter_map(|(place, series)| match place {
            Place::Number(x) => Some((*x, series.median(figure))),
            Place::Name(_) => None,
        });
        Line { label: self.label.to_owned(), points: points.collect() }
    }
}

fn cpu_bars<'a>(file: &Path, of: &str, rows: impl Iterator<Item = &'a Series>) {
    let parts = |series: &Series| vec![series.median(CPU), series.median(BROKER_CPU), series.median(GENERATOR_CPU)];
    let bars: Vec<Bar> = rows.map(|series| Bar { label: series.label.clone(), parts: parts(series) }).collect();
    let title = format!("CPU time per event, us: {of}");
    plot::bars(file, &title, &["server, producer", "broker", "generator"], &bars);
}

fn latencies(table: Table<'_>, digits: usize) -> Table<'_> {
    table.median("p50, ms", digits, P50).median("p99", digits, P99).median("p99.9", digits, P99_9)
}

/// p50, the step from p50 to p99, and the step from p99 to p99.9.
fn tail(series: &Series) -> Vec<f64> {
    let (p50, p99, p99_9) = (series.median(P50), series.median(P99), series.median(P99_9));
    vec![p50, (p99 - p50).max(0.0), (p99_9 - p99).max(0.0)]
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [self.load(), self.sizing(), self.sweeps()].iter().filter(|part| !part.is_empty()) {
            writeln!(out, "{part}")?;
        }
        Ok(())
    }
}
