//! Phrase completion: the offers for a begun message, and the texts that must never be offered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails here has failed"
)]

use compose::{Conversation, Facts, Model, Role, Training, Transcript, Turn, complete, train};

fn transcript(agent: &str, text: &str) -> Transcript {
    let turn = Turn { role: Role::Agent, text: text.into(), response: None, typed: Vec::new() };
    Transcript { agent: agent.into(), turns: vec![turn] }
}

/// A model that learnt each text from so many conversations of so many agents.
fn learnt(texts: &[(&str, usize, usize)]) -> Model {
    let each = |(text, count, agents): &(&str, usize, usize)| {
        let (text, agents) = ((*text).to_owned(), *agents);
        (0..*count).map(move |at| transcript(&format!("agent {}", at % agents), &text))
    };
    let transcripts: Vec<Transcript> = texts.iter().flat_map(each).collect();
    train(&transcripts, &[], &Training::default(), |_, _| {})
}

fn quiet() -> Conversation {
    Conversation::new("agent 1", Facts::default(), 200)
}

fn after(model: &Model, typed: &str) -> Option<String> {
    complete(model, &quiet(), typed, 0.5).map(|completion| completion.text)
}

#[test]
fn a_phrase_that_many_use_is_completed() {
    let model = learnt(&[("please water the tulips every morning", 20, 3)]);
    assert_eq!(after(&model, "please wat").as_deref(), Some("er the tulips every morning"));
    assert_eq!(after(&model, "Please water the ").as_deref(), Some("tulips every morning"));
    assert_eq!(after(&model, "please water the tulips every morning"), None);
    assert_eq!(after(&model, ""), None);
    assert_eq!(after(&model, "a canoe "), None);
}

#[test]
fn what_too_few_said_is_offered_to_nobody() {
    assert_eq!(
        after(&learnt(&[("the greenhouse password is butterfly", 4, 4)]), "the greenhouse pass"),
        None,
        "four conversations"
    );
    assert_eq!(
        after(&learnt(&[("the greenhouse password is butterfly", 30, 1)]), "the greenhouse pass"),
        None,
        "one agent"
    );
    let model =
        learnt(&[("the greenhouse is open until seven", 20, 3), ("the greenhouse password is butterfly", 4, 2)]);
    assert!(after(&model, "the greenhouse ").is_some_and(|text| text.starts_with("is open")));
    let bytes = model.to_bytes();
    assert!(!bytes.windows(9).any(|part| part == b"butterfly" || part == b"password "), "nor does the model hold it");
}

#[test]
fn no_digit_no_mark_and_no_name_is_offered() {
    let model = learnt(&[
        ("your parcel number is 12345 today", 20, 3),
        ("write to [EMAIL] about the parcel", 20, 3),
        ("thank you kindly Rosalind for waiting", 20, 3),
    ]);
    for typed in [
        "your parcel number is ",
        "your parcel number is 1",
        "write to ",
        "write to [",
        "thank you kindly ",
        "thank you kindly Ros",
    ] {
        assert_eq!(after(&model, typed), None, "{typed}");
    }
}

#[test]
fn a_begun_word_may_repeat_the_customers() {
    let mut said = quiet();
    said.push(Role::Customer, "Where is the chrysanthemum?", None);
    let offer = complete(&Model::default(), &said, "It is beside the Chry", 0.5);
    assert_eq!(offer.map(|offer| offer.text).as_deref(), Some("santhemum"));
    said.push(Role::Customer, "my code is chrysalis99", None);
    assert_eq!(complete(&Model::default(), &said, "chrysal", 0.5), None, "never with a digit");
}
