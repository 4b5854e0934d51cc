//! A simulated agent, who types a message known beforehand and takes each offer that is exactly right. A real agent
//! does not take all of these.

use compose::{Conversation, Lists, Model, Options, Response, complete, suggest};
use serde_json::{Value, json};

pub struct Desktop<'a> {
    pub model: &'a Model,
    pub lists: &'a Lists<'a>,
    pub said: &'a Conversation,
    pub min_confidence: f32,
}

/// Phrase completion alone.
#[derive(Default)]
pub struct Phrases {
    messages: usize,
    characters: usize,
    saved: usize,
    shown: usize,
    taken: usize,
}

/// Suggestions and phrase completion together.
#[derive(Default)]
pub struct Pipeline {
    messages: usize,
    characters: usize,
    keystrokes: usize,
}

impl Desktop<'_> {
    /// Types `text` and takes each right completion for one keystroke.
    pub fn phrases(&mut self, text: &str, counts: &mut Phrases) {
        let mut last: Option<String> = None;
        let mut rest = text.chars();
        while !rest.as_str().is_empty() {
            let typed = &text[..text.len() - rest.as_str().len()];
            let offer =
                complete(self.model, self.said, typed, self.min_confidence).map_or(String::new(), |offer| offer.text);
            if offer.chars().count() >= 3 {
                counts.shown += usize::from(last.as_ref() != Some(&offer));
                if is_right(rest.as_str(), &offer) {
                    counts.taken += 1;
                    counts.saved += offer.chars().count() - 1;
                    rest = rest.as_str()[offer.len()..].chars();
                    last = None;
                    continue;
                }
            }
            let typed = rest.next();
            last = offer.strip_prefix(|c| Some(c) == typed).map(str::to_owned);
        }
        counts.messages += 1;
        counts.characters += text.chars().count();
    }

    /// Types `text`, which was made from `response`, with both aids; the text in a template's slots is typed by hand.
    pub fn both(&mut self, text: &str, response: Option<&Response>, counts: &mut Pipeline) {
        let all = text.chars().count();
        let mut keystrokes = 0;
        let mut rest = text.chars();
        while !rest.as_str().is_empty() {
            let typed = &text[..text.len() - rest.as_str().len()];
            let shown = suggest(self.model, self.lists, self.said, typed, &Options::default());
            if let Some(response) = response.filter(|response| shown.iter().any(|one| one.id == response.id)) {
                keystrokes += 1 + slot_characters(&response.text, text);
                break;
            }
            keystrokes += 1;
            match complete(self.model, self.said, typed, self.min_confidence) {
                Some(offer) if is_right(rest.as_str(), &offer.text) => rest = rest.as_str()[offer.text.len()..].chars(),
                _ => drop(rest.next()),
            }
        }
        counts.messages += 1;
        counts.characters += all;
        counts.keystrokes += keystrokes.min(all);
    }
}

/// Whether an offer is the very text that comes next, up to the end of a word.
fn is_right(rest: &str, offer: &str) -> bool {
    let Some(after) = rest.strip_prefix(offer) else { return false };
    offer.chars().count() >= 3
        && (after.is_empty() || after.starts_with([' ', '.', ',', '!', '?']) || offer.ends_with(['.', '?', '!']))
}

/// The number of a message's characters that stand in its template's slots.
fn slot_characters(template: &str, text: &str) -> usize {
    let mut literal = 0;
    let mut slots = 0;
    for (at, part) in template.split('[').enumerate() {
        let after = match part.split_once(']') {
            Some((_, after)) if at > 0 => after,
            _ => part,
        };
        slots += usize::from(at > 0);
        literal += after.chars().count();
    }
    if slots == 0 { 0 } else { text.chars().count().saturating_sub(literal) }
}

impl Phrases {
    pub fn json(&self) -> Value {
        json!({
            "messages typed freely": self.messages,
            "characters saved %": 100.0 * self.saved as f64 / self.characters.max(1) as f64,
            "acceptance %": 100.0 * self.taken as f64 / self.shown.max(1) as f64,
            "shown": self.shown,
        })
    }
}

impl Pipeline {
    pub fn json(&self) -> Value {
        json!({
            "messages": self.messages,
            "keystrokes saved %": 100.0 - 100.0 * self.keystrokes as f64 / self.characters.max(1) as f64,
        })
    }
}
