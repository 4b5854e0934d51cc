//! Each stage by itself: a message that comes in, a keystroke, a word, a text before it is sent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that fails here has failed"
)]

use std::hint::black_box;

use compose::{
    Blocklist, Conversation, Dictionary, Facts, List, Lists, Model, Options, PHRASE_MIN_CONFIDENCE, Response, Role,
    Speller, Training, Transcript, Turn, complete, profanity, spell, suggest, train,
};
use criterion::{Criterion, criterion_group, criterion_main};

const RESPONSES: usize = 5_000;
/// The number of responses with a history.
const SENT: usize = 200;

/// A text for each number. The texts differ in words, as the engine hides digits.
fn text(at: usize) -> String {
    let part = |number: usize| {
        ["lamp", "shelf", "chair", "table", "desk", "rug", "vase", "clock", "mirror", "stool"][number % 10]
    };
    format!("The {} beside the {} goes with a {} and a {}.", part(at), part(at / 10), part(at / 100), part(at / 1_000))
}

/// A message in an agent's own words.
fn free(at: usize) -> String {
    let part = |number: usize| ["carry", "wrap", "paint", "store", "lift"][number % 5];
    format!("we can {} it for you and then {} it until tomorrow morning", part(at), part(at / 5))
}

fn responses() -> Vec<Response> {
    (0..RESPONSES).map(|at| Response { id: at.to_string(), text: text(at), ..Response::default() }).collect()
}

fn model() -> Model {
    let turn = |role, text: String| Turn { role, text, response: None, typed: Vec::new() };
    let conversation = |at: usize| Transcript {
        agent: format!("agent {}", at % 7),
        turns: vec![
            turn(Role::Customer, format!("what goes with {}", text(at % SENT))),
            turn(Role::Agent, text(at % SENT)),
            turn(Role::Agent, free(at)),
        ],
    };
    let transcripts: Vec<Transcript> = (0..2_000).map(conversation).collect();
    train(&transcripts, &responses()[..SENT], &Training { epochs: 1, ..Training::default() }, |_, _| {})
}

fn stages(criterion: &mut Criterion) {
    let model = model();
    let list = List::new(&model, responses());
    let lists = Lists { company: Some(&list), own: None };
    let mut said = Conversation::new("agent 1", Facts::default(), 200);
    for at in 0..10 {
        said.push(Role::Customer, &format!("and what about {}", text(at)), None);
        said.push(Role::Agent, &text(at), list.find(&text(at)));
    }
    said.push(Role::Customer, "which chair goes with the lamp?", None);
    let dictionary = Dictionary::english();
    let blocklist = Blocklist::english();
    let speller = Speller { dictionary: &dictionary, model: &model, said: Some(&said.clone()), own: &[] };
    criterion.bench_function("a message", |bencher| {
        bencher.iter(|| {
            let mut said = said.clone();
            said.push(Role::Customer, black_box("which chair goes with the lamp?"), None);
            said.prepare(&model);
            said
        });
    });
    said.prepare(&model);
    let options = Options::default();
    for typed in ["", "The ch", "The chair beside the desk goes w"] {
        criterion.bench_function(&format!("suggestions of {RESPONSES}, {} characters typed", typed.len()), |bencher| {
            bencher.iter(|| suggest(&model, &lists, &said, black_box(typed), &options));
        });
    }
    assert!(complete(&model, &said, "we can wrap it for y", PHRASE_MIN_CONFIDENCE).is_some());
    criterion.bench_function("completion", |bencher| {
        bencher.iter(|| complete(&model, &said, black_box("we can wrap it for y"), PHRASE_MIN_CONFIDENCE));
    });
    criterion.bench_function("spelling, a right word", |bencher| {
        bencher.iter(|| spell(&speller, black_box("the chair is comfortable "), 24));
    });
    criterion.bench_function("spelling, a wrong word", |bencher| {
        bencher.iter(|| spell(&speller, black_box("the chair is comfrotable "), 24));
    });
    criterion.bench_function("profanity, a message", |bencher| {
        bencher.iter(|| {
            profanity(&blocklist, black_box("The chair beside the desk goes with a lamp, and it is $20 less."))
        });
    });
}

criterion_group!(benches, stages);
criterion_main!(benches);
