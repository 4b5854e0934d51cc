//! Which event it was, for a log line.

use crate::event::Event;

/// What its sender calls it: escaped, each at most 64 bytes.
#[derive(Debug, Default)]
pub struct Identity {
    pub event_id: String,
    pub name: String,
    pub event_type: String,
}

impl Identity {
    pub fn of(event: &Event<'_>) -> Self {
        Self { event_id: short(event.event_id), name: short(event.name), event_type: short(event.event_type) }
    }
}

/// A sender's text for a log: escaped, at most 64 bytes.
fn short(text: &str) -> String {
    let mut escaped = String::new();
    for part in text.chars().map(char::escape_default) {
        if escaped.len() + part.len() > 64 {
            break;
        }
        escaped.extend(part);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_senders_text_is_short_and_escaped() {
        assert_eq!(short("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert!(short(&"\u{1b}".repeat(100)).len() <= 64);
    }
}
