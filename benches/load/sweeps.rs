//! How cost grows with one thing while all others stay.

use std::{fs, path::PathBuf};

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{
    CLOSED, CONNECTIONS, Kept, PARTITIONS, Plan,
    figures::Series,
    site::{Site, Target},
    support::scratch,
};

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sweep {
    /// Open connections, each with a request under way: 1 to 4,096.
    Connections,
    /// A body's size: 0.5 to 256 KB.
    Bodies,
    /// A topic's partitions: 1 to 96.
    Partitions,
}

/// A line of measurements, each with where it stands on the axis.
#[derive(Debug, Serialize)]
pub struct Swept {
    pub name: &'static str,
    pub axis: &'static str,
    pub lines: Vec<SweptLine>,
}

#[derive(Debug, Serialize)]
pub struct SweptLine {
    pub label: &'static str,
    pub points: Vec<(f64, Series)>,
}

/// What is measured at one place of the axis.
struct Point<'a> {
    line: usize,
    x: f64,
    target: &'a Target,
    load: Kept,
}

const BARE: &str = "(a) bare server";
const BRIDGE: &str = "causeway";

impl Sweep {
    pub const ALL: &'static [Self] = &[Self::Connections, Self::Bodies, Self::Partitions];

    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Bodies => "bodies",
            Self::Partitions => "partitions",
        }
    }

    pub fn run(self, site: &Site, plan: &Plan) -> Swept {
        match self {
            Self::Connections => connections(site, plan),
            Self::Bodies => bodies(site, plan),
            Self::Partitions => partitions(site, plan),
        }
    }
}

fn connections(site: &Site, plan: &Plan) -> Swept {
    let bridge = warm_bridge(site, plan, PARTITIONS);
    let mut points = Vec::new();
    for connections in [1, 4, 16, 64, 256, 1_024, 4_096] {
        for (line, target) in [(0, &bridge), (1, &site.bare)] {
            let load = Kept::generated(connections, CLOSED, plan.seconds);
            points.push(Point { line, x: connections as f64, target, load });
        }
    }
    sweep(site, plan, "connections", "connections", &[BRIDGE, BARE], &points)
}

fn bodies(site: &Site, plan: &Plan) -> Swept {
    let bridge = warm_bridge(site, plan, PARTITIONS);
    let mut points = Vec::new();
    for kb in [0.5, 1.0, 2.0, 4.0, 16.0, 64.0, 256.0] {
        let file = events_of(kb);
        for (line, target) in [(0, &bridge), (1, &site.bare)] {
            let load = Kept::new(64, vec![file.display().to_string()], CLOSED, plan.seconds);
            points.push(Point { line, x: kb, target, load });
        }
    }
    sweep(site, plan, "bodies", "body, KB", &[BRIDGE, BARE], &points)
}

fn partitions(site: &Site, plan: &Plan) -> Swept {
    let counts = [1, 6, 24, 96];
    let bridges = counts.map(|count| (count, warm_bridge(site, plan, count)));
    let points: Vec<_> = bridges
        .iter()
        .map(|(count, bridge)| Point {
            line: 0,
            x: f64::from(*count),
            target: bridge,
            load: Kept::generated(CONNECTIONS, CLOSED, plan.seconds),
        })
        .collect();
    sweep(site, plan, "partitions", "partitions of each topic", &[BRIDGE], &points)
}

fn warm_bridge(site: &Site, plan: &Plan, partitions: u32) -> Target {
    let bridge = site.bridge(partitions, true);
    let count = (plan.warm_events / 4).to_string();
    site.post(&bridge, &["--generate", CLOSED, "--connections", "256", "--count", &count]);
    bridge
}

fn sweep(
    site: &Site,
    plan: &Plan,
    name: &'static str,
    axis: &'static str,
    labels: &[&'static str],
    points: &[Point<'_>],
) -> Swept {
    let mut lines: Vec<_> = labels.iter().map(|label| SweptLine { label, points: Vec::new() }).collect();
    for point in points {
        lines[point.line].points.push((point.x, Series::new(format!("{}", point.x))));
    }
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        for point in points {
            let figures = point.load.measure(site, point.target);
            let (_, series) = lines[point.line].points.iter_mut().find(|(x, _)| *x == point.x).expect("its place");
            series.rounds.push(figures);
        }
    }
    points.iter().for_each(|point| point.target.check());
    Swept { name, axis, lines }
}

/// A file with 64 journey events of so many KB, each of an issue of its own: the larger, the more survey answers.
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
