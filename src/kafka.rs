//! [`Record`](crate::record::Record) -> [`Receipt`]. This module alone uses rdkafka.
//!
//! Each module uses only those above it in this list (`tests/tidy.rs` holds that). The order: needs of every client of
//! Kafka; surveys of a cluster and reading from it; a lane's records; the lane; the threads that serve all lanes; and
//! on top of them [`Producers`].

mod patience;
mod thread;
mod log;
pub mod embedded;
mod properties;
mod token;
mod native;
mod token_server;
mod tokens;
mod client;
mod keeper;
mod survey;
mod asker;
pub mod admin;
pub mod reach;
pub mod durability;
pub mod reader;
pub mod follower;
pub mod progress;
mod ids;
mod pending;
mod window;
mod health;
mod counts;
mod parcel;
mod outgoing;
mod reports;
mod gate;
mod handle;
mod lane;
mod lanes;
mod pace;
mod watch;
mod stall;
mod redelivery;
mod renew;
mod hand_round;
mod producer;
mod warm;
#[cfg(feature = "sabotage")]
pub mod sabotage;

use std::time::{SystemTime, UNIX_EPOCH};

pub use client::Connection;
pub use ids::{LaneId, TopicId};
pub use lane::{LaneSpec, WhenRefused};
pub use parcel::Accepted;
pub use pending::Pending;
pub use producer::{LaneSpecs, Producers};
pub use properties::property_faults;
pub use thread::end;
pub use token::{NoToken, Token};
pub use warm::Warmed;
pub use window::{Entered, Key, Ticket};

/// The error type of the client library.
pub use rdkafka::error::KafkaError as KafkaFault;

/// The present time as a Kafka timestamp: milliseconds since 1970.
pub fn millis_now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// Prints a timestamp (milliseconds since 1970) for logs and `check`: RFC 3339, in whole seconds.
pub fn told_time(millis: i64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(millis / 1000).ok();
    let told = time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    told.unwrap_or_else(|| "the end of time".to_owned())
}

/// The proof that a record is committed under `acks=all`.
///
/// It is made where librdkafka reports a delivery without error, and again from a remembered delivery or from a record
/// read back from the topic. An answer of 200 can be built from nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    topic: TopicId,
    partition: i32,
    offset: Option<i64>,
}

impl Receipt {
    /// The topic's name.
    pub fn topic(&self) -> &'static str {
        self.topic.name()
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The offset; `None` where the broker knew the record from an earlier attempt ("duplicate sequence") and did not
    /// say at which offset it stands.
    pub fn offset(&self) -> Option<i64> {
        self.offset
    }
}

/// Why there is no receipt. The record may or may not be in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// `message.timeout.ms` has passed.
    #[error("the record was not committed in time")]
    GivenUp,
    /// The topic can never store the record, and the lane sends no dead letter instead ([`WhenRefused::Refuse`]).
    #[error("its topic can never store the record")]
    Refused,
    /// The instance stops waiting for receipts ([`Producers::dismiss`]).
    #[error("this instance is stopping")]
    Stopping,
}
