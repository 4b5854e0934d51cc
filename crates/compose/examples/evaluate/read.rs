//! The program's arguments, and the files that they name.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read},
};

use compose::{Response, Role, Transcript, Turn};
use serde_json::Value;

#[derive(Default)]
pub struct Arguments {
    responses: String,
    train: String,
    replay: String,
    /// The number of conversations to learn from: those whose ids have the smallest CRC-32.
    pub conversations: Option<usize>,
    pub seed: u64,
    pub model: Option<String>,
}

impl Arguments {
    pub fn read() -> Arguments {
        let mut found = Arguments::default();
        let mut given = std::env::args().skip(1);
        while let Some(name) = given.next() {
            let value = given.next().unwrap_or_else(|| panic!("{name} needs a value"));
            match name.as_str() {
                "--responses" => found.responses = value,
                "--train" => found.train = value,
                "--replay" => found.replay = value,
                "--conversations" => found.conversations = Some(value.parse().expect("a number of conversations")),
                "--seed" => found.seed = value.parse().expect("a number"),
                "--model" => found.model = Some(value),
                other => panic!("{other}: --responses, --train, --replay, --conversations, --seed, --model"),
            }
        }
        found
    }
}

pub struct Data {
    pub responses: Vec<Response>,
    groups: HashMap<String, String>,
    pub train: Vec<Transcript>,
    pub replay: Vec<Transcript>,
}

impl Data {
    pub fn read(arguments: &Arguments) -> Data {
        let mut train = lines(&arguments.train);
        if let Some(conversations) = arguments.conversations {
            train.sort_by_key(|transcript| {
                let mut sum = flate2::Crc::new();
                sum.update(text(transcript, "id").as_bytes());
                sum.sum()
            });
            train.truncate(conversations);
        }
        let rows = lines(&arguments.responses);
        let group =
            |row: &Value| (text(row, "id"), row.get("group").map_or_else(|| text(row, "id"), |_| text(row, "group")));
        Data {
            groups: rows.iter().map(group).collect(),
            responses: rows.into_iter().map(|row| serde_json::from_value(row).expect("a response")).collect(),
            train: train.iter().map(transcript).collect(),
            replay: lines(&arguments.replay).iter().map(transcript).collect(),
        }
    }

    pub fn group(&self, id: &str) -> &str {
        &self.groups[id]
    }
}

fn lines(path: &str) -> Vec<Value> {
    let file = File::open(path).unwrap_or_else(|why| panic!("{path}: {why}"));
    let reader: Box<dyn Read> =
        if path.ends_with(".gz") { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let lines = BufReader::new(reader).lines().map(|line| line.expect("a line of text"));
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(&line).expect("a line of JSON"))
        .collect()
}

fn transcript(value: &Value) -> Transcript {
    let turns = value["turns"].as_array().expect("turns");
    Transcript { agent: text(value, "agent"), turns: turns.iter().map(turn).collect() }
}

fn turn(value: &Value) -> Turn {
    let typed = value.get("typed").and_then(Value::as_array).into_iter().flatten();
    Turn {
        role: match value["role"].as_str() {
            Some("customer") => Role::Customer,
            Some("agent") => Role::Agent,
            _ => Role::System,
        },
        text: text(value, "text"),
        response: value.get("response").and_then(Value::as_str).map(str::to_owned),
        // Each entry is a text, or a list of a text and its time.
        typed: typed.filter_map(|typed| typed.as_str().or_else(|| typed.get(0)?.as_str())).map(str::to_owned).collect(),
    }
}

fn text(value: &Value, member: &str) -> String {
    match value.get(member) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}
