//! What each fuzz target does with its input. `tests/it/corpus.rs` does the same with the kept corpora, without a fuzzer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a finding is a panic"
)]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/it/judgement.rs"]
mod judgement;

pub mod config;
pub mod event;
pub mod http;
pub mod round_trip;
