//! Phrase completion: the rest of a begun message, from word sequences that several agents of the company use.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::{
    conversation::{Conversation, Role},
    model::Model,
    response::List,
    text::{TEXT_BYTES_MAX, fold, hash, head},
    train::{Transcript, source},
};

/// The least number of conversations that must have a word sequence before it is offered; two agents must have it, too.
pub(crate) const CONVERSATIONS_MIN: u32 = 5;
/// The number of words before a word that its probability depends on.
const ORDER: usize = 4;
const WORD_BYTES_MAX: usize = 30;
/// The most words of a completion, and the fewest characters worth offering.
const WORDS_MAX: usize = 12;
const CHARS_MIN: usize = 3;
/// The weight of a shorter context beside a longer one, in uses of the longer.
const SHORTER: f32 = 1.5;
/// The number that stands for the end of a message, in place of a word's.
const END: u32 = u32::MAX;
/// The probability that a letter of an unlisted word is the one that was typed.
const LETTER: f32 = 0.06;
/// The probability that a begun word repeats the customer's word with that beginning, and the characters that must be
/// typed before an echo is looked for.
const ECHO: f32 = 0.6;
const ECHO_CHARS_MIN: usize = 3;

/// Sequences of words with their counts: for each context (the words before a word) the words that came next.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Phrases {
    words: Vec<String>,
    /// The hashes of the contexts, ascending. `ends` says where each one's part of `next` ends, `totals` how often it
    /// was said.
    contexts: Vec<u64>,
    ends: Vec<u32>,
    totals: Vec<u32>,
    next: Vec<(u32, u32)>,
}

/// The text with which a message may go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The text to append to the typed one, unchanged.
    pub text: String,
    /// The probability that the whole text is right: 0 to 1.
    pub confidence: f32,
}

/// The confidence from which completions are right in four of five cases, or a little more.
pub const PHRASE_MIN_CONFIDENCE: f32 = 0.85;

/// The completion of `typed`, where its confidence is at least `min_confidence`. Without one, a begun word that exactly
/// one word of the customer's last messages continues is completed at a fixed confidence. A completion never holds a
/// digit or a redaction mark.
pub fn complete(model: &Model, said: &Conversation, typed: &str, min_confidence: f32) -> Option<Completion> {
    let phrases = &model.parts.phrases;
    let tail = typed.get(typed.ceil_char_boundary(typed.len().saturating_sub(TEXT_BYTES_MAX))..)?;
    if tail.trim().is_empty() || tail.chars().any(char::is_control) {
        return None;
    }
    let start = tail.char_indices().rev().find(|(_, c)| c.is_whitespace()).map_or(0, |(at, c)| at + c.len_utf8());
    let (finished, open) = tail.split_at_checked(start)?;
    let mut before = context_of(finished);
    let echo = echoes(said, open);
    let mut text = String::new();
    let mut confidence = 1.0;
    for at in 0..WORDS_MAX {
        let open = if at == 0 { open } else { "" };
        let Some((word, chance)) = phrases.likeliest(&before, open, &echo) else { break };
        if confidence * chance < min_confidence {
            break;
        }
        confidence *= chance;
        if at > 0 {
            text.push(' ');
        }
        text.push_str(word.get(open.len()..)?);
        before.push(hash(&fold(word)));
    }
    if text.is_empty()
        && let Some(word) = echo.first().filter(|_| echo.len() == 1)
    {
        text.push_str(word.get(open.len()..)?);
        confidence = ECHO;
    }
    (text.chars().count() >= CHARS_MIN).then_some(Completion { text, confidence })
}

/// The different words of the customer's last messages that a begun word may repeat.
fn echoes<'s>(said: &'s Conversation, open: &str) -> Vec<&'s str> {
    if open.chars().count() < ECHO_CHARS_MIN {
        return Vec::new();
    }
    let open = fold(open);
    let words = said.unanswered.iter().flat_map(|message| &message.words).map(String::as_str);
    let mut found: Vec<&str> =
        words.filter(|word| word.len() > open.len() && word.starts_with(&open) && is_speakable(word)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// A text as a context: a mark for the start, then the hash of each word.
fn context_of(text: &str) -> Vec<u64> {
    let mut context = vec![hash("<start>")];
    text.split_whitespace().for_each(|word| push(&mut context, word));
    context
}

/// Adds a word. A word that may not be offered breaks the sequence: later words do not depend on earlier ones.
fn push(context: &mut Vec<u64>, word: &str) {
    if is_speakable(word) {
        context.push(hash(&fold(word)));
    } else {
        *context = vec![hash("<gap>")];
    }
}

/// The hashes of the last 0 to [`ORDER`] words, the longest sequence last.
fn contexts(before: &[u64]) -> impl Iterator<Item = u64> {
    (0..=ORDER.min(before.len())).map(|length| {
        let last = before.get(before.len() - length..).unwrap_or_default();
        last.iter().fold(length as u64, |sum, word| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23))
    })
}

impl Phrases {
    /// Whether the parts fit together.
    pub fn is_sound(&self) -> bool {
        let ascending = self.ends.is_sorted() && self.contexts.is_sorted();
        let within = |word: &u32| *word == END || (*word as usize) < self.words.len();
        ascending
            && self.contexts.len() == self.ends.len()
            && self.contexts.len() == self.totals.len()
            && self.ends.last().map_or(0, |end| *end as usize) == self.next.len()
            && self.next.iter().all(|(word, _)| within(word))
    }

    /// The words, folded and without the punctuation around them.
    pub fn bare_words(&self) -> impl Iterator<Item = String> {
        self.words.iter().map(|word| fold(&bare(word)))
    }

    /// The share of the uses of `before` that `word` follows, both folded.
    pub fn chance(&self, before: &str, word: &str) -> Option<f32> {
        let (next, total) = self.after(contexts(&[hash(before)]).nth(1)?)?;
        let same = |number: &u32| self.words.get(*number as usize).is_some_and(|other| fold(&bare(other)) == word);
        let uses: u32 = next.iter().filter(|(number, _)| same(number)).map(|(_, uses)| uses).sum();
        (uses > 0).then(|| uses as f32 / total.max(1) as f32)
    }

    fn after(&self, context: u64) -> Option<(&[(u32, u32)], u32)> {
        let at = self.contexts.binary_search(&context).ok()?;
        let start = at.checked_sub(1).and_then(|at| self.ends.get(at)).map_or(0, |end| *end as usize);
        Some((self.next.get(start..*self.ends.get(at)? as usize)?, *self.totals.get(at)?))
    }

    /// The likeliest word that begins with `open`, and its probability; nothing where the message more likely ends.
    fn likeliest(&self, before: &[u64], open: &str, echo: &[&str]) -> Option<(&str, f32)> {
        let mut chances: BTreeMap<u32, f32> = BTreeMap::new();
        for (length, context) in contexts(before).enumerate() {
            // Counts without a context say too little until two characters are typed.
            if length == 0 && open.chars().count() < 2 {
                continue;
            }
            let Some((next, total)) = self.after(context) else { continue };
            let matching: Vec<(u32, f32)> = next
                .iter()
                .filter(|(word, _)| self.begins(*word, open))
                .map(|(word, uses)| (*word, *uses as f32))
                .collect();
            let listed: u32 = next.iter().map(|(_, uses)| uses).sum();
            let unlisted = total.saturating_sub(listed) as f32 * LETTER.powi(open.chars().count().min(9) as i32);
            let all = matching.iter().map(|(_, uses)| uses).sum::<f32>() + unlisted;
            if matching.is_empty() && open.is_empty() || all == 0.0 {
                continue;
            }
            chances.values_mut().for_each(|chance| *chance *= SHORTER / (all + SHORTER));
            for (word, uses) in matching {
                *chances.entry(word).or_default() += uses / (all + SHORTER);
            }
        }
        if !open.is_empty() && !echo.is_empty() {
            for (word, chance) in &mut chances {
                let repeats = self.words.get(*word as usize).is_some_and(|word| echo.contains(&fold(word).as_str()));
                *chance = *chance * (1.0 - ECHO) + if repeats { ECHO } else { 0.0 };
            }
        }
        let (word, chance) = chances.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
        Some((self.words.get(word as usize)?, chance))
    }

    fn begins(&self, word: u32, open: &str) -> bool {
        if open.is_empty() {
            return true;
        }
        let Some(word) = self.words.get(word as usize) else { return false };
        word.len() > open.len()
            && word.get(..open.len()).is_some_and(|start| start == open || start.to_lowercase() == open.to_lowercase())
    }
}

/// The uses of a word or sequence, and the number of conversations and agents that have it.
#[derive(Default)]
struct Said {
    uses: u32,
    conversations: u32,
    last: u32,
    agent: u64,
    agents: u32,
}

impl Said {
    fn again(&mut self, conversation: u32, agent: u64) {
        self.uses += 1;
        if self.conversations == 0 || self.last != conversation {
            self.conversations += 1;
            self.last = conversation;
        }
        if self.agents == 0 || self.agent != agent && self.agents < 2 {
            self.agents += 1;
            self.agent = agent;
        }
    }

    fn is_common(&self) -> bool {
        self.conversations >= CONVERSATIONS_MIN && self.agents >= 2
    }
}

/// Learns from the agents' messages which words follow which. A word that is always capitalised may be a person's name
/// and is kept only where `company`'s responses have it. Messages made from a response are left out, as suggestions
/// offer these.
pub(crate) fn learn(transcripts: &[Transcript], company: &List) -> Phrases {
    let messages = free_messages(transcripts, company);
    let words = common_words(&messages, company);
    let number: HashMap<&str, u32> = words.iter().map(String::as_str).zip(0u32..).collect();
    let mut kept: BTreeMap<u64, (u32, Vec<(u32, u32)>)> = BTreeMap::new();
    let mut frequent: HashSet<u64> = HashSet::new();
    for length in 0..=ORDER {
        let mut counts: HashMap<(u64, u32), Said> = HashMap::new();
        let mut totals: HashMap<u64, u32> = HashMap::new();
        for Free { text, conversation, agent } in &messages {
            let mut before = context_of("");
            let ended = text.split_whitespace().map(Some).chain(std::iter::once(None));
            for word in ended {
                // Memory is bounded: a sequence is counted only where the one shorter by a word was common.
                if before.len() >= length
                    && (length == 0
                        || contexts(&before).nth(length - 1).is_some_and(|shorter| frequent.contains(&shorter)))
                {
                    let context = contexts(&before).nth(length).unwrap_or_default();
                    *totals.entry(context).or_default() += 1;
                    if let Some(word) = word.map_or(Some(END), |word| number.get(word).copied()) {
                        counts.entry((context, word)).or_default().again(*conversation, *agent);
                    }
                }
                if let Some(word) = word {
                    push(&mut before, word);
                }
            }
        }
        counts.retain(|_, said| said.is_common());
        frequent = counts.keys().map(|(context, _)| *context).collect();
        for ((context, word), said) in counts {
            let (total, next) = kept.entry(context).or_default();
            *total = totals.get(&context).copied().unwrap_or(0);
            next.push((word, said.uses));
        }
    }
    let mut phrases = Phrases { words, ..Phrases::default() };
    for (context, (total, mut next)) in kept {
        next.sort_unstable_by_key(|(word, uses)| (u32::MAX - uses, *word));
        phrases.contexts.push(context);
        phrases.totals.push(total);
        phrases.next.extend(next);
        phrases.ends.push(phrases.next.len() as u32);
    }
    phrases
}

/// A message in the agent's own words.
struct Free<'a> {
    text: &'a str,
    conversation: u32,
    agent: u64,
}

fn free_messages<'a>(transcripts: &'a [Transcript], company: &List) -> Vec<Free<'a>> {
    let mut found = Vec::new();
    for (conversation, transcript) in (0u32..).zip(transcripts) {
        let agent = hash(&transcript.agent);
        let free = transcript.turns.iter().filter(|turn| turn.role == Role::Agent && source(company, turn).is_none());
        found.extend(free.map(|turn| Free { text: head(&turn.text, TEXT_BYTES_MAX), conversation, agent }));
    }
    found
}

/// The words that may be offered, sorted: common ones, without those that may be somebody's name.
fn common_words(messages: &[Free], company: &List) -> Vec<String> {
    let mut counts: HashMap<&str, Said> = HashMap::new();
    for Free { text, conversation, agent } in messages {
        for word in text.split_whitespace().filter(|word| is_speakable(word)) {
            counts.entry(word).or_default().again(*conversation, *agent);
        }
    }
    counts.retain(|_, said| said.is_common());
    let small: HashSet<String> =
        counts.keys().map(|word| bare(word)).filter(|word| !word.starts_with(char::is_uppercase)).collect();
    let company: HashSet<String> = company
        .responses()
        .flat_map(|response| response.text.split_whitespace())
        .map(|word| bare(word).to_lowercase())
        .collect();
    let is_no_name = |word: &&str| {
        let bare = bare(word);
        !bare.starts_with(char::is_uppercase)
            || small.contains(&bare.to_lowercase())
            || company.contains(&bare.to_lowercase())
    };
    let mut words: Vec<String> = counts.into_keys().filter(is_no_name).map(str::to_owned).collect();
    words.sort_unstable();
    words
}

fn bare(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned()
}

/// Whether a word may stand in a completion at all.
fn is_speakable(word: &str) -> bool {
    word.len() <= WORD_BYTES_MAX
        && !word.contains("//")
        && word.chars().all(|c| {
            c.is_alphabetic()
                || matches!(
                    c,
                    '\'' | '\u{2019}' | '-' | ',' | '.' | '!' | '?' | ':' | ';' | '(' | ')' | '&' | '/' | '"'
                )
        })
}
