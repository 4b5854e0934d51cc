//! Words that an agent should not send.

use std::collections::HashSet;

use crate::text::plain;

/// The most words of a phrase of the list.
const PHRASE_WORDS: usize = 4;
/// The endings that are blocked, too, on a built-in word of more than three letters.
const ENDINGS: [&str; 9] = ["s", "es", "ed", "er", "ers", "in", "ing", "y", "z"];
/// The number of bytes, about, that are remembered of letters with blanks between.
const SPELT_BYTES: usize = 24;
/// The number of a token's characters that are looked at.
const TOKEN_CHARS: usize = 64;

/// Words and phrases that are profane, folded.
#[derive(Clone, Debug, Default)]
pub struct Blocklist {
    blocked: HashSet<String>,
}

impl Blocklist {
    /// The built-in list: the words of degree 2 and more of the crate rustrict with their inflections, and some of our
    /// own.
    pub fn english() -> Blocklist {
        let mut list = Blocklist::default();
        let lines =
            include_str!("../data/profanity.txt").lines().chain(include_str!("../data/profanity-more.txt").lines());
        for word in lines.map(fold_phrase).filter(|word| !word.is_empty()) {
            if !word.contains(' ') && word.len() > 3 {
                list.blocked.extend(ENDINGS.iter().map(|ending| format!("{word}{ending}")));
            }
            list.blocked.insert(word);
        }
        list.allow(include_str!("../data/profanity-not.txt").lines());
        list
    }

    /// Adds words and phrases, without inflections.
    pub fn block<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.blocked.extend(words.into_iter().map(fold_phrase).filter(|word| !word.is_empty()));
    }

    /// Removes words and phrases.
    pub fn allow<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        for word in words {
            self.blocked.remove(&fold_phrase(word));
        }
    }

    fn has(&self, text: &str) -> bool {
        self.blocked.contains(text)
    }
}

fn fold_phrase(text: &str) -> String {
    let folded: String = text.chars().map(plain).flat_map(char::to_lowercase).collect();
    folded.split(|c: char| !is_inside(c)).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn is_inside(c: char) -> bool {
    c.is_alphanumeric() || c == '\''
}

/// Whether `text` holds a word or phrase of the list: whole words, after folding case, repeated letters, letters with
/// blanks between, and signs that stand for letters. Addresses and names with an @ are skipped.
pub fn profanity(list: &Blocklist, text: &str) -> bool {
    let between = |c: char| matches!(c, ',' | ';' | '"' | '(' | ')' | '/' | '\u{2026}' | '\u{2014}');
    let tokens = text.split_whitespace().filter(|token| !is_address(token)).flat_map(|token| token.split(between));
    let mut last: Vec<String> = Vec::new();
    let mut spelt = String::new();
    for token in tokens.filter(|token| !token.is_empty()) {
        let token: String = token.chars().take(TOKEN_CHARS).map(plain).flat_map(char::to_lowercase).collect();
        if has_signs(&token) && masked(list, &token) {
            return true;
        }
        for word in
            token.split(|c: char| !is_inside(c)).map(|word| word.trim_matches('\'')).filter(|word| !word.is_empty())
        {
            if blocked(list, word) {
                return true;
            }
            if word.chars().count() == 1 {
                if spelt.len() > SPELT_BYTES {
                    spelt.remove(0);
                }
                spelt.push_str(word);
                if spelt_out(list, &spelt) {
                    return true;
                }
            } else {
                spelt.clear();
            }
            if last.len() == PHRASE_WORDS {
                last.remove(0);
            }
            last.push(word.to_owned());
            if (2..=last.len()).any(|words| list.has(&last.get(last.len() - words..).unwrap_or_default().join(" "))) {
                return true;
            }
        }
    }
    false
}

fn is_address(token: &str) -> bool {
    token.starts_with('@')
        || token.contains("://")
        || token.starts_with("www.")
        || token.contains('@') && token.contains('.')
}

fn blocked(list: &Blocklist, word: &str) -> bool {
    if list.has(word) || word.strip_suffix("'s").is_some_and(|stem| list.has(stem)) {
        return true;
    }
    let (once, twice) = (shrunk(word, 1), shrunk(word, 2));
    // No word has a letter three times in a row: the writer meant it once or twice.
    twice != word && (list.has(&once) || list.has(&twice))
}

/// The word with each run of three or more of a letter cut to `keep`.
fn shrunk(word: &str, keep: usize) -> String {
    let letters: Vec<char> = word.chars().collect();
    letters
        .chunk_by(|a, b| a == b)
        .flat_map(|run| run.iter().take(if run.len() > 2 { keep } else { run.len() }))
        .collect()
}

/// Whether the last letters, three or more, spell a word of the list.
fn spelt_out(list: &Blocklist, letters: &str) -> bool {
    let starts: Vec<usize> = letters.char_indices().map(|(at, _)| at).collect();
    starts.iter().rev().skip(2).take(12).any(|start| letters.get(*start..).is_some_and(|word| list.has(word)))
}

fn has_signs(token: &str) -> bool {
    token.chars().any(char::is_alphabetic) && token.chars().any(|c| letter_of(c).is_some() || c == '*')
}

/// The letter that a sign or digit looks like.
fn letter_of(c: char) -> Option<char> {
    match c {
        '@' | '4' => Some('a'),
        '3' => Some('e'),
        '1' | '!' => Some('i'),
        '0' => Some('o'),
        '5' | '$' => Some('s'),
        '7' | '+' => Some('t'),
        _ => None,
    }
}

/// Whether a token is a word of the list once its signs are letters; a star is any vowel.
fn masked(list: &Blocklist, token: &str) -> bool {
    let trimmed = token.trim_matches(|c: char| !c.is_alphanumeric() && !matches!(c, '@' | '$' | '*' | '!' | '+'));
    let ends = [trimmed, trimmed.trim_end_matches('!')];
    ends.into_iter().any(|word| {
        let word: String = word.chars().map(|c| letter_of(c).unwrap_or(c)).collect();
        if word.contains('*') {
            word.matches('*').count() <= 2
                && "aeiou".chars().any(|vowel| blocked(list, &word.replace('*', &vowel.to_string())))
        } else {
            blocked(list, &word)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invented() -> Blocklist {
        let mut list = Blocklist::default();
        list.block(["Glorp", "blarg snick", "zass"]);
        list
    }

    #[test]
    fn a_word_is_found_in_any_dress() {
        for text in [
            "glorp",
            "You GLORP!",
            "g l o r p",
            "gloooorp",
            "gl0rp",
            "gl*rp",
            "z@$$",
            "zasssss",
            "blarg  snick.",
            "glorp's",
            "(glorp)",
        ] {
            assert!(profanity(&invented(), text), "{text}");
        }
    }

    #[test]
    fn a_part_of_a_word_is_none() {
        for text in [
            "glorpify",
            "blarg, snickers",
            "a glor p",
            "@glorp",
            "https://glorp.example/glorp",
            "jo@glorp.example",
            "",
            "g l o r",
        ] {
            assert!(!profanity(&invented(), text), "{text}");
        }
    }

    #[test]
    fn a_company_adds_and_allows() {
        let mut list = invented();
        list.allow(["GLORP"]);
        assert!(!profanity(&list, "glorp") && profanity(&list, "zass"));
    }

    #[test]
    fn the_built_in_list_is_there_and_plain_words_are_not_on_it() {
        let list = Blocklist::english();
        assert!(profanity(&list, "this is bullshit"));
        for text in [
            "Hello, how can I help you today?",
            "the class in Essex",
            "kill the process",
            "a virgin margarita",
            "basement",
            "Nga",
            "assess",
        ] {
            assert!(!profanity(&list, text), "{text}");
        }
    }
}
