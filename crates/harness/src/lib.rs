//! What the tests and the benches share: a real Kafka, a real schema registry, certificates, and the sender's side.
//!
//! Everything here blocks, except [`client`]: from an async test call it on a multi-threaded runtime or through
//! `spawn_blocking`, as the bridge under test needs a thread to go on with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a helper that fails ends the test on the spot"
)]

pub mod attacks;
pub mod avro;
pub mod bare;
pub mod bridge;
pub mod certs;
pub mod client;
pub mod fetch;
pub mod gate;
pub mod kafka;
pub mod kafka_wire;
pub mod namespace;
pub mod pool;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod scratch;
pub mod security;
pub mod sending;
pub mod starting;
pub mod stopwatch;
pub mod tokens;
pub mod topics;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kafka::{Kafka, KafkaOptions};
use registry::Registry;

/// What is waited for is there long before on any machine: what is not there by then hangs. This is no check of time, and takes
/// none where all is well: how soon something must happen is a [`stopwatch`]'s to judge.
pub const HANG: Duration = Duration::from_secs(300);

/// The broker that all tests of this process share. Its topics are common ground: use names of your own.
///
/// Nobody drops a static; the watchdog in [`process`] ends the broker together with this process.
pub fn kafka() -> &'static Kafka {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    KAFKA.get_or_init(|| Kafka::start(KafkaOptions::default()))
}

/// The registry that all tests of this process share. Its subjects are common ground, as the topics are.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::start)
}

/// Waits until `condition` holds, however long that takes; what hangs fails the test with `what`.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < HANG, "{what}: not within {HANG:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
