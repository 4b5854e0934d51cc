//! What the fuzzers found worth keeping, put through the same targets without a fuzzer.

use std::{fs, path::Path};

use judgement::{config, event, http, round_trip};

fn replay(folder: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 50, "{}: {} files", folder.display(), files.len());
    for file in files {
        // The harness prints it when the target fails.
        println!("{}", file.display());
        target(&fs::read(&file).unwrap());
    }
}

#[test]
fn event() {
    replay("fuzz/corpus/event", event::run);
    replay("tests/data/cases", event::run);
}

#[test]
fn round_trip() {
    replay("fuzz/corpus/round_trip", round_trip::run);
    replay("tests/data/cases", round_trip::run);
}

#[test]
fn config() {
    replay("fuzz/corpus/config", config::run);
}

#[test]
fn http() {
    replay("fuzz/corpus/http", http::run);
    let met = http::answered();
    for code in [
        "no_commit_in_time",
        "overload",
        "body_too_large",
        "body_too_slow",
        "body_broken",
        "framing_refused",
        "certificate_not_allowed",
        "method_not_allowed",
        "not_found",
    ] {
        assert!(met.iter().any(|known| known == code), "no input of the corpus is answered {code}: {met:?}");
    }
}
