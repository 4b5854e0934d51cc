//! The bridge (`causeway serve` before a real, warm broker) beside its limits: a bare server with the same TLS, and
//! rdkafka alone with the same records. docs/PERFORMANCE.md explains the figures.
//!
//! Every arm is a process of its own. Each round measures all arms, one after the other; arms are compared round by
//! round.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that fails here has failed"
)]

mod figures;
mod flame;
mod kept;
mod page;
mod plot;
mod produce;
mod report;
mod site;
mod sweeps;
mod table;

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use harness::{self as support, bare};

use self::{
    figures::{Figures, Series},
    flame::Profiler,
    kept::{CLOSED, Kept},
    report::{Idle, Report},
    site::{Site, Target},
    sweeps::Sweep,
};

/// Causeway beside its limits.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench -p causeway --bench load --")]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// The length of each measurement.
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// The number of times that each measurement is taken.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Take two rounds of a second on a barely warm broker, to show that everything runs.
    #[arg(long)]
    quick: bool,
    /// Leave the main run out, and measure how the cost grows with this.
    #[arg(long, value_name = "NAME")]
    sweep: Vec<Sweep>,
    /// Do the main run and every sweep; write figures and plots into docs/PERFORMANCE.md and docs/img.
    #[arg(long, conflicts_with = "sweep")]
    docs: bool,
    /// Profile the bridge in the closed loop instead; write the flame graph and its table into the same places.
    #[arg(long, conflicts_with_all = ["sweep", "docs", "json"])]
    flame: bool,
    /// Print every figure of every round as JSON.
    #[arg(long)]
    json: bool,
    /// The folder for the plots [default: target/load].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The flag that cargo gives every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The roles in which this program starts itself.
#[derive(Debug, clap::Subcommand)]
enum Role {
    #[command(hide = true)]
    Bare { dir: PathBuf },
    #[command(hide = true)]
    Produce(produce::Args),
}

/// The extent of the measurements.
pub struct Plan {
    seconds: f64,
    rounds: usize,
    warm_events: u64,
}

fn main() {
    let args = Args::parse();
    match &args.role {
        Some(Role::Bare { dir }) => bare::run(dir),
        Some(Role::Produce(args)) => {
            println!("{}", serde_json::to_string(&produce::run(args)).expect("JSON"));
        }
        None => run(&args),
    }
}

fn run(args: &Args) {
    // A broker needs this many events after its start until its JIT compiler has done its work.
    let whole = Plan { seconds: args.seconds, rounds: args.rounds, warm_events: 200_000 };
    let plan = if args.quick { Plan { seconds: 1.0, rounds: 2, warm_events: 5_000 } } else { whole };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = root.join("docs/PERFORMANCE.md");
    let to_docs = args.docs || args.flame;
    let out = args.out.clone().unwrap_or_else(|| root.join(if to_docs { "docs/img" } else { "target/load" }));
    std::fs::create_dir_all(&out).expect("a folder for the plots");
    let profiler = args.flame.then(Profiler::find);
    let site = Site::new();
    if let Some(profiler) = profiler {
        let profile = profiler.run(&site, &plan, &out.join("flame.svg"));
        println!("{profile}");
        return page::put(&page, "profile", &profile);
    }
    let mut report = Report::new(&plan);
    if args.sweep.is_empty() {
        main_run(&site, &plan, &mut report);
    }
    let sweeps = if args.docs { Sweep::value_variants() } else { &args.sweep };
    for sweep in sweeps {
        eprintln!("sweep: {}", sweep.name());
        report.sweeps.push(sweep.run(&site, &plan));
    }
    report.plot(&out);
    if args.docs {
        report.write(&page);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("JSON"));
    } else {
        print!("{report}");
        println!("plots: {}", out.display());
    }
}

/// The number of requests at a time in the closed loop.
const CONNECTIONS: usize = 256;
const PARTITIONS: u32 = 6;
/// The events a second of the open loops: the most that one sender posts.
const RATE: f64 = 1_000.0;
const RATE_CONNECTIONS: usize = 32;

fn main_run(site: &Site, plan: &Plan, report: &mut Report) {
    let bridges = [site.bridge(false), site.bridge(true)];
    let events = support::scratch::dir("events").join("events.ndjson");
    let save = ["--generate", "--closed-loop", "--count", "20000", "--save", events.to_str().expect("a path")];
    site.bare.send(&save);
    site.topics("rdkafka", PARTITIONS as i32);
    warm(site, plan, &bridges);
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        let alone = |in_flight, rate| site.produce(&events, "rdkafka", in_flight, rate, plan.seconds);
        let targets = || [("causeway", &bridges[0]), ("causeway, registry", &bridges[1])];
        let closed = Kept::generated(CONNECTIONS, CLOSED, plan.seconds);
        push(&mut report.closed, "(a) bare server", closed.measure(site, &site.bare));
        push(&mut report.closed, "(b) rdkafka alone", alone(CONNECTIONS, None));
        for (label, bridge) in targets() {
            push(&mut report.closed, label, closed.measure(site, bridge));
        }
        let open = Kept::generated(RATE_CONNECTIONS, &format!("--rate={RATE}"), plan.seconds);
        push(&mut report.open, "(a) bare server", open.measure(site, &site.bare));
        push(&mut report.open, "(b) rdkafka alone", alone(CONNECTIONS, Some(RATE)));
        for (label, bridge) in targets() {
            push(&mut report.open, label, open.measure(site, bridge));
        }
        let (rate, seconds) = (format!("--rate={RATE}"), plan.seconds.to_string());
        let fresh = ["--generate", "--fresh", "--connections", "64", &rate, "--seconds", &seconds];
        push(&mut report.fresh, "(a) bare server", site.post(&site.bare, &fresh));
        push(&mut report.fresh, "causeway, registry", site.post(&bridges[1], &fresh));
    }
    bridges.iter().for_each(Target::check);
    report.idle = Some(idle(site, plan));
}

fn push(series: &mut Vec<Series>, label: &str, figures: Figures) {
    match series.iter_mut().find(|series| series.label == label) {
        Some(series) => series.rounds.push(figures),
        None => series.push(Series { label: label.to_owned(), rounds: vec![figures] }),
    }
}

/// Warms broker, bridges and bare server until their speed is steady.
fn warm(site: &Site, plan: &Plan, bridges: &[Target]) {
    for target in bridges.iter().chain([&site.bare]) {
        kept::warm(site, target, plan.warm_events / bridges.len() as u64);
    }
}

/// The cost of a bridge that nobody talks to, without connections and with idle ones.
fn idle(site: &Site, plan: &Plan) -> Idle {
    let bridge = site.bridge(true);
    let time = std::time::Duration::from_secs_f64(plan.seconds * 2.0);
    let (cpu, alone_mb) = bridge.idle(time);
    let connections = if plan.warm_events < 200_000 { 200 } else { 2_000 };
    let with_mb = bridge.with_idle_connections(connections);
    let idle = Idle {
        cpu_percent: 100.0 * cpu.as_secs_f64() / time.as_secs_f64(),
        resident_mb: alone_mb,
        connection_kb: (with_mb - alone_mb) * 1024.0 / connections as f64,
        connections,
    };
    // These figures hardly depend on other load on the machine, so every run can check them.
    assert!(idle.cpu_percent < 3.0 && idle.resident_mb < 28.0 && idle.connection_kb < 40.0, "idle: {idle:?}");
    idle
}
