//! Tells the crate from which commit it is built: `causeway --version`.

use std::{env, path::Path, process::Command};

/// As many digits as name a commit for good.
const DIGITS: usize = 12;

#[allow(clippy::disallowed_methods, reason = "cargo tells a build script by variables")]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_COMMIT");
    let version = env!("CARGO_PKG_VERSION");
    // The image is built without git, and is told.
    let told = env::var("SOURCE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let version = match told.or_else(checked_out) {
        Some(commit) => format!("{version} ({})", commit.chars().take(DIGITS).collect::<String>()),
        None => version.to_owned(),
    };
    // `cargo test` gives it to the bridges that tests start, too, to which a name of CAUSEWAY_ would be a key.
    println!("cargo::rustc-env=VERSION_AND_COMMIT={version}");
}

/// None in a source archive, also in one that was unpacked into a repository of something else.
fn checked_out() -> Option<String> {
    Path::new(".git").exists().then_some(())?;
    // It grows with every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
