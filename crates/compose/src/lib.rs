//! The engine of AutoCompose: an agent's likely next message, from the conversation, the typed text, and a model that
//! was learnt from earlier conversations.
//!
//! Every call is a function of its arguments and uses no runtime, network, clock, file or environment. Texts come
//! redacted.

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
