//! Text in the forms that the engine compares: folded, and as words that hold no digit of a number.

use xxhash_rust::xxh3::xxh3_64;

/// The number of bytes of a message that count; later bytes change no answer.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;
/// The number of words of a message that count.
pub(crate) const WORDS_MAX: usize = 256;
const WORD_CHARS_MAX: usize = 40;

/// The beginning of `text`, at most `bytes_max` bytes, cut between characters.
pub(crate) fn head(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// The form in which texts are compared: lower case, plain quotes, one blank for each run of white space, none at the
/// ends.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_whitespace() {
            if !folded.is_empty() && !folded.ends_with(' ') {
                folded.push(' ');
            }
        } else {
            folded.extend(plain(c).to_lowercase());
        }
    }
    folded.truncate(folded.trim_end().len());
    folded
}

/// The keyboard's form of a typographic quote; any other character stays.
pub(crate) fn plain(c: char) -> char {
    match c {
        '\u{2018}' | '\u{2019}' | '\u{2bc}' => '\'',
        '\u{201c}' | '\u{201d}' => '"',
        other => other,
    }
}

/// The hash that identifies a response by its text, whatever its id.
pub(crate) fn key(text: &str) -> u64 {
    hash(&fold(text))
}

pub(crate) fn hash(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

/// The folded words of a text. A number of n digits becomes `#n` and a digit within a word `#`, so that no digit of the
/// text goes any further.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut word = String::new();
    for c in head(text, TEXT_BYTES_MAX).chars().map(plain).chain(std::iter::once(' ')) {
        if c.is_alphanumeric() || c == '\'' {
            if word.len() < WORD_CHARS_MAX {
                word.extend(c.to_lowercase());
            }
        } else if !word.is_empty() {
            found.push(without_digits(std::mem::take(&mut word)));
            if found.len() == WORDS_MAX {
                break;
            }
        }
    }
    found
}

pub(crate) fn has_digit(text: &str) -> bool {
    head(text, TEXT_BYTES_MAX).chars().any(char::is_numeric)
}

fn without_digits(word: String) -> String {
    if !word.chars().any(char::is_numeric) {
        return word;
    }
    if word.chars().all(char::is_numeric) {
        return format!("#{}", word.chars().count());
    }
    word.chars().map(|c| if c.is_numeric() { '#' } else { c }).collect()
}

/// The share of the longer text that both have in common: 0 to 1. Words count by their length, in any order.
pub(crate) fn likeness(a: &[String], b: &[String]) -> f32 {
    let weight = |words: &[String]| words.iter().map(|word| word_weight(word)).sum::<f32>();
    let mut rest: Vec<&str> = b.iter().map(String::as_str).collect();
    let mut common = 0.0;
    for word in a {
        if let Some(at) = rest.iter().position(|other| other == word) {
            common += word_weight(word);
            rest.swap_remove(at);
        }
    }
    let longer = weight(a).max(weight(b));
    if longer == 0.0 { 0.0 } else { common / longer }
}

/// The weight of a word: short words say little.
fn word_weight(word: &str) -> f32 {
    match word.chars().count() {
        0..=3 => 0.4,
        4 => 0.8,
        _ => 1.2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_text() {
        assert_eq!(fold("  It\u{2019}s\n\t FINE "), "it's fine");
        assert_eq!(key("It's fine"), key("it\u{2019}s   fine"));
        assert_ne!(key("It's fine"), key("It is fine"));
    }

    #[test]
    fn no_word_holds_a_digit() {
        assert_eq!(words("Order 12345, flat B12: it's OK"), ["order", "#5", "flat", "b##", "it's", "ok"]);
        assert_eq!(words("\u{663}\u{664} caf\u{e9}"), ["#2", "caf\u{e9}"]);
        assert!(words(&"x".repeat(10_000)).iter().all(|word| word.len() <= WORD_CHARS_MAX));
        assert_eq!(words(&"a ".repeat(2_000)).len(), WORDS_MAX);
    }

    #[test]
    fn a_cut_is_between_characters() {
        assert_eq!(head("a\u{1f600}b", 3), "a");
        assert_eq!(head("ab", 9), "ab");
    }
}
