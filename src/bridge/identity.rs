//! The identity of an event, for a log line.

use crate::event::Event;

/// The identity that the sender gave: each text is escaped and at most 64 bytes long.
#[derive(Debug, Default)]
pub struct Identity {
    /// The event's `event_id`.
    pub event_id: String,
    /// The event's `name`.
    pub name: String,
    /// The event's `event_type`.
    pub event_type: String,
}

impl Identity {
    /// The identity of this event.
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
