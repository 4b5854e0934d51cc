//! Measures the engine on past conversations: learns from some, replays others, prints how often the engine was right.
//!
//!     cargo run --release -p compose --example evaluate -- --responses LIST --train FILE --replay FILE
//!
//! Files are JSON lines, `.gz` too. A transcript is
//! `{"id", "agent", "turns": [{"role", "text", "response", "typed"}]}`: `response` is the id of the response that an
//! agent's message was made from, `typed` the texts typed before the message; both may be missing. A response has the
//! API's members, and perhaps `group`: responses of one group say the same. Groups count here alone; the engine is not
//! shown them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "an evaluation that fails has failed"
)]

mod desktop;
mod read;
mod table;
mod writing;

use std::{collections::HashSet, time::Instant};

use compose::{
    Conversation, Facts, List, Lists, Model, Options, PHRASE_MIN_CONFIDENCE, Role, Training, suggest, train,
};

use desktop::Desktop;
use read::{Arguments, Data};
use table::{Rank, Table};

/// The values of least confidence that completions are tried with.
const CONFIDENCES: [f32; 6] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95];
const TURNS_MAX: usize = 200;
/// The numbers of typed characters that queries are tried with.
const TYPED: [usize; 3] = [3, 5, 10];

fn main() {
    let arguments = Arguments::read();
    let data = Data::read(&arguments);
    let began = Instant::now();
    let training = Training { seed: arguments.seed, ..Training::default() };
    let model =
        train(&data.train, &data.responses, &training, |epoch, loss| eprintln!("epoch {epoch}: loss {loss:.4}"));
    let trained = began.elapsed().as_secs_f64();
    let bytes = model.to_bytes();
    if let Some(path) = &arguments.model {
        std::fs::write(path, &bytes).expect("the model is written");
    }
    let model = Model::from_bytes(&bytes).expect("a model that was just written is read back");
    eprintln!("{} classes, {} bytes, {trained:.1} s", model.classes(), bytes.len());
    let began = Instant::now();
    let mut table = Table::new(&CONFIDENCES);
    replay(&model, &data, &mut table);
    table.writing = writing::check(&model, &data.replay);
    let json = table.json(&arguments, &data, &model, trained, bytes.len(), began.elapsed().as_secs_f64());
    table.print();
    println!("{json}");
}

/// Asks the engine at each agent's turn as a desktop would, and counts the right answers.
fn replay(model: &Model, data: &Data, table: &mut Table) {
    let list = List::new(model, data.responses.iter().cloned());
    let lists = Lists { company: Some(&list), own: None };
    let seen: HashSet<String> = agent_texts(&data.train).map(|text| text.trim().to_lowercase()).collect();
    for transcript in &data.replay {
        let mut said = Conversation::new(&transcript.agent, Facts::default(), TURNS_MAX);
        let agent_turns: Vec<usize> = transcript
            .turns
            .iter()
            .enumerate()
            .filter(|(_, turn)| turn.role == Role::Agent)
            .map(|(at, _)| at)
            .collect();
        for (at, turn) in transcript.turns.iter().enumerate().filter(|(_, turn)| !turn.text.trim().is_empty()) {
            let from = turn.response.as_deref().and_then(|id| list.responses().find(|response| response.id == id));
            if turn.role == Role::Agent {
                said.prepare(model);
                let group = from.map(|response| data.group(&response.id));
                let ask = |typed: &str| {
                    let shown = suggest(model, &lists, &said, typed, &Options::default());
                    let at = shown.iter().position(|one| Some(data.group(&one.id)) == group);
                    let exact = shown.iter().position(|one| from.is_some_and(|response| response.id == one.id));
                    Rank {
                        group: at,
                        exact,
                        score: shown.first().map_or(0.0, |first| first.score),
                        covered: group.is_some(),
                    }
                };
                let position = match at {
                    _ if at == agent_turns[0] => "greeting",
                    _ if at == agent_turns[agent_turns.len() - 1] => "closing",
                    _ => "middle",
                };
                let known = if seen.contains(&turn.text.trim().to_lowercase()) { "text seen" } else { "text unseen" };
                let empty = ask("");
                ["nothing typed", position, known].iter().for_each(|row| table.add(row, empty));
                let typed = turn.typed.iter().rev().map(|typed| typed.trim()).find(|typed| !typed.is_empty());
                for (source, text) in [("search words", typed), ("text", Some(turn.text.trim()))] {
                    for (chars, text) in TYPED.iter().zip(std::iter::repeat(text)) {
                        if let Some(text) = text {
                            let prefix: String = text.chars().take(*chars).collect();
                            table.add(&format!("{chars} characters of {source}"), ask(&prefix));
                        }
                    }
                }
            }
            if turn.role == Role::Agent {
                for (min_confidence, counts) in &mut table.phrases {
                    if from.is_none() {
                        Desktop { model, lists: &lists, said: &said, min_confidence: *min_confidence }
                            .phrases(turn.text.trim(), counts);
                    }
                }
                let mut desktop = Desktop { model, lists: &lists, said: &said, min_confidence: PHRASE_MIN_CONFIDENCE };
                desktop.both(turn.text.trim(), from, &mut table.pipeline);
            }
            said.push(turn.role, &turn.text, from);
        }
    }
}

fn agent_texts(transcripts: &[compose::Transcript]) -> impl Iterator<Item = &str> {
    let turns = transcripts.iter().flat_map(|transcript| &transcript.turns);
    turns.filter(|turn| turn.role == Role::Agent).map(|turn| turn.text.as_str())
}
