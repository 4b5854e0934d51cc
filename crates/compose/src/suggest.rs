//! The three responses that an agent most likely wants to send now.

use crate::{
    cluster,
    conversation::Conversation,
    feature,
    model::Model,
    response::{Entry, Lists, Place},
    text::{fold, head, likeness, words},
};

/// The most suggestions of an answer.
pub const SUGGESTIONS_MAX: usize = 3;
/// The number of best-scored candidates that suggestions are chosen from.
const CLOSER: usize = 256;
const TYPED_BYTES_MAX: usize = 1024;
/// With this many typed words, a candidate is far from them when it has less than [`FAR_SHARE`] of them and a score
/// below [`FAR_SCORE`].
const FAR_WORDS: usize = 4;
const FAR_SHARE: f32 = 0.34;
const FAR_SCORE: f32 = 0.3;

/// The settings of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The least score of the first suggestion, 0 to 1: below it, nothing is shown.
    pub show_min_confidence: f32,
}

/// A response to show, with its placeholders filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// The response's id.
    pub id: String,
    /// The text to show and insert.
    pub text: String,
    /// The text with its placeholders.
    pub template_text: String,
    /// The response's title, or nothing.
    pub title: String,
    /// The response's folder.
    pub folder_id: String,
    /// The response's share of the scores of all candidates, where a class counts once: 0 to 1.
    pub score: f32,
}

struct Candidate<'a> {
    entry: &'a Entry,
    score: f32,
    within: f32,
}

/// The likeliest responses of `lists`, best first: at most [`SUGGESTIONS_MAX`], no two of which say the same. `typed`
/// is the text in the agent's composer.
pub fn suggest(model: &Model, lists: &Lists, said: &Conversation, typed: &str, options: &Options) -> Vec<Suggestion> {
    let context = said.context(model);
    let mut sum = context.sum;
    let typed = head(typed, TYPED_BYTES_MAX);
    model.parts.network.add(&model.rows, &feature::query(typed, said.domain, context.previous), &mut sum);
    let chances = model.parts.network.classes(&sum);
    let typed = Typed { folded: fold(typed), words: words(typed) };
    let asked: Vec<String> = said.unanswered.iter().flat_map(|message| message.words.iter().cloned()).collect();
    let floor = 0.3 / (chances.len() as f32 + 20.0);
    let mut candidates: Vec<Candidate> = lists
        .entries()
        .filter(|entry| !typed.is_all_of(entry))
        .map(|entry| {
            let (chance, within) = chance(model, entry, &chances, said.domain, floor, &asked);
            let (lift, within_lift) = typed.lift(entry);
            Candidate { entry, score: chance * lift, within: within + within_lift }
        })
        .collect();
    let by_score = |a: &Candidate, b: &Candidate| b.score.total_cmp(&a.score).then(b.within.total_cmp(&a.within));
    if candidates.len() > CLOSER {
        candidates.select_nth_unstable_by(CLOSER, by_score);
        candidates.truncate(CLOSER);
    }
    candidates.sort_by(by_score);
    let chosen = choose(&candidates, chances.len(), said);
    let is_sure = chosen.first().is_some_and(|(_, first)| first.score >= options.show_min_confidence);
    if !is_sure || typed.is_past(&chosen) {
        return Vec::new();
    }
    chosen.into_iter().map(|(_, suggestion)| suggestion).collect()
}

/// A response's probability, and how usual the response is within its class and this folder.
fn chance(model: &Model, entry: &Entry, chances: &[f32], domain: u64, floor: f32, asked: &[String]) -> (f32, f32) {
    let of = |class: usize| chances.get(class).copied().unwrap_or(0.0);
    match entry.place {
        Place::Known(class, member) => {
            let member = model.parts.classes.get(class).and_then(|class| class.members.get(member));
            let within = member.map_or(0.0, |member| {
                let here = member.in_folder.binary_search_by_key(&domain, |(folder, _)| *folder);
                let here = here.ok().and_then(|at| member.in_folder.get(at)).map_or(0, |(_, uses)| *uses);
                here as f32 + 1e-6 * member.uses as f32
            });
            (of(class), within)
        }
        Place::Like(class, like) => ((0.5 * like * of(class)).max(floor), 0.0),
        Place::Nowhere => (floor * (1.0 + 4.0 * likeness(&entry.words, asked)), 0.0),
    }
}

/// The typed text, in the forms in which candidates are compared with it.
struct Typed {
    folded: String,
    words: Vec<String>,
}

impl Typed {
    /// Whether nothing of the candidate is left to be typed.
    fn is_all_of(&self, entry: &Entry) -> bool {
        self.folded.starts_with(&entry.folded)
    }

    /// The factor by which the typed text makes a candidate likelier, and an addition to how usual the candidate is
    /// within its class. The factor is 1 for a response with a history, as the network has already seen the typed text.
    fn lift(&self, entry: &Entry) -> (f32, f32) {
        if self.folded.is_empty() {
            return (1.0, 0.0);
        }
        let length = self.folded.len().min(12) as f32;
        let is_begun = entry.folded.starts_with(&self.folded);
        if let Place::Known(..) = entry.place {
            return (1.0, if is_begun { length } else { 0.0 });
        }
        if is_begun {
            return (1.0 + length * length, 0.0);
        }
        let share = self.share_of(entry);
        (1.0 + share * share * length, 0.0)
    }

    /// The share of the typed words with which a word of the candidate begins.
    fn share_of(&self, entry: &Entry) -> f32 {
        let begun = |typed: &&String| entry.words.iter().any(|word| word.starts_with(typed.as_str()));
        self.words.iter().filter(begun).count() as f32 / self.words.len().max(1) as f32
    }

    /// Whether the agent writes something else: a text longer than all chosen responses, or far from all of them.
    fn is_past(&self, chosen: &[(&Entry, Suggestion)]) -> bool {
        let is_longer = |entry: &Entry| !entry.has_slots() && self.folded.len() >= entry.folded.len();
        let is_far = |entry: &Entry, score: f32| score < FAR_SCORE && self.share_of(entry) < FAR_SHARE;
        chosen.iter().all(|(entry, _)| is_longer(entry))
            || self.words.len() >= FAR_WORDS && chosen.iter().all(|(entry, one)| is_far(entry, one.score))
    }
}

/// The best candidates that can be filled, each meaning once.
fn choose<'a>(candidates: &[Candidate<'a>], classes: usize, said: &Conversation) -> Vec<(&'a Entry, Suggestion)> {
    let mut counted = vec![false; classes];
    let mut first_of_class = |candidate: &&Candidate| match candidate.entry.place {
        Place::Known(class, _) => counted.get_mut(class).is_some_and(|counted| !std::mem::replace(counted, true)),
        Place::Like(..) | Place::Nowhere => true,
    };
    let total: f32 =
        candidates.iter().filter(|candidate| first_of_class(candidate)).map(|candidate| candidate.score).sum();
    let mut chosen: Vec<(&'a Entry, Suggestion)> = Vec::with_capacity(SUGGESTIONS_MAX);
    for Candidate { entry, score, .. } in candidates {
        if chosen.iter().any(|(other, _)| same_meaning(other, entry)) {
            continue;
        }
        let Some(text) = entry.fill(&said.facts) else { continue };
        let response = &entry.response;
        chosen.push((
            entry,
            Suggestion {
                id: response.id.clone(),
                text,
                template_text: response.text.clone(),
                title: response.title.clone(),
                folder_id: response.folder_id.clone(),
                score: if total > 0.0 { score / total } else { 0.0 },
            },
        ));
        if chosen.len() == SUGGESTIONS_MAX {
            break;
        }
    }
    chosen
}

fn same_meaning(a: &Entry, b: &Entry) -> bool {
    match (a.place, b.place) {
        (Place::Known(a, _), Place::Known(b, _)) => a == b,
        _ => a.key == b.key || cluster::say_the_same(&a.words, &b.words),
    }
}
