//! The bridge's CPU profile: its stacks under the closed loop, as perf samples them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    CONNECTIONS, Plan,
    kept::{self, CLOSED},
    site::Site,
    support::scratch,
    table::number,
};

/// The proof that the programs which take the profile are installed.
pub struct Profiler;

/// The time for connections to open, in which nothing is sampled.
const OPENED_AFTER_SECONDS: f64 = 2.0;
const SAMPLES_A_SECOND: &str = "499";
/// The least width of a frame that is drawn, in percent of the graph.
const WIDTH_MIN: &str = "0.3";

/// The parts that are whole threads, by the beginnings of their names.
const THREADS: &[(&str, &[&str])] = &[
    ("librdkafka's threads: batches, compression, checksums, its sockets in the kernel", &["rdk:"]),
    ("reports and gates, a thread of its own", &["pace"]),
];

/// The parts on all other threads, by marks in frames' names: a sample belongs to its innermost frame with a mark.
const FRAMES: &[(&str, &[&str])] = &[
    ("kernel: writing to connections", &["tcp_sendmsg", "writev", "libc_send"]),
    ("kernel: reading from connections", &["tcp_recvmsg", "libc_recv", "libc_read"]),
    ("kernel: waking and waiting", &["libc_write", "epoll", "futex", "lll_lock", "nanosleep"]),
    ("TLS", &["rustls", "aws_lc"]),
    ("HTTP", &["hyper::", "http::", "httparse"]),
    (
        "translation: JSON, Avro, hash",
        &["causeway::event", "causeway::transcode", "causeway::record", "simd_json", "xxh"],
    ),
    ("hand-over to librdkafka", &["rd_kafka", "rdkafka::"]),
    ("ingress and bridge: limits, window, waiting request", &["causeway::"]),
    ("tokio, and what was compiled into it", &["tokio"]),
];
const REST: &str = "the rest";

impl Profiler {
    pub fn find() -> Self {
        for (tool, remedy) in [
            ("perf", "install linux-perf"),
            ("inferno-collapse-perf", "cargo install inferno"),
            ("inferno-flamegraph", "cargo install inferno"),
        ] {
            let found = Command::new(tool).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
            assert!(found.is_ok(), "{tool} is missing: {remedy}");
        }
        Self
    }

    /// Draws the flame graph, and returns the table of the parts' shares.
    pub fn run(&self, site: &Site, plan: &Plan, svg: &Path) -> String {
        let bridge = site.bridge(true);
        kept::warm(site, &bridge, plan.warm_events);
        let dir = scratch::dir("profile");
        let (data, folded) = (dir.join("perf.data"), dir.join("folded.txt"));
        let lasts = OPENED_AFTER_SECONDS + plan.seconds * plan.rounds as f64;
        let mut record = Command::new("perf");
        record.args(["record", "--quiet", "--event", "cpu-clock", "--freq", SAMPLES_A_SECOND]);
        record.args(["--call-graph", "dwarf,16384", "--delay", &(1e3 * OPENED_AFTER_SECONDS).to_string()]);
        record.arg("--output").arg(&data).args(["--pid", &bridge.pid().to_string(), "sleep", &lasts.to_string()]);
        let mut record = record.spawn().expect("perf starts");
        let (connections, seconds) = (CONNECTIONS.to_string(), (lasts + 1.0).to_string());
        site.post(&bridge, &["--generate", CLOSED, "--connections", &connections, "--seconds", &seconds]);
        assert!(record.wait().expect("its end").success(), "perf record: see above");
        bridge.check();

        let mut script = Command::new("perf");
        // Each sample counts as one, as these fields leave out its period.
        script
            .args(["script", "--no-inline", "--fields", "comm,pid,tid,time,event,ip,sym,dso", "--input"])
            .arg(&data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut script = script.spawn().expect("perf starts");
        let stacks = output(Command::new("inferno-collapse-perf").stdin(script.stdout.take().expect("its output")));
        assert!(script.wait().expect("its end").success(), "perf script");
        fs::write(&folded, &stacks).expect("a file");
        let mut graph = Command::new("inferno-flamegraph");
        graph.args(["--minwidth", WIDTH_MIN, "--title", "The bridge, 256 connections, closed loop"]).arg(&folded);
        fs::write(svg, output(&mut graph)).expect("a file");
        eprintln!("stacks: {}", folded.display());
        table(&stacks)
    }
}

fn output(command: &mut Command) -> String {
    let said = command.stderr(Stdio::inherit()).output().expect("it starts");
    assert!(said.status.success(), "{command:?}: {}", said.status);
    String::from_utf8(said.stdout).expect("text")
}

/// Each part's share of all samples of `thread;outermost frame;..;innermost frame count` lines.
fn table(stacks: &str) -> String {
    let parts: Vec<&str> = THREADS.iter().chain(FRAMES).map(|(part, _)| *part).chain([REST]).collect();
    let mut counts = vec![0; parts.len()];
    for line in stacks.lines() {
        let (stack, count) = line.rsplit_once(' ').expect("a count");
        let at = parts.iter().position(|part| *part == part_of(stack)).expect("a part");
        counts[at] += count.parse::<u64>().expect("a number");
    }
    let all: u64 = counts.iter().sum();
    let mut text = format!("| where a microsecond goes, of {} samples | share |\n|---|---:|\n", number(all as f64, 0));
    for (part, count) in parts.iter().zip(counts) {
        text += &format!("| {part} | {} % |\n", number(100.0 * count as f64 / all as f64, 1));
    }
    text
}

fn part_of(stack: &str) -> &'static str {
    let (thread, frames) = stack.split_once(';').unwrap_or((stack, ""));
    let known = |rows: &[(&'static str, &[&str])], is: &dyn Fn(&str) -> bool| {
        rows.iter().find(|(_, marks)| marks.iter().any(|mark| is(mark))).map(|(part, _)| *part)
    };
    let whole = known(THREADS, &|mark| thread.starts_with(mark));
    whole.or_else(|| frames.rsplit(';').find_map(|frame| known(FRAMES, &|mark| frame.contains(mark)))).unwrap_or(REST)
}
