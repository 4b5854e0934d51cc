//! The features that the network sees: a conversation, and a query (the typed text), as sets of hashes. Training and
//! answering share this code, so that both see the same.

use crate::{
    conversation::{Conversation, Message, Sent},
    text::{fold, hash, head},
};

/// The kinds of features. Each number is used once, so that hashes of different kinds differ.
#[derive(Clone, Copy)]
enum Kind {
    Word = 1,
    Pair,
    Length,
    Question,
    Number,
    Messages,
    AfterWord,
    AfterLength,
    AfterQuestion,
    AfterNumber,
    DomainWord,
    Last,
    LastTwo,
    LastThree,
    Second,
    Third,
    Sent,
    LastSent,
    SentAgain,
    Turn,
    TurnLast,
    EverWord,
    FirstWord,
    RecentWord,
    FreeWord,
    Domain,
    DomainLast,
    DomainTurns,
    Agent,
    AgentLast,
    AgentDomain,
    FourCharacters,
    QueryPrefix,
    QueryWord,
    QueryOpen,
    QueryStart,
    QueryPair,
    QueryThree,
    QueryLength,
    QueryDomain,
    QueryAfter,
}

const NOTHING: u64 = 1;
const FREE: u64 = 2;
/// The number of the customer's words that are paired with the agent's last message.
const AFTER_WORDS: usize = 30;
/// The number of bytes of a query that count.
const QUERY_BYTES: usize = 160;

fn mix(kind: Kind, a: u64, b: u64) -> u64 {
    let mut x = (kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ a.wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(29)
        ^ b.wrapping_mul(0x94d0_49bb_1331_11eb).rotate_left(47);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The number that stands for an agent's message: the name of its class, or a mark where it has none.
pub(crate) fn name(sent: Sent, class: impl Fn(u64) -> Option<u64>) -> u64 {
    match sent {
        Sent::Nothing => NOTHING,
        Sent::Free => FREE,
        Sent::Response(key) => class(key).unwrap_or(FREE),
    }
}

/// The features of a conversation, each once, in ascending order. `class` gives the name of a response's class by the
/// response's key.
pub(crate) fn context(said: &Conversation, class: impl Fn(u64) -> Option<u64>) -> Vec<u64> {
    let mut found = Vec::with_capacity(512);
    let [one, two, three] = said.last.map(|sent| name(sent, &class));
    unanswered(said, one, &mut found);
    history(said, [one, two, three], &class, &mut found);
    let mut each =
        |kind: Kind, words: &mut dyn Iterator<Item = u64>| found.extend(words.map(|word| mix(kind, word, 0)));
    each(Kind::EverWord, &mut said.customer_words.iter().copied());
    each(Kind::FirstWord, &mut said.first.iter().copied());
    each(Kind::RecentWord, &mut said.recent.iter().flatten().copied());
    each(Kind::FreeWord, &mut said.free.iter().copied());
    found.sort_unstable();
    found.dedup();
    found
}

/// Adds the features of the customer's messages that wait for an answer.
fn unanswered(said: &Conversation, last: u64, found: &mut Vec<u64>) {
    let words = || said.unanswered.iter().flat_map(|message: &Message| &message.words);
    let stop = hash(" . ");
    let mut before = hash("<");
    for (at, message) in said.unanswered.iter().enumerate() {
        if at > 0 {
            found.push(mix(Kind::Pair, before, stop));
            before = stop;
        }
        for word in message.words.iter().map(|word| hash(word)) {
            found.push(mix(Kind::Word, word, 0));
            found.push(mix(Kind::DomainWord, said.domain, word));
            found.push(mix(Kind::Pair, before, word));
            before = word;
        }
    }
    found.push(mix(Kind::Pair, before, hash(">")));
    found.extend(words().take(AFTER_WORDS).map(|word| mix(Kind::AfterWord, last, hash(word))));
    let count = words().count();
    let length = u64::from(usize::BITS - count.leading_zeros());
    let question = u64::from(said.unanswered.iter().any(|message| message.question));
    let number = u64::from(said.unanswered.iter().any(|message| message.number));
    let messages = said.unanswered.len() as u64;
    found.extend([
        mix(Kind::Length, length, 0),
        mix(Kind::Question, question, 0),
        mix(Kind::Number, number, 0),
        mix(Kind::Messages, messages, 0),
        mix(Kind::AfterLength, last, length),
        mix(Kind::AfterQuestion, last, question),
        mix(Kind::AfterNumber, last, number),
    ]);
    for word in words() {
        four_characters(word, found);
    }
}

fn four_characters(word: &str, found: &mut Vec<u64>) {
    let framed = format!("<{word}>");
    let starts: Vec<usize> = framed.char_indices().map(|(at, _)| at).chain([framed.len()]).collect();
    for (from, to) in starts.iter().zip(starts.iter().skip(4)) {
        found.push(mix(Kind::FourCharacters, hash(framed.get(*from..*to).unwrap_or_default()), 0));
    }
}

/// Adds the features of the responses sent before, of the conversation's folder, and of the agent.
fn history(said: &Conversation, [one, two, three]: [u64; 3], class: impl Fn(u64) -> Option<u64>, found: &mut Vec<u64>) {
    let mut sent: Vec<u64> = said.sent.iter().filter_map(|key| class(*key)).collect();
    sent.sort_unstable();
    for pair in sent.chunk_by(|a, b| a == b) {
        let Some(name) = pair.first() else { continue };
        found.push(mix(Kind::Sent, *name, 0));
        found.push(mix(Kind::LastSent, one, *name));
        if pair.len() > 1 {
            found.push(mix(Kind::SentAgain, *name, 0));
        }
    }
    let turn = u64::from(said.agent_turns);
    found.extend([
        mix(Kind::Last, one, 0),
        mix(Kind::LastTwo, one, two),
        mix(Kind::LastThree, mix(Kind::LastTwo, one, two), three),
        mix(Kind::Second, two, 0),
        mix(Kind::Third, three, 0),
        mix(Kind::Turn, turn.min(12), 0),
        mix(Kind::TurnLast, turn.min(6), one),
        mix(Kind::Domain, said.domain, 0),
        mix(Kind::DomainLast, said.domain, one),
        mix(Kind::DomainTurns, said.domain, u64::from(said.domain_turns.min(8))),
        mix(Kind::Agent, said.agent, 0),
        mix(Kind::AgentLast, said.agent, one),
        mix(Kind::AgentDomain, said.agent, said.domain),
    ]);
}

/// The features of the typed text, each once, in ascending order; none where the text is blank.
pub(crate) fn query(typed: &str, domain: u64, last: u64) -> Vec<u64> {
    let mut folded: String =
        fold(head(typed, QUERY_BYTES)).chars().map(|c| if c.is_numeric() { '#' } else { c }).collect();
    if folded.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::with_capacity(128);
    let prefix = |text: &str, chars: usize| text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
    let start = hash(folded.get(..prefix(&folded, 3)).unwrap_or_default());
    let count = folded.chars().count();
    for chars in 1..=count.min(14) {
        found.push(mix(Kind::QueryPrefix, hash(folded.get(..prefix(&folded, chars)).unwrap_or_default()), 0));
    }
    found.push(mix(Kind::QueryLength, count.min(12) as u64, 0));
    found.push(mix(Kind::QueryDomain, domain, start));
    found.push(mix(Kind::QueryAfter, last, start));
    if typed.ends_with(char::is_whitespace) {
        folded.push(' ');
    }
    let mut before = None;
    let mut parts = folded.split(|c: char| !(c.is_alphanumeric() || matches!(c, '\'' | '#'))).peekable();
    while let Some(word) = parts.next() {
        if word.is_empty() {
            continue;
        }
        let finished = parts.peek().is_some();
        let own = if finished { Kind::QueryWord } else { Kind::QueryOpen };
        found.push(mix(own, hash(word), 0));
        for chars in 2..=word.chars().count().min(8) {
            let kind = if finished { Kind::QueryStart } else { Kind::QueryOpen };
            let start = hash(word.get(..prefix(word, chars)).unwrap_or_default());
            found.push(mix(kind, start, 0));
            if !finished {
                found.push(mix(Kind::QueryStart, start, 0));
            }
        }
        if let Some(before) = before.replace(hash(word)) {
            found.push(mix(Kind::QueryPair, before, hash(word)));
        }
    }
    three_characters(&folded, &mut found);
    found.sort_unstable();
    found.dedup();
    found
}

fn three_characters(folded: &str, found: &mut Vec<u64>) {
    let framed = format!(" {folded}");
    let starts: Vec<usize> = framed.char_indices().map(|(at, _)| at).chain([framed.len()]).collect();
    for (from, to) in starts.iter().zip(starts.iter().skip(3)) {
        found.push(mix(Kind::QueryThree, hash(framed.get(*from..*to).unwrap_or_default()), 0));
    }
}
