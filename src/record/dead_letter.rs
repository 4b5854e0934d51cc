//! What becomes of a body that has no record: the body itself, and as headers what is known of it.

use super::{Origin, Record, body_hash, coding::Undecodable, hex, trace_context};
use crate::event::Unreadable;

// Header names that more than one stage reads.
pub const STAGE: &str = "__connect.errors.stage";
pub const REASON: &str = "__connect.errors.exception.message";
pub const TOPIC: &str = "__connect.errors.topic";
pub const FEED: &str = "causeway_feed";
pub const STUB: &str = "causeway_stub";
pub const SIZE: &str = "causeway_size";
pub const BODY: &str = "causeway_body";
pub const RECEIVED_AT: &str = "causeway_received_at";
pub const SENDER: &str = "causeway_sender";
pub const ATTEMPTS: &str = "causeway_attempts";
pub const CONTENT_TYPE: &str = "content-type";
pub const CONTENT_ENCODING: &str = "content-encoding";

/// Why a body is a dead letter.
#[derive(Debug, Clone, Copy)]
pub enum Refused<'a> {
    /// It is no event.
    Unreadable(&'a Unreadable),
    /// Its content codings cannot be undone.
    Undecodable(&'a Undecodable),
    /// It is an event, but its record can never be stored in its topic.
    Unstorable(&'a str),
    /// It is larger than the limit; these are its first bytes.
    TooLarge { bytes: Option<u64>, max: usize },
}

impl Refused<'_> {
    /// All that [`Refused::stage`] can give.
    pub const STAGES: [&'static str; 3] = ["READ", "PRODUCE", "RECEIVE"];

    /// Where it was refused: the header `__connect.errors.stage`.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Unreadable(_) | Self::Undecodable(_) => "READ",
            Self::Unstorable(_) => "PRODUCE",
            Self::TooLarge { .. } => "RECEIVE",
        }
    }

    /// The header `__connect.errors.exception.message`; shows nothing of the payload.
    pub fn reason(&self) -> String {
        match self {
            Self::Unreadable(why) => why.to_string(),
            Self::Undecodable(why) => format!("the body cannot be decoded: {why}"),
            Self::Unstorable(why) => format!("the topic cannot take the record: {why}"),
            Self::TooLarge { bytes: Some(bytes), max } => {
                format!("the body's {bytes} bytes are over the limit of {max}; this is a stub with its first bytes")
            }
            Self::TooLarge { bytes: None, max } => {
                format!("the body is over the limit of {max} bytes; this is a stub with its first bytes")
            }
        }
    }

    /// Only the first bytes stand in the record: it cannot be replayed.
    fn is_stub(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }
}

impl Record {
    /// Makes the dead letter of `body`: the raw bytes, and as headers what is known of them.
    pub fn fill_dead_letter(
        &mut self,
        body: &[u8],
        refused: Refused<'_>,
        feed: Option<(&str, &str)>,
        key: Option<&[u8]>,
        origin: &Origin,
    ) {
        self.begin(key, origin.received_at);
        self.header(STAGE, refused.stage().as_bytes());
        self.header(REASON, refused.reason().as_bytes());
        if let Some((label, topic)) = feed {
            self.header(TOPIC, topic.as_bytes());
            self.header(FEED, label.as_bytes());
        }
        let size = match refused {
            Refused::TooLarge { bytes, .. } => bytes.map(|bytes| bytes.to_string()),
            Refused::Unreadable(_) | Refused::Undecodable(_) | Refused::Unstorable(_) => Some(body.len().to_string()),
        };
        if let Some(size) = size {
            self.header(SIZE, size.as_bytes());
        }
        if refused.is_stub() {
            self.header(STUB, b"true");
        }
        self.header(BODY, hex(body_hash(body)).as_slice());
        self.header(RECEIVED_AT, origin.received_at.to_string().as_bytes());
        self.header(SENDER, origin.sender.as_bytes());
        self.header(ATTEMPTS, origin.attempts.to_string().as_bytes());
        for (name, value) in [(CONTENT_TYPE, &origin.content_type), (CONTENT_ENCODING, &origin.content_encoding)] {
            if let Some(value) = value {
                self.header(name, value);
            }
        }
        trace_context(self, origin);
        self.value_mut().extend_from_slice(body);
    }
}
