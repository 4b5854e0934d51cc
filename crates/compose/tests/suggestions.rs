//! A small company's conversations, learnt from and asked about.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails here has failed"
)]

use std::sync::LazyLock;

use compose::{
    Conversation, Facts, List, Lists, Metadata, Model, ModelError, Options, Response, Role, Suggestion, Training,
    Transcript, Turn, suggest, train,
};

const HELLO: &str = "Welcome to the garden shop, how can I be of service?";
const POT: &str = "Our clay pots are in aisle two.";
const POT_AGAIN: &str = "The clay pots are in aisle two, thank you.";
const SEED: &str = "Sunflower seeds are sold out until spring.";
const BYE: &str = "Have a lovely day in the garden.";
const NAMED: &str = "One moment, {NAME}, the manager is coming.";

fn response(text: &str) -> Response {
    Response { id: format!("id of {text}"), text: text.into(), ..Response::default() }
}

fn company() -> Vec<Response> {
    let name = Metadata { name: "NAME".into(), allowed_values: vec!["customer.name".into()] };
    let mut all: Vec<Response> = [HELLO, POT, POT_AGAIN, SEED, BYE].map(response).into();
    all.push(Response { metadata: vec![name], ..response(NAMED) });
    all
}

fn turn(role: Role, text: &str) -> Turn {
    Turn { role, text: text.into(), response: None, typed: Vec::new() }
}

/// Customers ask for pots or seeds, in turn.
fn transcripts(count: usize) -> Vec<Transcript> {
    let conversation = |at: usize| {
        let (question, answer) = match at % 4 {
            0 => ("do you sell pots of clay", POT),
            1 => ("are there clay pots anywhere", POT_AGAIN),
            2 => ("i want sunflower seeds", SEED),
            _ => ("seeds of sunflowers please", SEED),
        };
        let turns = vec![
            turn(Role::Customer, "hello there"),
            turn(Role::Agent, HELLO),
            turn(Role::Customer, question),
            turn(Role::Agent, answer),
            turn(Role::Customer, "thanks, that is all"),
            turn(Role::Agent, BYE),
        ];
        Transcript { agent: format!("agent {}", at % 3), turns }
    };
    (0..count).map(conversation).collect()
}

static LEARNT: LazyLock<Model> = LazyLock::new(|| learn(0));

fn learn(seed: u64) -> Model {
    train(&transcripts(60), &company(), &Training { seed, ..Training::default() }, |_, _| {})
}

fn ask(model: &Model, own: &[Response], said: &Conversation, typed: &str) -> Vec<Suggestion> {
    let company = List::new(model, company());
    let own = List::new(model, own.iter().cloned());
    suggest(model, &Lists { company: Some(&company), own: Some(&own) }, said, typed, &Options::default())
}

fn texts(shown: &[Suggestion]) -> Vec<&str> {
    shown.iter().map(|one| one.text.as_str()).collect()
}

fn conversation(messages: &[(Role, &str)]) -> Conversation {
    let list = List::new(&Model::default(), company());
    let mut said = Conversation::new("agent 1", Facts::default(), 200);
    for (role, text) in messages {
        said.push(*role, text, list.find(text));
    }
    said
}

#[test]
fn what_was_learnt_comes_first() {
    let model = &*LEARNT;
    let mut said = conversation(&[(Role::Customer, "hello there")]);
    assert_eq!(texts(&ask(model, &[], &said, ""))[0], HELLO);
    said = conversation(&[(Role::Customer, "hello there"), (Role::Agent, HELLO), (Role::Customer, "sunflower seeds?")]);
    assert_eq!(texts(&ask(model, &[], &said, ""))[0], SEED);
    let unprepared = ask(model, &[], &said, "Su");
    said.prepare(model);
    assert_eq!(ask(model, &[], &said, "Su"), unprepared, "a prepared conversation answers alike");
}

#[test]
fn responses_that_say_the_same_are_shown_once() {
    let model = &*LEARNT;
    let said = conversation(&[
        (Role::Customer, "hello there"),
        (Role::Agent, HELLO),
        (Role::Customer, "do you sell pots of clay"),
    ]);
    let shown = ask(model, &[], &said, "");
    let pots = texts(&shown).iter().filter(|text| [POT, POT_AGAIN].contains(text)).count();
    assert_eq!((shown.len(), pots), (3, 1), "{shown:?}");
    assert!(shown[0].text == POT || shown[0].text == POT_AGAIN, "{shown:?}");
}

#[test]
fn a_new_response_is_found_by_its_text() {
    let model = &*LEARNT;
    let own = [response("Rakes and spades hang at the western wall.")];
    let said = conversation(&[
        (Role::Customer, "hello there"),
        (Role::Agent, HELLO),
        (Role::Customer, "where are your rakes"),
    ]);
    assert_eq!(texts(&ask(model, &own, &said, "Rakes a"))[0], own[0].text);
    assert!(texts(&ask(&Model::default(), &own, &said, "")).contains(&own[0].text.as_str()), "without any history too");
}

#[test]
fn a_placeholder_is_filled_or_its_template_is_not_shown() {
    let model = &*LEARNT;
    let mut said = conversation(&[(Role::Customer, "hello there")]);
    assert!(!ask(model, &[], &said, "One moment").iter().any(|one| one.template_text == NAMED));
    said.facts.customer_name = Some("Rosa Green".into());
    let shown = ask(model, &[], &said, "One moment");
    assert_eq!(
        (shown[0].text.as_str(), shown[0].template_text.as_str()),
        ("One moment, Rosa, the manager is coming.", NAMED)
    );
}

#[test]
fn three_are_shown_unless_more_confidence_is_asked_for() {
    let model = &*LEARNT;
    let said = conversation(&[(Role::Customer, "hello there")]);
    let company = List::new(model, company());
    let lists = Lists { company: Some(&company), own: None };
    let shown = |show_min_confidence| suggest(model, &lists, &said, "", &Options { show_min_confidence });
    assert_eq!(shown(0.0).len(), 3);
    assert_eq!(shown(0.5).len(), 3, "{:?}", shown(0.0));
    assert_eq!(shown(1.1).len(), 0);
}

#[test]
fn a_message_that_is_all_typed_needs_no_suggestion_of_itself() {
    let model = &*LEARNT;
    let said = conversation(&[(Role::Customer, "hello there")]);
    assert!(!texts(&ask(model, &[], &said, HELLO)).contains(&HELLO));
    assert_eq!(ask(model, &[], &said, &format!("{HELLO} {HELLO}")), []);
}

#[test]
fn the_same_data_give_the_same_bytes() {
    let bytes = LEARNT.to_bytes();
    assert!(bytes == learn(0).to_bytes());
    assert!(bytes != learn(1).to_bytes());
}

#[test]
fn a_damaged_or_foreign_model_is_refused() {
    let bytes = LEARNT.to_bytes();
    let read = |bytes: &[u8]| Model::from_bytes(bytes).map(|model| model.id());
    assert_eq!(read(&bytes), Ok(LEARNT.id()));
    assert_eq!(read(b""), Err(ModelError::Foreign));
    assert_eq!(read(b"a list of responses"), Err(ModelError::Foreign));
    let changed = |at: usize| {
        bytes.iter().enumerate().map(|(place, byte)| if place == at { byte ^ 1 } else { *byte }).collect::<Vec<u8>>()
    };
    assert_eq!(read(&changed(0)), Err(ModelError::Foreign));
    assert_eq!(read(&changed(8)), Err(ModelError::Version(0)));
    for at in [12, 20, 21, bytes.len() / 2, bytes.len() - 1] {
        assert_eq!(read(&changed(at)), Err(ModelError::Damaged), "byte {at}");
    }
    for length in [9, 13, 21, bytes.len() - 1] {
        assert_eq!(read(&bytes[..length]), Err(ModelError::Damaged), "{length} bytes");
    }
}
