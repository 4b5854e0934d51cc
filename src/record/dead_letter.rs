//! The dead letter of a body: the raw bytes as its value, and the known facts as headers.

use super::{Origin, Record, body_hash, coding::Undecodable, hex, trace_context};
use crate::event::Unreadable;

/// The header with the stage that refused the body: [`Refused::stage`].
pub const STAGE: &str = "__connect.errors.stage";
/// The header with the reason: [`Refused::reason`].
pub const REASON: &str = "__connect.errors.exception.message";
/// The header with the topic that the event was for.
pub const TOPIC: &str = "__connect.errors.topic";
/// The header with the label of the event's feed.
pub const FEED: &str = "causeway_feed";
/// The header that marks a stub.
pub const STUB: &str = "causeway_stub";
/// The header with the size of the whole body in bytes.
pub const SIZE: &str = "causeway_size";
/// The header with the hash of the body ([`body_hash`]) in hex.
pub const BODY: &str = "causeway_body";
/// The header with the time when the bridge received the body, in milliseconds since 1970.
pub const RECEIVED_AT: &str = "causeway_received_at";
/// The header with the name in the sender's certificate.
pub const SENDER: &str = "causeway_sender";
/// The header with the number of times the dead letter was sent again.
pub const ATTEMPTS: &str = "causeway_attempts";
/// The header with the request's `content-type`.
pub const CONTENT_TYPE: &str = "content-type";
/// The header with the request's `content-encoding`.
pub const CONTENT_ENCODING: &str = "content-encoding";

/// Why a body is a dead letter.
#[derive(Debug, Clone, Copy)]
pub enum Refused<'a> {
    /// The body is no event.
    Unreadable(&'a Unreadable),
    /// The body's content codings cannot be undone.
    Undecodable(&'a Undecodable),
    /// The body is an event, but its record can never be stored in its topic, for this reason.
    Unstorable(&'a str),
    /// The body is over the limit `max`, in bytes, and only a stub is kept. `bytes` is its whole size, if its sender
    /// told it.
    TooLarge { bytes: Option<u64>, max: usize },
}

impl Refused<'_> {
    /// Every possible result of [`Refused::stage`].
    pub const STAGES: [&'static str; 3] = ["READ", "PRODUCE", "RECEIVE"];

    /// The stage that refused the body, for the header `__connect.errors.stage`.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Unreadable(_) | Self::Undecodable(_) => "READ",
            Self::Unstorable(_) => "PRODUCE",
            Self::TooLarge { .. } => "RECEIVE",
        }
    }

    /// The reason, for the header `__connect.errors.exception.message`; it shows nothing of the payload.
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

    /// Whether the record holds a stub, which cannot be replayed.
    fn is_stub(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }
}

impl Record {
    /// Makes the dead letter of `body`. `feed` is the label and the topic of the event's feed, if known.
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
