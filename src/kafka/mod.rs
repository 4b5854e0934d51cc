//! [`Record`](crate::record::Record) -> [`Receipt`]: the only owner of rdkafka.

pub mod admin;
mod client;
pub mod durability;
pub mod embedded;
mod letter;
mod pace;
mod producer;
pub mod reader;
mod redelivery;
mod renew;
mod reports;
mod warm;
mod watch;
mod window;

use std::sync::Arc;

pub use client::{Connection, property_fault};
pub use producer::{Accepted, LaneSpec, Pending, Producers};
pub use warm::Warmed;
pub use window::{Entered, Key, Ticket};

/// The proof that a record is committed under `acks=all`.
///
/// Made in one place only: where librdkafka reports a delivery without error. An answer of 200
/// can be built from nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    topic: Arc<str>,
    partition: i32,
    offset: Option<i64>,
}

impl Receipt {
    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// `None` where the broker knew the record from an earlier attempt ("duplicate sequence") and did not say where it stands.
    pub fn offset(&self) -> Option<i64> {
        self.offset
    }
}

#[cfg(debug_assertions)]
impl Receipt {
    /// No proof of anything.
    fn forged(topic: &Arc<str>) -> Self {
        Self { topic: Arc::clone(topic), partition: 0, offset: None }
    }
}

/// The record was given up, and may or may not stand in its topic: `message.timeout.ms` has passed or the bridge is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record was not committed in time")]
pub struct Undelivered;
