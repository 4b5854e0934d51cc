//! Responses of a company or an agent: their templates, and the facts that fill them.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::model::Model;
use crate::text::{TEXT_BYTES_MAX, fold, hash, head, key, words};

/// The folder of the responses that lie in no other.
pub const ROOT: &str = "__root";

/// A response, with the members that the API gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The id, an opaque text.
    pub id: String,
    /// The template: `{NAME}` is filled by the engine, `[name]` by the agent.
    pub text: String,
    /// The title; empty where there is none.
    #[serde(default)]
    pub title: String,
    /// The folder's id; [`ROOT`] or empty for none.
    #[serde(default, rename = "folderId")]
    pub folder_id: String,
    /// Bindings of placeholders, and filters on the conversation's metadata.
    #[serde(default)]
    pub metadata: Vec<Metadata>,
}

/// One entry of a response's metadata. The entry binds a placeholder where the text has one of its name or a value is
/// the name of a fact; else the entry is a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The name of the placeholder, or of the conversation's metadata.
    pub name: String,
    /// The facts that fill the placeholder, or the values that the conversation may have.
    #[serde(default, rename = "allowedValues")]
    pub allowed_values: Vec<String>,
}

/// The facts about a conversation beside its messages: they fill placeholders and filter responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The customer's name; its first word is used.
    pub customer_name: Option<String>,
    /// The agent's name; its first word is used.
    pub agent_name: Option<String>,
    /// `morning`, `afternoon` or `evening`, at the customer's place.
    pub time_of_day: Option<String>,
    /// The conversation's metadata.
    pub metadata: HashMap<String, String>,
}

impl Facts {
    fn value(&self, fact: &str) -> Option<&str> {
        let first =
            |name: &'_ Option<String>| name.as_deref().and_then(|name| name.split_whitespace().next().map(str::len));
        let name = match fact {
            "customer.name" => &self.customer_name,
            "agent.name" => &self.agent_name,
            "customer.timeOfDay" => return self.time_of_day.as_deref(),
            other => return self.metadata.get(other).map(String::as_str),
        };
        name.as_deref().map(str::trim_start).zip(first(name)).and_then(|(name, length)| name.get(..length))
    }
}

const FACTS: [&str; 3] = ["customer.name", "agent.name", "customer.timeOfDay"];

/// A list of responses, analysed once so that a keystroke need not.
#[derive(Debug, Default)]
pub struct List {
    pub(crate) entries: Vec<Entry>,
    by_key: HashMap<u64, usize>,
    by_id: HashMap<String, usize>,
}

/// A response with the values that the engine derives from it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub response: Response,
    pub key: u64,
    pub folder: u64,
    pub folded: String,
    pub words: Vec<String>,
    pub place: Place,
    pieces: Vec<String>,
}

/// The place of a response in a model.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Place {
    /// The response is like nothing that was learnt.
    #[default]
    Nowhere,
    /// The response has a history: its class, and its position among the class's members.
    Known(usize, usize),
    /// The response has no history; this class is the likest, to a degree from 0 to 1.
    Like(usize, f32),
}

impl List {
    /// Analyses each response; the first of several with one text counts. A list is for the model that it was made
    /// with: another model ranks its responses wrongly.
    pub fn new(model: &Model, responses: impl IntoIterator<Item = Response>) -> List {
        let mut list = List::default();
        for response in responses {
            let mut entry = Entry::new(response);
            entry.place = model.place(&entry);
            list.by_key.entry(entry.key).or_insert(list.entries.len());
            list.by_id.entry(entry.response.id.clone()).or_insert(list.entries.len());
            list.entries.push(entry);
        }
        list
    }

    /// The responses, in the order of the list.
    pub fn responses(&self) -> impl Iterator<Item = &Response> {
        self.entries.iter().map(|entry| &entry.response)
    }

    /// The response that a message was made from: the one with the message's text, else the fitting template with the
    /// most literal text.
    pub fn find(&self, message: &str) -> Option<&Response> {
        self.find_entry(message).map(|entry| &entry.response)
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Entry> {
        self.entries.get(*self.by_id.get(id)?)
    }

    pub(crate) fn by_key(&self, key: u64) -> Option<usize> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn find_entry(&self, message: &str) -> Option<&Entry> {
        let folded = fold(head(message, TEXT_BYTES_MAX));
        if let Some(entry) = self.by_key.get(&hash(&folded)).and_then(|at| self.entries.get(*at)) {
            return Some(entry);
        }
        let fitting = self.entries.iter().filter(|entry| entry.fits(&folded));
        fitting.max_by_key(|entry| entry.pieces.iter().map(String::len).sum::<usize>())
    }
}

/// The lists that a conversation's agent sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lists<'a> {
    /// The company's responses.
    pub company: Option<&'a List>,
    /// The agent's own responses.
    pub own: Option<&'a List>,
}

impl<'a> Lists<'a> {
    pub(crate) fn entries(&self) -> impl Iterator<Item = &'a Entry> {
        let (company, own) = (self.company, self.own);
        own.into_iter().chain(company).flat_map(|list| &list.entries)
    }
}

impl Entry {
    pub(crate) fn new(response: Response) -> Entry {
        let text = head(&response.text, TEXT_BYTES_MAX);
        let folder = response.folder_id.trim();
        Entry {
            key: key(text),
            folder: if folder.is_empty() || folder == ROOT { 0 } else { hash(folder) },
            folded: fold(text),
            words: words(text),
            place: Place::Nowhere,
            pieces: literal_pieces(text),
            response,
        }
    }

    /// The template with all placeholders filled, or nothing where a fact is missing or a filter excludes the
    /// conversation.
    pub(crate) fn fill(&self, facts: &Facts) -> Option<String> {
        let let_in =
            self.response.metadata.iter().filter(|entry| !self.binds(entry)).all(|filter| {
                facts.metadata.get(&filter.name).is_some_and(|value| filter.allowed_values.contains(value))
            });
        if !let_in {
            return None;
        }
        let mut filled = String::with_capacity(self.response.text.len() + 16);
        let mut rest = self.response.text.as_str();
        while let Some((before, name, after)) = next_slot(rest, '{', '}') {
            filled.push_str(before);
            filled.push_str(self.value(name, facts)?);
            rest = after;
        }
        filled.push_str(rest);
        Some(filled)
    }

    fn binds(&self, entry: &Metadata) -> bool {
        self.response.text.contains(&format!("{{{}}}", entry.name))
            || entry.allowed_values.iter().any(|value| FACTS.contains(&value.as_str()))
    }

    fn value<'f>(&self, placeholder: &str, facts: &'f Facts) -> Option<&'f str> {
        let bound = self.response.metadata.iter().find(|entry| entry.name == placeholder);
        bound.into_iter().flat_map(|entry| &entry.allowed_values).find_map(|fact| facts.value(fact))
    }

    pub(crate) fn has_slots(&self) -> bool {
        self.pieces.len() > 1
    }

    /// Whether a folded message can be this template with a text in each slot, a `{NAME}` or a `[name]`.
    fn fits(&self, folded: &str) -> bool {
        let [first, between @ .., last] = self.pieces.as_slice() else { return false };
        let literal: usize = self.pieces.iter().map(String::len).sum();
        if literal < 4 || folded.len() < literal {
            return false;
        }
        let Some(mut rest) = folded.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()))
        else {
            return false;
        };
        for piece in between {
            let Some((_, after)) = rest.split_once(piece.as_str()) else { return false };
            rest = after;
        }
        true
    }
}

/// The pieces of folded text around a template's slots; one piece where there is no slot.
fn literal_pieces(text: &str) -> Vec<String> {
    let folded = fold(text);
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let mut rest = folded.as_str();
    loop {
        let curly = next_slot(rest, '{', '}');
        let square = next_slot(rest, '[', ']');
        let next = match (curly, square) {
            (Some(a), Some(b)) => Some(if a.0.len() <= b.0.len() { a } else { b }),
            (a, b) => a.or(b),
        };
        let Some((before, _, after)) = next else { break };
        piece.push_str(before);
        pieces.push(std::mem::take(&mut piece));
        rest = after;
    }
    pieces.push(piece + rest);
    pieces
}

/// The next `{name}` or `[name]` with the text before and after it.
fn next_slot(text: &str, open: char, close: char) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(at) = text.get(from..)?.find(open).map(|at| from + at) {
        let inside = text.get(at + 1..)?;
        let length = inside.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(inside.len());
        if length > 0 && inside.get(length..)?.starts_with(close) {
            return Some((text.get(..at)?, inside.get(..length)?, inside.get(length + 1..)?));
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(text: &str, metadata: &[(&str, &str)]) -> Response {
        let metadata = metadata
            .iter()
            .map(|(name, value)| Metadata { name: (*name).into(), allowed_values: vec![(*value).into()] });
        Response { id: text.into(), text: text.into(), metadata: metadata.collect(), ..Response::default() }
    }

    fn filled(response: Response, facts: &Facts) -> Option<String> {
        Entry::new(response).fill(facts)
    }

    #[test]
    fn a_template_is_filled_or_not_offered() {
        let facts = Facts { customer_name: Some("  Ada Byron".into()), ..Facts::default() };
        let hello = || response("Hi {NAME}, welcome.", &[("NAME", "customer.name")]);
        assert_eq!(filled(hello(), &facts).as_deref(), Some("Hi Ada, welcome."));
        assert_eq!(filled(hello(), &Facts::default()), None);
        assert_eq!(filled(response("Hi {NAME}.", &[]), &facts), None, "nothing says what fills it");
        assert_eq!(filled(response("Give [date] {", &[]), &facts).as_deref(), Some("Give [date] {"));
    }

    #[test]
    fn a_filter_lets_in_what_it_names() {
        let billing = || response("Your bill is due.", &[("queue", "billing")]);
        let facts = |queue: &str| Facts { metadata: [("queue".into(), queue.into())].into(), ..Facts::default() };
        assert!(filled(billing(), &facts("billing")).is_some());
        assert!(filled(billing(), &facts("sales")).is_none());
        assert!(filled(billing(), &Facts::default()).is_none());
    }

    #[test]
    fn a_message_is_found_by_its_template() {
        let list = List::new(
            &Model::default(),
            ["Your parcel [parcel] is at [place].", "Your parcel [parcel] is late.", "[all]", "Bye."]
                .map(|text| response(text, &[])),
        );
        let found = |message: &str| list.find(message).map(|response| response.id.as_str());
        assert_eq!(found("Your  parcel A1 is at the depot."), Some("Your parcel [parcel] is at [place]."));
        assert_eq!(found("BYE."), Some("Bye."));
        assert_eq!(found("your parcel x is late."), Some("Your parcel [parcel] is late."));
        assert_eq!(found("Something else"), None, "a template of a slot alone is nobody's");
    }
}
