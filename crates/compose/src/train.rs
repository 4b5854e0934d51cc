//! Learning from transcripts: the classes of responses, and the network that ranks them.

use std::collections::HashMap;

use crate::{
    cluster,
    conversation::{Conversation, Role},
    feature,
    learn::{Example, Examples, Learner},
    model::{Class, Member, Model, Parts},
    phrase,
    random::Random,
    response::{Entry, Facts, List, Response},
    text::head,
};

/// A conversation that is over.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// The agent's id.
    pub agent: String,
    /// The messages, in order.
    pub turns: Vec<Turn>,
}

/// A message of a transcript.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The role of the sender.
    pub role: Role,
    /// The text, redacted.
    pub text: String,
    /// The id of the response that the message was made from, where that is known.
    pub response: Option<String>,
    /// The texts that the agent had typed when suggestions were asked for, redacted.
    pub typed: Vec<String>,
}

/// The settings of training. Equal settings, transcripts and responses give an equal model.
#[derive(Clone, Debug)]
pub struct Training {
    /// The seed of the random numbers.
    pub seed: u64,
    /// The number of times that each example is learnt from.
    pub epochs: u32,
    /// The most features that are kept: those that matter most.
    pub rows_max: usize,
    /// The most sent responses that a conversation remembers, as in [`Conversation::new`].
    pub turns_max: usize,
}

impl Default for Training {
    fn default() -> Training {
        Training { seed: 0, epochs: 6, rows_max: 30_000, turns_max: 200 }
    }
}

/// The least number of conversations that must have a feature for it to count.
const CONVERSATIONS_MIN: u32 = 2;
const EMPTY_WEIGHT: f32 = 1.5;
const TYPED_WEIGHT: f32 = 0.4;
const PREFIXES: [usize; 10] = [2, 3, 4, 5, 6, 8, 10, 13, 20, usize::MAX];

/// Learns from `transcripts` which of `company`'s responses comes when. `progress` is told each epoch's number, from 1,
/// and the epoch's mean loss in nats.
pub fn train(
    transcripts: &[Transcript],
    company: &[Response],
    options: &Training,
    mut progress: impl FnMut(u32, f64),
) -> Model {
    let list = List::new(&Model::default(), company.iter().cloned());
    let phrases = phrase::learn(transcripts, &list);
    let classes = classes(transcripts, &list, options);
    if classes.is_empty() {
        return Model::new(Parts { phrases, ..Parts::default() });
    }
    let known = Model::new(Parts { classes, ..Parts::default() });
    let mut random = Random::new(options.seed);
    let mut examples = Examples::default();
    {
        let (context, query) = count(transcripts, &list, &known, options, &mut random.clone());
        each_answer(transcripts, &list, options, |answer| {
            let Some(class) = known.class(answer.key) else { return };
            collect(&answer, class, &known, (&context, &query), &mut random, &mut examples);
        });
    }
    let mut learner = Learner::new(examples.features.len(), known.classes(), &mut random);
    for epoch in 1..=options.epochs {
        let rate = if epoch + 2 > options.epochs { 0.4 } else { 1.0 };
        progress(epoch, learner.epoch(&mut examples, 0.03 * rate, &mut random));
    }
    let network = learner.network(&examples.features, options.rows_max);
    Model::new(Parts { network, classes: known.parts.classes, phrases })
}

/// The classes: groups of responses that say the same, with their uses. A group that was never sent is no class.
fn classes(transcripts: &[Transcript], list: &List, options: &Training) -> Vec<Class> {
    let first = cluster::same(&list.entries);
    let mut members: HashMap<u64, (u32, HashMap<u64, u32>)> = HashMap::new();
    each_answer(transcripts, list, options, |answer| {
        let (uses, in_folder) = members.entry(answer.key).or_default();
        *uses += 1;
        *in_folder.entry(answer.said.domain).or_default() += 1;
    });
    let mut found: Vec<(usize, Class)> = Vec::new();
    for (at, (entry, first)) in list.entries.iter().zip(first).enumerate() {
        if list.by_key(entry.key) != Some(at) {
            continue;
        }
        let place = found.iter().position(|(other, _)| *other == first).unwrap_or(found.len());
        if place == found.len() {
            found.push((first, Class { name: entry.key, text: entry.folded.clone(), members: Vec::new() }));
        }
        let (uses, in_folder) = members.remove(&entry.key).unwrap_or_default();
        let mut in_folder: Vec<(u64, u32)> = in_folder.into_iter().collect();
        in_folder.sort_unstable();
        if let Some((_, class)) = found.get_mut(place) {
            class.members.push(Member { key: entry.key, uses, in_folder });
        }
    }
    let mut classes: Vec<Class> = found.into_iter().map(|(_, class)| class).collect();
    classes.retain(|class| class.members.iter().any(|member| member.uses > 0));
    classes
}

/// An agent's message that was made from a response, and the conversation before it.
struct Answer<'a> {
    said: &'a Conversation,
    key: u64,
    conversation: u32,
    turn: &'a Turn,
}

fn each_answer(transcripts: &[Transcript], list: &List, options: &Training, mut told: impl FnMut(Answer)) {
    for (conversation, transcript) in (0u32..).zip(transcripts) {
        let mut said = Conversation::new(&transcript.agent, Facts::default(), options.turns_max);
        for turn in &transcript.turns {
            let from = source(list, turn);
            if let Some(entry) = from {
                told(Answer { said: &said, key: entry.key, conversation, turn });
            }
            said.push_entry(turn.role, &turn.text, from);
        }
    }
}

/// The response that a message was made from.
pub(crate) fn source<'l>(list: &'l List, turn: &Turn) -> Option<&'l Entry> {
    if turn.role != Role::Agent {
        return None;
    }
    turn.response.as_deref().and_then(|id| list.by_id(id)).or_else(|| list.find_entry(&turn.text))
}

/// The number of conversations that have a feature, and the last of them.
type Counts = HashMap<u64, (u32, u32)>;

fn count(
    transcripts: &[Transcript],
    list: &List,
    known: &Model,
    options: &Training,
    random: &mut Random,
) -> (Counts, Counts) {
    let (mut context, mut query) = (Counts::new(), Counts::new());
    each_answer(transcripts, list, options, |answer| {
        if known.class(answer.key).is_none() {
            return;
        }
        for feature in feature::context(answer.said, |key| known.class_name(key)) {
            once(context.entry(feature).or_default(), answer.conversation);
        }
        for features in queries(&answer, known, random) {
            for feature in features {
                once(query.entry(feature).or_default(), answer.conversation);
            }
        }
    });
    context.retain(|_, (count, _)| *count >= CONVERSATIONS_MIN);
    query.retain(|_, (count, _)| *count >= CONVERSATIONS_MIN);
    (context, query)
}

/// Counts each conversation once.
fn once((count, last): &mut (u32, u32), who: u32) {
    if *count == 0 || *last != who {
        *count += 1;
    }
    *last = who;
}

/// The features of texts that an agent may have typed before a message: beginnings of the search words and of the
/// message itself.
fn queries(answer: &Answer, known: &Model, random: &mut Random) -> Vec<Vec<u64>> {
    let typed = answer.turn.typed.iter().rev().map(|typed| typed.trim()).find(|typed| !typed.is_empty());
    let last = feature::name(answer.said.last[0], |key| known.class_name(key));
    let text = answer.turn.text.trim();
    let sources = [typed.unwrap_or(text), typed.unwrap_or(text), typed.unwrap_or(text), text];
    let prefix = |text: &str, random: &mut Random| {
        let chars = PREFIXES.get(random.below(PREFIXES.len())).copied().unwrap_or(usize::MAX);
        let end = text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
        feature::query(head(text, end), answer.said.domain, last)
    };
    sources.map(|text| prefix(text, random)).into()
}

fn collect(
    answer: &Answer,
    class: usize,
    known: &Model,
    counts: (&Counts, &Counts),
    random: &mut Random,
    examples: &mut Examples,
) {
    let context = feature::context(answer.said, |key| known.class_name(key));
    let context = examples.add(&context, |feature| counts.0.contains_key(&feature));
    examples.push(Example { context, query: Default::default(), class, weight: EMPTY_WEIGHT });
    for features in queries(answer, known, random) {
        let query = examples.add(&features, |feature| counts.1.contains_key(&feature));
        examples.push(Example { context, query, class, weight: TYPED_WEIGHT });
    }
}
