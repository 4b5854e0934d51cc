//! The part of an API that does not depend on what the API is for: the rules for a request's head, its body within limits, and
//! its answer.

mod answer;
pub mod body;
pub mod head;
pub mod host;

pub use answer::{Answer, Content, Hint, Read, Refusal, RefusalStatus, Write};
