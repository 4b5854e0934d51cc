//! Everything that needs the real thing: one binary, one Kafka and one registry for all that can share them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails here has failed"
)]

mod admin;
mod answers;
mod canaries;
mod commands;
mod corpus;
mod dev;
mod doors;
mod events;
mod feeds;
mod hostile;
mod oauth;
mod outage;
mod overload;
mod reach;
mod reload;
mod replaying;
mod retries;
mod schemas;
mod security;
mod senders;
mod stopping;
mod tailing;
mod tls;
mod translation;
mod watching;

use harness::{self as support, attacks, sending};
