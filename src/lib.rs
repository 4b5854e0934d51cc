//! Causeway takes ASAPP's real-time events over mutual TLS and commits each one to Kafka, as Avro, before it answers
//! 200.
//!
//! # The flow
//!
//! ```text
//!         most events: transcode/direct, by the schema's plan, without a tape
//! bytes ──┬──────────────────────────────────┬──> Record ──kafka──> Receipt ──ingress──> 200
//!         └──event──> Event ──record─────────┘    key, headers,     acks=all   no Receipt,
//!         all others: simd-json tape, identity    Avro value                   no 200
//! ```
//!
//! [`ingress::Ingress`] reads a body and hands it to [`bridge::Bridge::deliver`], which runs that flow and returns a
//! held request. The ingress waits on it until the [`kafka::Receipt`] is there or the sender's timeout is nearly over.
//!
//! # Invariants
//!
//! - A 200 is built from a [`kafka::Receipt`] alone, and a receipt from a delivery report without error, or from a
//!   record that was committed earlier.
//! - Nothing is awaited between a body's last byte and the hand-over to the producer: a client that goes away cannot
//!   take an accepted event with it.
//! - A record lives until its receipt or `message.timeout.ms`, whatever becomes of its request.
//! - A body that is no event, or can never be stored, goes to the dead letters as raw bytes. Nothing is filtered away.
//! - Every queue has a limit; the bridge refuses at once anything over it.
//!
//! The modules stand in the order of the flow; each uses only those above it (`tests/tidy.rs` holds that).

pub mod feed;
pub mod config;
pub mod files;
pub mod http_client;
pub mod quota;
pub mod metrics;
pub mod readiness;
pub mod schema;
pub mod event;
pub mod transcode;
pub mod restore;
pub mod record;
pub mod registry;
pub mod kafka;
pub mod tls;
pub mod http;
pub mod server;
pub mod bridge;
pub mod ingress;
pub mod admin;
pub mod serve;
pub mod cli;
