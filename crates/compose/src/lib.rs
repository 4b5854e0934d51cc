//! The engine of AutoCompose: what an agent may want to say next, from what was said, what is typed, and what was learnt.
//!
//! Everything here is a function of its arguments: no runtime, network, clock, file or environment. Texts come redacted.

#![warn(missing_docs)]

mod text;
mod random;
mod response;
mod network;
mod model;
mod feature;
mod conversation;
mod cluster;
mod learn;
mod train;
mod phrase;
mod suggest;
mod edits;
mod dictionary;
mod spell;
mod profanity;

pub use conversation::{Conversation, Role};
pub use dictionary::{Dictionary, DictionaryError};
pub use model::{Model, ModelError};
pub use phrase::{Completion, PHRASE_MIN_CONFIDENCE, complete};
pub use profanity::{Blocklist, profanity};
pub use response::{Facts, List, Lists, Metadata, ROOT, Response};
pub use spell::{Correction, Speller, candidates, spell};
pub use suggest::{Options, SUGGESTIONS_MAX, Suggestion, suggest};
pub use train::{Training, Transcript, Turn, train};
