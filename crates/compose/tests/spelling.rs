//! Spelling: the words that are corrected, and those that are left alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails here has failed"
)]

use std::sync::LazyLock;

use compose::{Conversation, Dictionary, Facts, Model, Role, Speller, spell};

static ENGLISH: LazyLock<Dictionary> = LazyLock::new(Dictionary::english);
static EMPTY: LazyLock<Model> = LazyLock::new(Model::default);

fn plain() -> Speller<'static> {
    Speller { dictionary: &ENGLISH, model: &EMPTY, said: None, own: &[] }
}

/// The correction of the word before the text's last character, a blank.
fn corrected(speller: &Speller, text: &str) -> Option<String> {
    let correction = spell(speller, text, text.len() - 1)?;
    assert_eq!(text[correction.place.clone()], correction.misspelled);
    Some(correction.corrected)
}

#[test]
fn common_slips_are_mended() {
    for (text, right) in [
        ("How is tihs ", "this"),
        ("we will recieve ", "receive"),
        ("Teh ", "The"),
        ("that is definately ", "definitely"),
        ("you can acces ", "access"),
        ("a seperate ", "separate"),
        ("(adress, ", "address"),
        ("\u{1f600} tomorow ", "tomorrow"),
        ("please wiat ", "wait"),
    ] {
        assert_eq!(corrected(&plain(), text).as_deref(), Some(right), "{text}");
    }
}

#[test]
fn what_may_be_right_is_left_alone() {
    for text in [
        "the colour ",
        "the 'garden' ",
        "my parents\u{2019} ",
        "we organise ",
        "I don\u{2019}t ",
        "I can't ",
        "on the 21st ",
        "code AB12x ",
        "see www.exampel.com ",
        "mail jo@exampel.com ",
        "the iPhnoe ",
        "the NATOO ",
        "dear Mr Brwon ",
        "hmmmm ",
        "to ",
        "xqzvvk ",
        " ",
        "\u{fc}bre ",
    ] {
        assert_eq!(corrected(&plain(), text), None, "{text}");
    }
}

#[test]
fn words_of_the_agent_and_the_conversation_stay() {
    assert_eq!(corrected(&plain(), "the recieve ").as_deref(), Some("receive"));
    let own = ["Recieve".to_owned()];
    assert_eq!(corrected(&Speller { own: &own, ..plain() }, "the recieve "), None);
    let mut said = Conversation::new("agent", Facts { customer_name: Some("Tomorow".into()), ..Facts::default() }, 200);
    said.push(Role::Customer, "is it the recieve model?", None);
    let speller = Speller { said: Some(&said), ..plain() };
    assert_eq!(corrected(&speller, "the recieve "), None);
    assert_eq!(corrected(&speller, "tomorow "), None);
}

#[test]
fn another_language_is_not_mended() {
    assert_eq!(corrected(&plain(), "Ich komme morgen fr\u{fc}h nach Hause und bringe teh "), None);
    let words = Dictionary::parse("morgen\t10\nkomme\t10\nbringe\t10\nhause\t10").expect("a word file");
    assert_eq!(corrected(&Speller { dictionary: &words, ..plain() }, "ich komme mrogen ").as_deref(), Some("morgen"));
}

#[test]
fn only_the_word_before_a_blank_is_looked_at() {
    assert_eq!(spell(&plain(), "tihs is", 4).map(|correction| correction.place), Some(0..4));
    assert_eq!(spell(&plain(), "tihs", 4), None, "no blank was typed");
    assert_eq!(spell(&plain(), "tihs is ", 7), None);
    for end in [5, 99, usize::MAX] {
        assert_eq!(spell(&plain(), "tihs\u{1f600}", end), None);
    }
}
