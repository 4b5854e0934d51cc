//! No input causes a panic, and equal input gives equal answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails here has failed"
)]

use std::sync::LazyLock;

use compose::{
    Blocklist, Conversation, Dictionary, Facts, List, Lists, Model, Options, Response, Role, Speller, Training,
    Transcript, Turn, complete, profanity, spell, suggest, train,
};
use proptest::prelude::*;

static ENGLISH: LazyLock<Dictionary> = LazyLock::new(Dictionary::english);
static BLOCKLIST: LazyLock<Blocklist> = LazyLock::new(Blocklist::english);
static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let texts = ["The boat leaves at noon.", "Which harbour do you mean?", "we wish you a calm sea"];
    let turn = |role, text: &str| Turn { role, text: text.into(), response: None, typed: Vec::new() };
    let conversation = |at: usize| Transcript {
        agent: format!("agent {}", at % 2),
        turns: vec![turn(Role::Customer, ["when", "from where", "thanks"][at % 3]), turn(Role::Agent, texts[at % 3])],
    };
    let transcripts: Vec<Transcript> = (0..30).map(conversation).collect();
    train(&transcripts, &responses(), &Training::default(), |_, _| {})
});

fn responses() -> Vec<Response> {
    let response = |text: &&str| Response { id: (*text).into(), text: (*text).into(), ..Response::default() };
    ["The boat leaves at noon.", "Which harbour do you mean?", "Ask {WHO} for [what]."].iter().map(response).collect()
}

/// All answers of the engine about a text, as one value.
fn answers(text: &str, earlier: &str, end: usize) -> String {
    let company = List::new(&MODEL, responses());
    let own = List::new(&MODEL, [Response { text: earlier.into(), ..Response::default() }]);
    let lists = Lists { company: Some(&company), own: Some(&own) };
    let mut said = Conversation::new("agent", Facts { customer_name: Some(text.into()), ..Facts::default() }, 3);
    for role in [Role::Customer, Role::Agent, Role::System, Role::Customer] {
        said.push(role, earlier, own.find(earlier));
        said.push(role, text, company.find(text));
    }
    let speller = Speller { dictionary: &ENGLISH, model: &MODEL, said: Some(&said), own: &[] };
    let shown = suggest(&MODEL, &lists, &said, text, &Options::default());
    assert!(shown.len() <= 3);
    let completion = complete(&MODEL, &said, text, 0.1);
    if let Some(completion) = &completion {
        assert!(!completion.text.chars().any(|c| c.is_numeric() || matches!(c, '[' | ']' | '@')), "{completion:?}");
    }
    let correction = spell(&speller, text, end);
    if let Some(correction) = &correction {
        assert_eq!(text[correction.place.clone()], correction.misspelled);
    }
    format!("{shown:?} {completion:?} {correction:?} {}", profanity(&BLOCKLIST, text))
}

/// Text as people write it, and arbitrary text.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,80}",
        "[a-zA-Z'@$.,!?\\[\\]{}0-9 \u{2019}\u{1f600}\u{301}-]{0,80}",
        "(the|boat|leaves|at|noon|harbur|wich|you|sea| |\\.|\\{WHO\\}|[a-z]{1,6}){0,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_gets_the_same_answer_twice(text in text(), earlier in text(), end in 0usize..100) {
        prop_assert_eq!(answers(&text, &earlier, end), answers(&text, &earlier, end));
    }

    #[test]
    fn any_bytes_are_a_model_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..10_000) {
        prop_assert!(Model::from_bytes(&bytes).is_err());
        let mut changed = MODEL.to_bytes();
        let at = at % changed.len();
        changed.splice(at.., bytes);
        let _ = Model::from_bytes(&changed);
    }
}

#[test]
fn a_text_of_a_quarter_megabyte_is_a_text() {
    for part in [
        "a",
        "a ",
        "{",
        "[a]",
        "{WHO}",
        "\u{1f600}",
        "\u{301}",
        "f*ck1 ",
        "x y z ",
        "recieve ",
        "\u{fdfa}\n",
        "''''",
        "@",
    ] {
        let long = part.repeat(250_000 / part.len());
        answers(&long, "short", long.len() - 1);
        answers("short", &long, 3);
    }
}

/// A conversation stops growing: it prints about as long after many messages as after more.
#[test]
fn a_conversation_is_bounded() {
    let mut said = Conversation::new("agent", Facts::default(), 200);
    let company = List::new(&MODEL, responses());
    let mut sizes = Vec::new();
    for message in 0..6_000u32 {
        let text: String = (0..4)
            .map(|word| format!("w{} ", (message * 4 + word).to_string().replace(|c: char| c.is_numeric(), "x")))
            .collect();
        said.push(Role::Customer, &format!("{text} {}", char::from_u32(0x4e00 + message).unwrap()), None);
        said.push(Role::Agent, "The boat leaves at noon.", company.find("The boat leaves at noon."));
        if message % 2_000 == 1_999 {
            sizes.push(format!("{said:?}").len());
        }
    }
    let (early, late) = (sizes[1], sizes[2]);
    assert!(late <= early + early / 10, "{sizes:?}");
}
