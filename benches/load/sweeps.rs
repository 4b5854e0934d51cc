//! Sweeps: measurements that change one thing while all others stay.

use std::{fmt, fs, path::PathBuf};

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{
    CONNECTIONS, Plan,
    figures::Series,
    kept::{self, CLOSED, Kept},
    site::{Site, Target},
    support::{bridge::Setup, scratch},
    table,
};

/// The thing that a sweep changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sweep {
    /// Open connections, each with a request under way: 1 to 4,096.
    Connections,
    /// A body's size: 0.5 to 256 KB.
    Bodies,
    /// A topic's partitions: 1 to 96.
    Partitions,
    /// The number of keys: 1 to 1,000,000.
    Keys,
    /// All feeds mixed, or a single one.
    Feeds,
    /// The window of recently committed events: none, never full, full.
    Window,
    /// The bridge's cores: one or two.
    Cores,
}

/// The lines of measurements of a sweep.
#[derive(Debug, Serialize)]
pub struct Swept {
    pub name: &'static str,
    pub axis: &'static str,
    pub lines: Vec<SweptLine>,
}

#[derive(Debug, Serialize)]
pub struct SweptLine {
    pub label: &'static str,
    pub points: Vec<(Place, Series)>,
}

/// The place of a measurement on the axis.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum Place {
    Number(f64),
    Name(&'static str),
}

/// A measurement to be taken at one place of the axis.
struct Point<'a> {
    line: &'static str,
    place: Place,
    target: &'a Target,
    load: Kept,
}

const BARE: &str = "(a) bare server";
const BRIDGE: &str = "causeway";

impl Sweep {
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Bodies => "bodies",
            Self::Partitions => "partitions",
            Self::Keys => "keys",
            Self::Feeds => "feeds",
            Self::Window => "window",
            Self::Cores => "cores",
        }
    }

    pub fn run(self, site: &Site, plan: &Plan) -> Swept {
        let (axis, lines) = match self {
            Self::Connections => ("connections", connections(site, plan)),
            Self::Bodies => ("body, KB", bodies(site, plan)),
            Self::Partitions => ("partitions of each topic", partitions(site, plan)),
            Self::Keys => ("keys, journey alone", keys(site, plan)),
            Self::Feeds => ("feeds", feeds(site, plan)),
            Self::Window => ("dedupe window", window(site, plan)),
            Self::Cores => ("cores that the bridge may use", cores(site, plan)),
        };
        Swept { name: self.name(), axis, lines }
    }
}

fn connections(site: &Site, plan: &Plan) -> Vec<SweptLine> {
    let bridge = warm_bridge(site, plan, |setup| setup);
    let points = [1, 4, 16, 64, 256, 1_024, 4_096].into_iter().flat_map(|connections| {
        beside_bare(site, &bridge, f64::from(connections), || {
            Kept::generated(connections as usize, CLOSED, plan.seconds)
        })
    });
    sweep(site, plan, &points.collect::<Vec<_>>())
}

fn bodies(site: &Site, plan: &Plan) -> Vec<SweptLine> {
    let bridge = warm_bridge(site, plan, |setup| setup);
    let points = [0.5, 1.0, 2.0, 4.0, 16.0, 64.0, 256.0].into_iter().flat_map(|kb| {
        let file = events_of(kb);
        let file = file.to_str().expect("a path");
        beside_bare(site, &bridge, kb, || Kept::new(64, &[file], CLOSED, plan.seconds))
    });
    sweep(site, plan, &points.collect::<Vec<_>>())
}

/// One load for both the bridge and the bare server.
fn beside_bare<'a>(site: &'a Site, bridge: &'a Target, at: f64, load: impl Fn() -> Kept) -> [Point<'a>; 2] {
    [(BRIDGE, bridge), (BARE, &site.bare)].map(|(line, target)| {
        let place = Place::Number(at);
        Point { line, place, target, load: load() }
    })
}

fn partitions(site: &Site, plan: &Plan) -> Vec<SweptLine> {
    let bridges = [1, 6, 24, 96].map(|count: u32| {
        let bridge = warm_bridge(site, plan, |setup| setup.set("kafka.topics.partitions", &count.to_string()));
        (Place::Number(f64::from(count)), bridge)
    });
    sweep_bridges(site, plan, &bridges)
}

fn keys(site: &Site, plan: &Plan) -> Vec<SweptLine> {
    let bridge = warm_bridge(site, plan, |setup| setup);
    let points = [1, 100, 10_000, 1_000_000].map(|keys: u32| {
        let source = ["--generate", "--feed", "journey", "--issues", &keys.to_string()];
        let load = Kept::new(CONNECTIONS, &source, CLOSED, plan.seconds);
        Point { line: BRIDGE, place: Place::Number(f64::from(keys)), target: &bridge, load }
    });
    sweep(site, plan, &points)
}

fn feeds(site: &Site, plan: &Plan) -> Vec<SweptLine> {
    let bridge = warm_bridge(site, plan, |setup| setup);
    let single = |name| (name, vec!["--generate", "--feed", name]);
    let feeds = [("all three", vec!["--generate"]), single("activity"), single("journey"), single("queue")];
    let points = feeds.map(|(name, source)| {
        let load = Kept::new(CONNECTIONS, &source, CLOSED, plan.seconds);
        Point { line: BRIDGE, place: Place::Name(name), target: &bridge, load }
    });
    sweep(site, plan, &points)
}

fn window(site: &Site, plan: &Plan) -> Vec<SweptLine> {
    let sizes = [("none", "0", false), ("64 MB, never full", "67108864", false), ("16 MB, full", "16777216", true)];
    let bridges = sizes.map(|(name, bytes, full)| {
        let bridge = warm_bridge(site, plan, |setup| setup.set("dedupe.bytes_max", bytes));
        while full && forgotten(&bridge) == 0.0 {
            kept::warm(site, &bridge, 20_000);
        }
        (Place::Name(name), bridge)
    });
    let lines = sweep_bridges(site, plan, &bridges);
    assert_eq!(forgotten(&bridges[1].1), 0.0, "it never was full");
    lines
}

/// The number of events that were forgotten because the window was full.
fn forgotten(bridge: &Target) -> f64 {
    bridge.metric("causeway_dedupe_forgotten_early_total")
}

fn cores(site: &Site, plan: &Plan) -> Vec<SweptLine> {
    let bridges = [(1, "one"), (2, "two")].map(|(cores, name)| {
        let bridge = warm_bridge(site, plan, |setup| setup.cores(cores));
        (Place::Name(name), bridge)
    });
    sweep_bridges(site, plan, &bridges)
}

fn warm_bridge(site: &Site, plan: &Plan, change: impl FnOnce(Setup) -> Setup) -> Target {
    let bridge = site.bridge_with(true, change);
    kept::warm(site, &bridge, plan.warm_events / 4);
    bridge
}

/// Measures bridges that differ, under one load.
fn sweep_bridges(site: &Site, plan: &Plan, bridges: &[(Place, Target)]) -> Vec<SweptLine> {
    let points = bridges.iter().map(|(place, target)| {
        let load = Kept::generated(CONNECTIONS, CLOSED, plan.seconds);
        Point { line: BRIDGE, place: *place, target, load }
    });
    sweep(site, plan, &points.collect::<Vec<_>>())
}

fn sweep(site: &Site, plan: &Plan, points: &[Point<'_>]) -> Vec<SweptLine> {
    let mut found: Vec<Series> = points.iter().map(|point| Series::new(point.place.to_string())).collect();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        for (point, series) in points.iter().zip(&mut found) {
            series.rounds.push(point.load.measure(site, point.target));
        }
    }
    points.iter().for_each(|point| point.target.check());
    let mut lines: Vec<SweptLine> = Vec::new();
    for (point, series) in points.iter().zip(found) {
        let measured = (point.place, series);
        match lines.iter_mut().find(|line| line.label == point.line) {
            Some(line) => line.points.push(measured),
            None => lines.push(SweptLine { label: point.line, points: vec![measured] }),
        }
    }
    lines
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) if number.fract() == 0.0 => out.write_str(&table::number(*number, 0)),
            Self::Number(number) => write!(out, "{number}"),
            Self::Name(name) => out.write_str(name),
        }
    }
}

/// A file with 64 journey events of `kb` KB, each of an issue of its own. Survey answers bring an event to its size.
fn events_of(kb: f64) -> PathBuf {
    let file = scratch::dir("bodies").join("events.ndjson");
    let lines: Vec<String> = (0..64).map(|issue| event_of((kb * 1024.0) as usize, issue)).collect();
    fs::write(&file, lines.join("\n")).expect("a file");
    file
}

fn event_of(bytes: usize, issue: usize) -> String {
    let mut event = json!({
        "api_version": "v1.3.0",
        "name": "com.asapp.event.journey",
        "meta_data": {"create_time": "2025-10-01T13:03:35.360Z", "event_time": "2025-10-01T13:03:35.360Z",
            "issue_id": format!("01JTSRZ3ZR9KFB28J7ABCX{issue:04}"), "company_id": "acme", "client_type": "SMS"},
        "data": {"customer_id": "01JTSRZ3ZR9KFB28J7ABCX0000", "session_type": "asapp-sms"},
        "event_id": format!("8f14e45f-ceea-4e7a-9a57-00000000{issue:04}"),
        "event_type": "SURVEY_SUBMITTED",
        "details": {"survey_submit_ts": "2025-10-01T13:03:35.360Z", "survey_responses": []},
    });
    let answer = json!({"question": "How likely are you to recommend us to a friend or colleague?", "question_type": "SCALE",
        "question_category": "NPS", "answer": "9", "ordering": 1});
    let each = answer.to_string().len() + 1;
    let bare = event.to_string().len();
    let answers = bytes.saturating_sub(bare) / each;
    event["details"]["survey_responses"] = Json::Array(vec![answer; answers]);
    let rest = bytes.saturating_sub(event.to_string().len() + r#","last_assignment_summary_text":"""#.len());
    event["details"]["last_assignment_summary_text"] = "x".repeat(rest).into();
    event.to_string()
}
