//! The fault bench: every way in which something can fail, and what must hold all the same.
//!
//! `cargo test --test faults` runs the fast cases, `cargo test --release -p causeway --test faults -- --include-slow` all of them;
//! a name, or several with commas between, chooses among them. `--json FILE` writes what was measured. docs/RELIABILITY.md has the table.
//! `--soak HOURS` runs none of them, but load and random faults for so long (`soak.rs`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that fails here has failed"
)]

mod brokers;
mod chaos;
mod checker;
mod event;
mod hostile;
mod load;
mod network;
mod process;
mod rig;
mod sabotage;
mod sender;
mod soak;
mod surroundings;
mod topics;
mod verdict;

use std::{
    fs::File,
    io::Write,
    mem,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Instant,
};

use harness::{self as support, attacks, sending};
use libtest_mimic::{Arguments, Failed, Trial as Test};
use rig::{Case, Trial};

fn cases() -> Vec<Case> {
    // The longest first: the last to end should not run on its own.
    [
        vec![topics::longest()],
        chaos::cases(),
        surroundings::cases(),
        brokers::cases(),
        network::cases(),
        sender::cases(),
        process::cases(),
        topics::cases(),
        hostile::cases(),
        sabotage::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    let include_slow = take_flag(&mut arguments, "--include-slow").is_some();
    if let Some(hours) = take_flag(&mut arguments, "--soak").map(|at| arguments.remove(at)) {
        return soak::run(hours.parse().expect("--soak HOURS"));
    }
    let json = take_flag(&mut arguments, "--json").map(|at| File::create(arguments.remove(at)).expect("--json FILE"));
    let json = Arc::new(Mutex::new(json));
    let late = Arc::new(Mutex::new(Vec::new()));
    let mut arguments = Arguments::from_iter(arguments);
    // Several with commas between, so that they share the clusters.
    let wanted = arguments.filter.take().unwrap_or_default();
    let themselves: [(_, fn()); 3] = [
        ("murmur2_is_kafkas", event::murmur2_is_kafkas),
        ("checker_finds_each_kind", checker::each_kind_is_found),
        ("growth_is_found", soak::growth_is_found),
    ];
    let mut tests: Vec<_> = themselves
        .map(|(name, test)| {
            Test::test(name, move || {
                test();
                Ok(())
            })
        })
        .into();
    tests.extend(sabotage::tests(&cases()));
    for case in cases().into_iter().filter(|case| include_slow || !case.slow) {
        let (json, late) = (Arc::clone(&json), Arc::clone(&late));
        tests.push(Test::test(case.name, move || run(case, &json, &mut |case| late.lock().unwrap().push(case))));
    }
    tests.retain(|test| wanted.split(',').any(|part| test.name().contains(part)));
    let conclusion = libtest_mimic::run(&arguments, tests);
    let late = mem::take(&mut *late.lock().unwrap());
    if conclusion.has_failed() || late.is_empty() { conclusion.exit_code() } else { once_more(arguments, late, &json) }
}

/// More than these are not a machine's bad moment.
const LATE_MAX: usize = 2;

/// Cases that failed for nothing but time have one more run, each alone. A failure of safety never has.
fn once_more(arguments: Arguments, late: Vec<Case>, json: &Arc<Mutex<Option<File>>>) -> ExitCode {
    let names = late.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
    if late.len() > LATE_MAX {
        eprintln!("late, and more than {LATE_MAX} cases may not be: {names}");
        return ExitCode::FAILURE;
    }
    let tests = late.into_iter().map(|case| {
        let json = Arc::clone(json);
        Test::test(case.name, move || {
            let mut again = false;
            run(case, &json, &mut |_| again = true)?;
            if again { Err("late again, alone".into()) } else { Ok(()) }
        })
    });
    let tests = tests.collect();
    let conclusion = libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, tests);
    eprintln!("run once more alone, as they were late: {names}");
    conclusion.exit_code()
}

/// Takes the flag out and tells where its value would be.
fn take_flag(arguments: &mut Vec<String>, flag: &str) -> Option<usize> {
    let at = arguments.iter().position(|it| it == flag)?;
    arguments.remove(at);
    Some(at)
}

/// Runs a case. One that failed for nothing but time is `late`, and not failed yet.
fn run(case: Case, json: &Mutex<Option<File>>, late: &mut dyn FnMut(Case)) -> Result<(), Failed> {
    let started = Instant::now();
    match (case.body)(&Trial::default()) {
        Ok(summary) => {
            eprintln!("{} ({} s): {summary}", case.name, started.elapsed().as_secs());
            if let Some(file) = json.lock().unwrap().as_mut() {
                writeln!(file, "{}", summary.json(case.name)).unwrap();
            }
            Ok(())
        }
        Err(violations) if verdict::only_late(&violations) => {
            eprintln!("{} ({} s) is late:\n{}", case.name, started.elapsed().as_secs(), verdict::describe(&violations));
            late(case);
            Ok(())
        }
        Err(violations) => Err(verdict::describe(&violations).into()),
    }
}
