//! Spelling and profanity on agents' messages: as they stand, and with a slip put into every twentieth word.

use compose::{Blocklist, Conversation, Dictionary, Facts, Model, Role, Speller, Transcript, profanity, spell};
use serde_json::{Value, json};

/// The number of words of which one gets a slip.
const SLIP_EACH: usize = 20;

pub fn check(model: &Model, transcripts: &[Transcript]) -> Value {
    let dictionary = Dictionary::english();
    let blocklist = Blocklist::english();
    let (mut words, mut touched, mut slips, mut mended, mut wrong) = (0, 0, 0, 0, 0);
    let (mut messages, mut alarms) = (0, 0);
    let mut changed: Vec<String> = Vec::new();
    for transcript in transcripts {
        let mut said = Conversation::new(&transcript.agent, Facts::default(), 200);
        for turn in &transcript.turns {
            if turn.role == Role::Agent {
                messages += 1;
                alarms += usize::from(profanity(&blocklist, &turn.text));
                let speller = Speller { dictionary: &dictionary, model, said: Some(&said), own: &[] };
                let mut before = String::new();
                for word in turn.text.split_whitespace() {
                    words += 1;
                    if let Some(correction) = at_end(&speller, &before, word) {
                        touched += 1;
                        changed.push(format!("{} {}", correction.misspelled, correction.corrected));
                    }
                    if let Some(slip) = slip(word).filter(|_| words % SLIP_EACH == 0) {
                        slips += 1;
                        if let Some(correction) = at_end(&speller, &before, &slip) {
                            let is_right = slip.replacen(&correction.misspelled, &correction.corrected, 1) == word;
                            mended += usize::from(is_right);
                            wrong += usize::from(!is_right);
                        }
                    }
                    before.push_str(word);
                    before.push(' ');
                }
            }
            said.push(turn.role, &turn.text, None);
        }
    }
    changed.sort();
    changed.dedup();
    eprintln!("words as they stood that were changed: {changed:?}");
    let percent = |part: usize, all: usize| 100.0 * part as f64 / all.max(1) as f64;
    json!({
        "words": words,
        "changed as they stood %": percent(touched, words),
        "slips": slips,
        "mended %": percent(mended, slips),
        "made worse %": percent(wrong, slips),
        "agents' messages": messages,
        "profanity alarms %": percent(alarms, messages),
    })
}

fn at_end(speller: &Speller, before: &str, word: &str) -> Option<compose::Correction> {
    let text = format!("{before}{word} ");
    spell(speller, &text, text.len() - 1)
}

/// A word of four small letters or more with a slip: two letters swapped, or one left out, doubled or replaced. The
/// word's own letters decide which, so that every run makes the same slips.
fn slip(word: &str) -> Option<String> {
    let letters: Vec<char> = word.chars().collect();
    if letters.len() < 4 || !letters.iter().all(char::is_ascii_lowercase) {
        return None;
    }
    let sum: usize = letters.iter().map(|letter| *letter as usize).sum();
    let at = 1 + sum % (letters.len() - 2);
    let mut slipped = letters.clone();
    match sum % 4 {
        0 => slipped.swap(at, at + 1),
        1 => drop(slipped.remove(at)),
        2 => slipped.insert(at, letters[at]),
        _ => slipped[at] = char::from(b'a' + (letters[at] as u8 - b'a' + 3) % 26),
    }
    (slipped != letters).then(|| slipped.into_iter().collect())
}
