//! Groups of responses that say the same: texts whose words differ in courtesy alone, or long ones that share most
//! words.

use std::collections::BTreeSet;

use crate::response::Entry;

/// Words that make a sentence polite or grammatical and do not change its meaning.
const COURTESY: &[&str] = &[
    "a", "alright", "am", "an", "and", "any", "are", "at", "be", "been", "can", "could", "do", "does", "for", "full",
    "get", "give", "great", "have", "hello", "hey", "hi", "i", "i'm", "in", "is", "it", "just", "kindly", "let",
    "like", "may", "me", "my", "now", "of", "ok", "okay", "on", "our", "please", "provide", "sure", "tell", "thank",
    "thanks", "that", "the", "then", "there", "this", "to", "we", "what", "what's", "will", "with", "would", "you",
    "your",
];
/// Words that reverse a sentence; texts that differ in one never say the same.
const TURNS: &[&str] = &[
    "no",
    "not",
    "never",
    "none",
    "cannot",
    "can't",
    "don't",
    "didn't",
    "isn't",
    "won't",
    "unable",
    "unfortunately",
    "unavailable",
    "without",
    "neither",
];
/// The share of different words that two longer texts must have in common.
const COMMON_MIN: f32 = 0.62;
const LONGER: usize = 5;

/// The index, for each entry, of the first entry that says the same: its own where no earlier one does.
pub(crate) fn same(entries: &[Entry]) -> Vec<usize> {
    let meant: Vec<Meaning> = entries.iter().map(|entry| meaning(&entry.words)).collect();
    let mut first: Vec<usize> = Vec::with_capacity(entries.len());
    for (at, meaning) in meant.iter().enumerate() {
        let before = meant.iter().zip(&first).enumerate().take(at);
        let found = before.filter(|(_, (other, _))| meaning.is(other)).map(|(_, (_, first))| *first).next();
        first.push(found.unwrap_or(at));
    }
    first
}

/// Whether two texts say the same.
pub(crate) fn say_the_same(a: &[String], b: &[String]) -> bool {
    meaning(a).is(&meaning(b))
}

struct Meaning<'a> {
    words: BTreeSet<&'a str>,
    turns: BTreeSet<&'a str>,
}

fn meaning(words: &[String]) -> Meaning<'_> {
    let all = || words.iter().map(String::as_str);
    let turns: BTreeSet<&str> = all().filter(|word| TURNS.contains(word)).collect();
    let mut kept: BTreeSet<&str> = all().filter(|word| !COURTESY.contains(word)).collect();
    if kept.is_empty() {
        kept = all().collect();
    }
    Meaning { words: kept, turns }
}

impl Meaning<'_> {
    fn is(&self, other: &Meaning) -> bool {
        if self.turns != other.turns {
            return false;
        }
        let common = self.words.intersection(&other.words).count();
        let union = self.words.len() + other.words.len() - common;
        common == union || common >= LONGER && common as f32 / union as f32 >= COMMON_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::words;

    fn same(a: &str, b: &str) -> bool {
        say_the_same(&words(a), &words(b))
    }

    #[test]
    fn courtesy_makes_no_difference_and_a_turn_does() {
        assert!(same("Could you tell me your postcode, please?", "What is your postcode?"));
        assert!(!same("What is your postcode?", "What is your street?"));
        assert!(!same("Your parcel is here.", "Your parcel is not here."));
        assert!(!same("Thanks!", "Hello!"));
    }

    #[test]
    fn long_texts_may_differ_in_some_words() {
        let about = |what: &str| format!("Sorry, somebody else must answer questions concerning {what} today.");
        assert!(same(&about("parcels"), &about("letters")));
        assert!(!same(&about("parcels"), "Somebody else opened parcels today."));
    }
}
