//! Spelling: the correction of the word that was just completed.

use std::ops::Range;

use crate::{
    conversation::Conversation,
    dictionary::Dictionary,
    model::Model,
    text::{fold, plain},
};

/// The least lead, as a logarithm, of the best word over every other: clients apply a correction unasked, so a doubtful
/// one is withheld.
const MARGIN: f32 = 1.2;
/// The cost of an edit, as a logarithm.
const EDIT: f32 = 8.0;
/// The gain of a word that the company's agents use, and of one that the list of typing errors gives.
const LEXICON: f32 = 2.0;
const LISTED: f32 = 6.0;
const CHARS_MIN: usize = 3;
const CHARS_MAX: usize = 24;
/// The number of words before the cursor that show whether the text is in the dictionary's language.
const LANGUAGE_WORDS: usize = 12;
const LOOKED_AT_BYTES: usize = 512;

/// The sources of known words.
#[derive(Clone, Copy, Debug)]
pub struct Speller<'a> {
    /// The language's words.
    pub dictionary: &'a Dictionary,
    /// The words that the company's agents use.
    pub model: &'a Model,
    /// The words of this conversation.
    pub said: Option<&'a Conversation>,
    /// The agent's own words: never corrected.
    pub own: &'a [String],
}

/// A misspelt word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The word's position in the text, in bytes.
    pub place: Range<usize>,
    /// The word as it was typed.
    pub misspelled: String,
    /// The word that was meant.
    pub corrected: String,
}

/// The correction of the word that ends at byte `end` of `text`, where white space was just typed. There is none where
/// the word may be right, where two corrections are about as likely, or where `end` is not between characters.
pub fn spell(speller: &Speller, text: &str, end: usize) -> Option<Correction> {
    let before = text.get(..end)?;
    if !text.get(end..)?.starts_with(char::is_whitespace) {
        return None;
    }
    let start = before.char_indices().rev().find(|(_, c)| c.is_whitespace()).map_or(0, |(at, c)| at + c.len_utf8());
    let token = before.get(start..)?;
    let is_edge = |c: char| matches!(plain(c), '.' | ',' | '!' | '?' | ';' | ':' | '(' | ')' | '"' | '\'');
    let word = token.trim_matches(is_edge);
    let start = start + (token.len() - token.trim_start_matches(is_edge).len());
    let folded = correctable(word, before.get(..start)?)?;
    if speller.knows(&folded) || !speller.is_language(before.get(..start)?) {
        return None;
    }
    let best = speller.best(&folded, before.get(..start)?)?;
    let corrected = if word.starts_with(char::is_uppercase) { capital(&best) } else { best };
    Some(Correction { place: start..start + word.len(), misspelled: word.to_owned(), corrected })
}

/// The three words that a misspelt one most likely means, likeliest first: for measuring.
pub fn candidates(speller: &Speller, word: &str) -> Vec<String> {
    let mut found = speller.ranked(&fold(word), "");
    found.truncate(3);
    found.into_iter().map(|(word, _)| word).collect()
}

/// The folded word, where it is of a kind that is corrected: letters and apostrophes alone, no capital inside, and a
/// capital at its beginning only where a sentence begins.
fn correctable(word: &str, before: &str) -> Option<String> {
    let count = word.chars().count();
    let letters = word.chars().all(|c| c.is_ascii_alphabetic() || plain(c) == '\'');
    if !(CHARS_MIN..=CHARS_MAX).contains(&count) || !letters || word.chars().skip(1).any(char::is_uppercase) {
        return None;
    }
    let begins =
        before.trim_end().is_empty() || before.trim_end().ends_with(['.', '!', '?', ':']) || before.ends_with('\n');
    (begins || !word.starts_with(char::is_uppercase)).then(|| fold(word))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

impl Speller<'_> {
    fn knows(&self, folded: &str) -> bool {
        let stem = folded.strip_suffix("'s").unwrap_or(folded);
        let one = |word: &str| {
            self.dictionary.contains(word)
                || self.model.uses_word(word)
                || self.said.is_some_and(|said| said.said(word))
                || self.own.iter().any(|own| own.len() == word.len() && fold(own) == word)
        };
        one(folded) || one(stem) || letters_of_one_key(folded)
    }

    /// Whether at least half of the words before are known; fewer than three words pass, as they show too little.
    fn is_language(&self, before: &str) -> bool {
        let from = before.ceil_char_boundary(before.len().saturating_sub(LOOKED_AT_BYTES));
        let words = before.get(from..).unwrap_or_default().split(|c: char| !c.is_alphabetic() && plain(c) != '\'');
        let words: Vec<String> =
            words.rev().filter(|word| word.chars().count() > 1).take(LANGUAGE_WORDS).map(fold).collect();
        let known = words.iter().filter(|word| self.knows(word)).count();
        words.len() < 3 || known * 2 >= words.len()
    }

    fn best(&self, folded: &str, before: &str) -> Option<String> {
        let mut ranked = self.ranked(folded, before).into_iter();
        let (word, score) = ranked.next()?;
        let is_sure = ranked.next().is_none_or(|(_, second)| score - second >= MARGIN);
        is_sure.then_some(word)
    }

    /// The words that may be meant, best first, each with the logarithm of its likelihood.
    fn ranked(&self, folded: &str, before: &str) -> Vec<(String, f32)> {
        let previous = before.split_whitespace().next_back().map(fold);
        let listed = listed(folded);
        let edits_max = if folded.chars().count() <= 4 { 1.3 } else { 2.5 };
        let near = self
            .dictionary
            .near(folded)
            .into_iter()
            .filter(|near| near.cost <= edits_max || listed.contains(&near.word));
        let mut found: Vec<(String, f32)> =
            near.map(|near| (near.word.to_owned(), near.commonness - EDIT * near.cost)).collect();
        for word in listed {
            match found.iter_mut().find(|(known, _)| known == word) {
                Some((_, score)) => *score += LISTED,
                None => found
                    .push(((*word).to_owned(), self.dictionary.commonness(word).unwrap_or(11.0) - EDIT * 2.0 + LISTED)),
            }
        }
        for (word, score) in &mut found {
            if self.model.uses_word(word) {
                *score += LEXICON;
            }
            if let Some(previous) = &previous {
                *score += self.model.follows(previous, word);
            }
        }
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        found
    }
}

/// The words that the list of typing errors gives for a misspelt one.
fn listed(folded: &str) -> &'static [&'static str] {
    typos_dict::WORD.find(&unicase::UniCase::new(folded)).copied().unwrap_or_default()
}

/// Whether a letter comes three times in a row, as in "hmmm" and "aaah": neither a word nor a slip.
fn letters_of_one_key(folded: &str) -> bool {
    let letters: Vec<char> = folded.chars().collect();
    letters.windows(3).any(|three| three.iter().all(|letter| three.first() == Some(letter)))
}
