//! The documentation, followed to the letter: each file that a page shows is written and each command run, with the
//! addresses of a Kafka, a registry, a bridge and an S3 of our own in place of the page's.
//!
//! By name only, as it needs PyPI and Maven Central: `cargo test --test docs`, with a part of a section's name to choose.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that fails here has failed"
)]

mod pages;
#[path = "../it/support/mod.rs"]
mod support;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::OnceLock,
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use pages::Section;

use self::support::{
    bridge::{Bridge, Setup},
    client::Http,
    process::Child,
    scratch, wait_until,
};

/// The pages with commands.
const PAGES: &[&str] = &["consuming.md"];

/// What stands in `asapp.journey` when the commands run: an event twice, as a bridge stores it that was started again
/// between the two, and two others.
const COUNTED: &str = "4 records, 3 events";

/// The longest that a section may take, downloads included.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share two cores' worth of broker, and their downloads.
    arguments.test_threads = Some(1);
    let sections = PAGES.iter().flat_map(|page| pages::sections(page));
    let trials = sections.map(|section| Trial::test(section.name.clone(), move || follow(&section)));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn follow(section: &Section) -> Result<(), Failed> {
    let dir = scratch::dir("docs");
    let ours = |text: &str| addresses(text);
    for (name, content) in &section.files {
        fs::write(dir.join(name), ours(content))?;
    }
    let script = format!("set -euo pipefail\n{}", ours(&section.script));
    fs::write(dir.join("commands.sh"), script)?;
    // The first of its process namespace: what it leaves in the background ends with it.
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "bash"]);
    let binaries = Path::new(env!("CARGO_BIN_EXE_causeway")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH")?);
    command.arg("commands.sh").current_dir(&dir).env("PATH", path);
    let mut child = Child::spawn("commands", &command, &dir);
    let status = child.wait(LIMIT);
    let said = format!("{}{}", child.stdout(), child.stderr());
    if !status.success() {
        return Err(format!("{status} in {}\n{}", dir.display(), child.tail()).into());
    }
    if section.name.starts_with("consuming.md") && !counts(&said) {
        return Err(format!("not {COUNTED:?} in {}\n{said}", dir.display()).into());
    }
    Ok(())
}

/// Whether the example has read what there is; Flink says it in a table.
fn counts(said: &str) -> bool {
    let table = said.lines().any(|line| line.split_whitespace().collect::<String>().ends_with("|4|3|"));
    table || said.contains(COUNTED)
}

/// The text with our addresses in place of the page's.
fn addresses(text: &str) -> String {
    let registry = support::registry().url();
    let apis = registry.strip_suffix("/ccompat/v7").unwrap();
    world();
    let mut text = text
        .replace("localhost:8083", &format!("localhost:{}", scratch::port()))
        .replace("localhost:9092", &support::kafka().bootstrap())
        .replace("http://localhost:8081/apis", apis)
        .replace("http://localhost:8081", registry);
    if text.contains("http://localhost:9000") {
        text = text.replace("http://localhost:9000", s3());
    }
    text
}

/// A bridge that has written what the examples read.
fn world() -> &'static Bridge {
    static WORLD: OnceLock<Bridge> = OnceLock::new();
    WORLD.get_or_init(|| {
        let setup = || {
            let mut setup = Setup::new(support::kafka(), Some(support::registry())).unset("dead_letter.topic");
            for feed in ["activity", "journey", "queue", "other"] {
                setup = setup.unset(&format!("feeds.{feed}.topic"));
            }
            setup
        };
        let sample =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/events/journey.sample.json"));
        let sample: serde_json::Value = serde_json::from_str(&sample.unwrap()).unwrap();
        let event = |id: &str| {
            let mut event = sample.clone();
            event["event_id"] = id.into();
            event.to_string()
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let post = |bridge: &Bridge, ids: &[&str]| {
            for id in ids {
                let answer = runtime.block_on(bridge.sender(Http::One).post("/", &[], event(id))).unwrap();
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        };
        let mut first = setup().start();
        post(&first, &["one", "two"]);
        assert!(first.stop().success());
        let second = setup().start();
        post(&second, &["two", "three"]);
        second
    })
}

/// An S3 with a bucket `lake`: moto's, from PyPI.
fn s3() -> &'static str {
    static S3: OnceLock<(String, Child)> = OnceLock::new();
    let (url, _) = S3.get_or_init(|| {
        let dir = scratch::dir("s3");
        let venv = moto();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(venv.join("bin/moto_server"));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let mut child = Child::spawn("s3", &command, &dir);
        let url = format!("http://127.0.0.1:{port}");
        let bucket = format!("{url}/lake");
        child.wait_ready(support::SERVER_LIMIT, || ureq::put(&bucket).send_empty().is_ok());
        (url, child)
    });
    url
}

fn moto() -> PathBuf {
    let venv = scratch::harness().join("moto-5.1.16");
    if !venv.join("bin/moto_server").exists() {
        let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "moto[server,s3]==5.1.16"]));
    }
    wait_until("moto is installed", Duration::from_secs(1), || venv.join("bin/moto_server").exists());
    venv
}
