//! A conversation as the engine remembers it: bounded, and brought up to date once for each message.

use std::collections::{HashSet, VecDeque};

use crate::{
    feature,
    model::Model,
    network::Hidden,
    response::{Entry, Facts, Response},
    text::{has_digit, hash, words},
};

/// The number of the customer's last messages that are kept: the next answer depends on them most.
const RECENT: usize = 3;
/// The most different words that a conversation remembers.
const SAID_MAX: usize = 2048;

/// The roles, as the API names them. A system (a virtual agent) is no participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The person who asks.
    Customer,
    /// The person who answers.
    Agent,
    /// A virtual agent.
    System,
}

/// The state of one conversation. Its size is bounded by `turns_max` and constants, however long the conversation is.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// The values that fill placeholders and decide on filters.
    pub facts: Facts,
    pub(crate) agent: u64,
    pub(crate) turns_max: usize,
    pub(crate) sent: VecDeque<u64>,
    pub(crate) agent_turns: u32,
    pub(crate) domain: u64,
    pub(crate) domain_turns: u32,
    /// The customer's messages since the agent's last one.
    pub(crate) unanswered: VecDeque<Message>,
    pub(crate) recent: VecDeque<Vec<u64>>,
    pub(crate) first: Vec<u64>,
    pub(crate) customer_words: HashSet<u64>,
    /// The hashed words of the agent's last message; empty where that message was made from a response.
    pub(crate) free: Vec<u64>,
    pub(crate) last: [Sent; 3],
    said: HashSet<u64>,
    context: Option<Context>,
}

/// A customer's message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub words: Vec<String>,
    pub question: bool,
    pub number: bool,
}

/// The source of an agent's message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sent {
    #[default]
    Nothing,
    Free,
    Response(u64),
}

/// The network's inner values for the messages so far, kept until the next message.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub model: u64,
    pub sum: Hidden,
    pub previous: u64,
}

impl Conversation {
    /// A conversation without messages. `agent` is the agent's id, an opaque text. The oldest of more than `turns_max`
    /// sent responses are forgotten.
    pub fn new(agent: &str, facts: Facts, turns_max: usize) -> Conversation {
        Conversation {
            facts,
            agent: hash(agent),
            turns_max: turns_max.max(1),
            sent: VecDeque::new(),
            agent_turns: 0,
            domain: 0,
            domain_turns: 0,
            unanswered: VecDeque::new(),
            recent: VecDeque::new(),
            first: Vec::new(),
            customer_words: HashSet::new(),
            free: Vec::new(),
            last: [Sent::Nothing; 3],
            said: HashSet::new(),
            context: None,
        }
    }

    /// Another agent takes over.
    pub fn reassign(&mut self, agent: &str) {
        self.agent = hash(agent);
        self.context = None;
    }

    /// Adds a message. `from` is the response that an agent's message was made from, see [`crate::List::find`].
    pub fn push(&mut self, role: Role, text: &str, from: Option<&Response>) {
        let entry = from.cloned().map(Entry::new);
        self.push_entry(role, text, entry.as_ref());
    }

    pub(crate) fn push_entry(&mut self, role: Role, text: &str, from: Option<&Entry>) {
        self.context = None;
        match role {
            Role::System => {}
            Role::Customer => self.customer_said(text),
            Role::Agent => self.agent_said(text, from),
        }
    }

    fn customer_said(&mut self, text: &str) {
        let message = Message { words: words(text), question: text.contains('?'), number: has_digit(text) };
        let hashes: Vec<u64> = message.words.iter().map(|word| hash(word)).collect();
        let room = SAID_MAX.saturating_sub(self.customer_words.len());
        self.customer_words.extend(hashes.iter().copied().take(room));
        self.remember(&hashes);
        if self.first.is_empty() {
            self.first.clone_from(&hashes);
        }
        keep_last(&mut self.recent, hashes, RECENT);
        keep_last(&mut self.unanswered, message, RECENT);
    }

    fn agent_said(&mut self, text: &str, from: Option<&Entry>) {
        let hashes: Vec<u64> = words(text).iter().map(|word| hash(word)).collect();
        self.remember(&hashes);
        self.unanswered.clear();
        self.agent_turns = self.agent_turns.saturating_add(1);
        let sent = from.map_or(Sent::Free, |entry| Sent::Response(entry.key));
        let [one, two, _] = self.last;
        self.last = [sent, one, two];
        let Some(entry) = from else {
            self.free = hashes;
            return;
        };
        self.free.clear();
        keep_last(&mut self.sent, entry.key, self.turns_max);
        if entry.folder != 0 {
            self.domain_turns = if entry.folder == self.domain { self.domain_turns.saturating_add(1) } else { 1 };
            self.domain = entry.folder;
        }
    }

    fn remember(&mut self, words: &[u64]) {
        let room = SAID_MAX.saturating_sub(self.said.len());
        self.said.extend(words.iter().copied().take(room));
    }

    /// Whether the customer or the agent said a folded word, or the word is part of either's name.
    pub(crate) fn said(&self, word: &str) -> bool {
        let names = [&self.facts.customer_name, &self.facts.agent_name].into_iter().flatten();
        self.said.contains(&hash(word)) || names.flat_map(|name| words(name)).any(|name| name == word)
    }

    /// Computes the network's inner values for the messages so far, so that a keystroke need not. A server calls this
    /// after [`Conversation::push`]; without the call, [`crate::suggest()`] gives the same answer, more slowly.
    pub fn prepare(&mut self, model: &Model) {
        if self.context.as_ref().is_none_or(|context| context.model != model.id()) {
            self.context = Some(self.compute(model));
        }
    }

    pub(crate) fn context(&self, model: &Model) -> Context {
        match &self.context {
            Some(context) if context.model == model.id() => context.clone(),
            _ => self.compute(model),
        }
    }

    fn compute(&self, model: &Model) -> Context {
        let class = |key| model.class_name(key);
        let features = feature::context(self, class);
        Context {
            model: model.id(),
            sum: model.parts.network.sum(&model.rows, &features),
            previous: feature::name(self.last[0], class),
        }
    }
}

fn keep_last<T>(queue: &mut VecDeque<T>, value: T, max: usize) {
    while queue.len() >= max.max(1) {
        queue.pop_front();
    }
    queue.push_back(value);
}
