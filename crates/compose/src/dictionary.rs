//! The words of a language, and a search for those near a misspelt one.

use std::{collections::HashMap, io::Read};

use flate2::read::GzDecoder;
use thiserror::Error;

use crate::{edits, text::hash};

/// The most edits between a word and those that are found for it.
const EDITS_MAX: usize = 2;
/// The number of characters at a word's beginning that the index holds: enough to find words, which are then compared
/// whole.
const PREFIX: usize = 7;
/// Longer words are known, and never offered.
const WORD_CHARS_MAX: usize = 24;
/// The most words of a word file.
const WORDS_MAX: usize = 1_000_000;

/// A word file that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DictionaryError {
    /// A line is not a word, a tab and a number.
    #[error("line {0} is not a word, a tab and a size")]
    Line(usize),
    /// The file has more than a million words.
    #[error("there are more than {WORDS_MAX} words")]
    Long,
}

/// Words and how common each is, indexed by the texts that remain of a word when some letters are left out.
#[derive(Debug, Default)]
pub struct Dictionary {
    words: Vec<Word>,
    known: HashMap<String, u32>,
    /// Pairs in ascending order: the hash of a word's beginning without up to two characters, and the word's number.
    shortened: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct Word {
    text: String,
    commonness: f32,
}

/// A word that the writer may have meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Near<'a> {
    pub word: &'a str,
    pub cost: f32,
    /// About the natural logarithm of the word's frequency.
    pub commonness: f32,
}

impl Dictionary {
    /// The English words of the word list SCOWL, American and British, up to its size 60.
    pub fn english() -> Dictionary {
        let mut text = String::new();
        // An error is impossible: the file is part of the build, and a test reads it.
        let _ = GzDecoder::new(include_bytes!("../data/words.tsv.gz").as_slice()).read_to_string(&mut text);
        Dictionary::parse(&text).unwrap_or_default()
    }

    /// Reads a word file. Each line is a word, a tab, and the word's size in SCOWL: 10 for the commonest, 60 for the
    /// rarest.
    ///
    /// # Errors
    ///
    /// The text has a line of another form, or more than a million words.
    pub fn parse(text: &str) -> Result<Dictionary, DictionaryError> {
        let mut found = Dictionary::default();
        for (at, line) in text.lines().enumerate() {
            if at == WORDS_MAX {
                return Err(DictionaryError::Long);
            }
            let parts = line.split_once('\t').and_then(|(word, size)| Some((word, size.parse::<u32>().ok()?)));
            let (word, size) = parts.filter(|(word, _)| !word.is_empty()).ok_or(DictionaryError::Line(at + 1))?;
            found.add(word, size);
        }
        found.shortened.sort_unstable();
        found.shortened.dedup();
        Ok(found)
    }

    /// A word with a capital is known and never offered, as it is a name.
    fn add(&mut self, word: &str, size: u32) {
        let number = self.words.len() as u32;
        let is_name = word.starts_with(char::is_uppercase);
        let folded = word.to_lowercase();
        if let Some(known) = self.known.get(&folded)
            && (is_name || *known != u32::MAX)
        {
            return;
        }
        if is_name || folded.chars().count() > WORD_CHARS_MAX {
            self.known.insert(folded, u32::MAX);
            return;
        }
        let beginning: Vec<char> = folded.chars().take(PREFIX).collect();
        self.shortened.extend(shortened(&beginning).into_iter().map(|left| (left, number)));
        self.known.insert(folded.clone(), number);
        self.words.push(Word { text: folded, commonness: commonness(size) });
    }

    /// Whether the dictionary has a folded word.
    pub fn contains(&self, folded: &str) -> bool {
        self.known.contains_key(folded)
    }

    pub(crate) fn commonness(&self, folded: &str) -> Option<f32> {
        self.words.get(*self.known.get(folded)? as usize).map(|word| word.commonness)
    }

    /// The words at most [`EDITS_MAX`] edits away from a folded word, each once.
    pub(crate) fn near(&self, folded: &str) -> Vec<Near<'_>> {
        let letters: Vec<char> = folded.chars().collect();
        let mut numbers: Vec<u32> = Vec::new();
        for left in shortened(letters.get(..PREFIX).unwrap_or(&letters)) {
            let from = self.shortened.partition_point(|(other, _)| *other < left);
            let same = self.shortened.get(from..).unwrap_or_default().iter().take_while(|(other, _)| *other == left);
            numbers.extend(same.map(|(_, number)| number));
        }
        numbers.sort_unstable();
        numbers.dedup();
        let words = numbers.into_iter().filter_map(|number| self.words.get(number as usize));
        words
            .filter_map(|word| {
                let other: Vec<char> = word.text.chars().collect();
                let cost = edits::cost(&letters, &other, EDITS_MAX)?;
                Some(Near { word: &word.text, cost, commonness: word.commonness })
            })
            .collect()
    }
}

/// The logarithm of the frequency that a size in SCOWL stands for.
fn commonness(size: u32) -> f32 {
    match size {
        0..=10 => 17.0,
        11..=20 => 15.1,
        21..=35 => 12.8,
        36..=40 => 12.1,
        41..=50 => 11.5,
        51..=55 => 11.3,
        _ => 11.2,
    }
}

/// The hashes of a text without up to [`EDITS_MAX`] of its letters, for every choice of these.
fn shortened(letters: &[char]) -> Vec<u32> {
    let mut left: Vec<String> = vec![letters.iter().collect()];
    let mut from = 0;
    for _ in 0..EDITS_MAX {
        let end = left.len();
        for text in left.get(from..end).unwrap_or_default().to_vec() {
            left.extend(text.char_indices().map(|(at, c)| {
                let (before, rest) = text.split_at(at);
                format!("{before}{}", rest.strip_prefix(c).unwrap_or_default())
            }));
        }
        from = end;
    }
    let mut hashes: Vec<u32> = left.iter().map(|text| hash(text) as u32).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_words_are_there() {
        let words = Dictionary::english();
        assert!(words.words.len() > 70_000, "{}", words.words.len());
        for word in ["colour", "color", "organise", "don't", "london"] {
            assert!(words.contains(word), "{word}");
        }
        assert!(!words.contains("recieve"));
        assert!(words.near("recieve").iter().any(|near| near.word == "receive"));
        assert!(!words.near("londn").iter().any(|near| near.word == "london"), "a name is never offered");
    }

    #[test]
    fn a_word_file_is_read_or_its_line_named() {
        assert_eq!(Dictionary::parse("garten\t10\nblume\n").err(), Some(DictionaryError::Line(2)));
        assert!(Dictionary::parse("garten\t10\n").is_ok_and(|words| words.contains("garten")));
    }
}
