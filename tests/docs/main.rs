//! The documentation, followed to the letter: each file that a page shows is written and each command run, with the
//! addresses of a Kafka, a registry, a bridge and an S3 of our own in place of the page's.
//!
//! The test runs by name only, as it needs PyPI and Maven Central: `cargo test --test docs`, with a part of a section's
//! name to choose sections.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that fails here has failed"
)]

mod analytics;
mod pages;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::OnceLock,
    time::Duration,
};

use harness as support;
use libtest_mimic::{Arguments, Failed, Trial};
use pages::Section;
use serde_json::Value;

use self::support::{
    bridge::{Bridge, SENDER, Setup},
    certs::ClientOptions,
    client::Http,
    kafka::{Kafka, KafkaOptions},
    process::Child,
    scratch,
};

/// The pages with commands. The first page creates the topics by itself; the last one begins with empty topics.
const PAGES: &[&str] = &["install.md", "consuming.md", "asapp.md", "operations.md", "analytics.md"];

/// The count of `asapp.journey` when the commands run. One event stands there twice, as the bridge was started again
/// between its two posts, with another version of the schema; two other events stand there once.
const COUNTED: &str = "4 records, 3 events";

/// The time of one of these events. The event's field cannot hold all digits, so the exact time stands in `extras`.
const EXACT_TIME: &str = "2024-08-06T13:57:43.053123Z";

/// The longest that a section may take, downloads included.
const LIMIT: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Sections run one at a time, as they share two cores' worth of broker, and their downloads.
    arguments.test_threads = Some(1);
    let sections = PAGES.iter().flat_map(|page| pages::sections(page));
    let trials = sections.map(|section| Trial::test(section.name.clone(), move || follow(&section)));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn follow(section: &Section) -> Result<(), Failed> {
    let dir = scratch::dir("docs");
    let (environment, addresses) = match section.page {
        "install.md" => nothing_yet(),
        "analytics.md" => {
            let [first, _] = analytics::bridges();
            // Flink starts four times: on a small machine each start is faster with the quick compiler alone.
            let quick = ("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
            (vec![(quick.0.to_owned(), quick.1.to_owned())], servers(first.ingress, first.admin))
        }
        _ => (surroundings(&dir), addresses()),
    };
    let ours = |text: &str| addresses.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours));
    for (name, content) in &section.files {
        fs::write(dir.join(name), ours(content))?;
    }
    let mut script = ours(&section.script);
    if section.page == "analytics.md" {
        analytics::prepare(&dir, &ours);
        script = analytics::around(&script);
    }
    fs::write(dir.join("commands.sh"), format!("set -euo pipefail\n{script}"))?;
    // The script is the first process of its namespace, so the processes that it leaves in the background end with it.
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "bash", "commands.sh"]);
    let binaries = Path::new(env!("CARGO_BIN_EXE_causeway")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH")?);
    command.current_dir(&dir).env("PATH", path).envs(environment);
    let mut child = Child::spawn("commands", &command, &dir);
    let status = child.wait_at_most(LIMIT);
    let said = format!("{}{}", child.stdout(), child.stderr());
    if !status.success() {
        return Err(format!("{status} in {}\n{}", dir.display(), child.tail()).into());
    }
    if section.page == "consuming.md" && !counts(&said) {
        return Err(format!("not {COUNTED:?} in {}\n{said}", dir.display()).into());
    }
    if section.name == "consuming.md: Java" && !said.contains(&format!("happened \"{EXACT_TIME}\"")) {
        return Err(format!("extras are not found in {}\n{said}", dir.display()).into());
    }
    if section.page == "analytics.md" && !said.contains(analytics::EQUAL) {
        return Err(format!("nothing is said to be equal in {}\n{said}", dir.display()).into());
    }
    if section.page == "install.md" {
        // Later pages begin with topics of their own.
        TOPICS.iter().for_each(|topic| kafka().delete_topic(topic));
    }
    Ok(())
}

/// Whether the example has read all records; Flink prints the counts in a table.
fn counts(said: &str) -> bool {
    let table = said.lines().any(|line| line.split_whitespace().collect::<String>().ends_with("|4|3|"));
    table || said.contains(COUNTED)
}

type Pairs = Vec<(String, String)>;

const TOPICS: [&str; 5] = ["asapp.activity", "asapp.journey", "asapp.queue", "asapp.other", "asapp.dead-letter"];

/// Three brokers, as the pages demand.
fn kafka() -> &'static Kafka {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    KAFKA.get_or_init(|| Kafka::start(KafkaOptions { brokers: 3, ..KafkaOptions::default() }))
}

/// The variables of a bridge that is yet to start, with free ports, and the addresses of it, of Kafka and of a
/// registry.
fn nothing_yet() -> (Pairs, Pairs) {
    let [ingress, admin] = [(); 2].map(|()| format!("127.0.0.1:{}", scratch::port()));
    let variables = [("CAUSEWAY_INGRESS__LISTEN", &ingress), ("CAUSEWAY_ADMIN__LISTEN", &admin)];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.clone()));
    (variables.into(), servers(ingress.parse().unwrap(), admin.parse().unwrap()))
}

/// Pairs of the page's address and ours. The more special ones come first, as they are replaced in turn.
fn addresses() -> Pairs {
    servers(world().ingress, world().admin)
}

fn servers(ingress: SocketAddr, admin: SocketAddr) -> Pairs {
    let registry = support::registry().url();
    let apis = registry.strip_suffix("/ccompat/v7").unwrap();
    let pairs = [
        ("[\"localhost:9092\"]", format!("[\"{}\"]", kafka().bootstrap().replace(',', "\", \""))),
        ("localhost:9092", kafka().bootstrap()),
        ("http://localhost:8081/apis", apis.to_owned()),
        ("http://localhost:8081", registry.to_owned()),
        ("localhost:8083", format!("localhost:{}", scratch::port())),
        ("http://localhost:9000", s3().to_owned()),
        ("localhost:8443", format!("localhost:{}", ingress.port())),
        ("localhost:9090", admin.to_string()),
    ];
    pairs.map(|(theirs, ours)| (theirs.to_owned(), ours)).into()
}

/// Writes the files that a page names, and returns the variables that make `causeway.toml` that of the running bridge.
fn surroundings(dir: &Path) -> Pairs {
    let setup = &world().setup;
    for file in ["ca.crt", "server.crt", "server.key"] {
        fs::copy(setup.dir.join(file), dir.join(file)).unwrap();
    }
    setup.identity(ClientOptions::dns(SENDER)).write(dir, "sender");
    setup.identity(ClientOptions { cn: Some("a1b2c3".to_owned()), ..ClientOptions::dns(SENDER) }).write(dir, "asapp");
    setup.authority.write(dir, "asapp-ca");
    let command = setup.command(&[]);
    fs::copy(setup.dir.join("causeway.toml"), dir.join("causeway.toml")).unwrap();
    let variables = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A bridge that has written the records which the examples read.
fn world() -> &'static Bridge {
    static WORLD: OnceLock<Bridge> = OnceLock::new();
    WORLD.get_or_init(|| {
        let setup = || {
            let mut setup = Setup::new(kafka(), Some(support::registry())).unset("dead_letter.topic");
            for feed in ["activity", "journey", "queue", "other"] {
                setup = setup.unset(&format!("feeds.{feed}.topic"));
            }
            setup
        };
        let sample =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/events/journey.sample.json"));
        let sample: Value = serde_json::from_str(&sample.unwrap()).unwrap();
        let event = |id: &str| {
            let mut event = sample.clone();
            event["event_id"] = id.into();
            if id == "three" {
                event["meta_data"]["event_time"] = EXACT_TIME.into();
            }
            event.to_string()
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let post = |bridge: &Bridge, ids: &[&str]| {
            for id in ids {
                let answer = runtime.block_on(bridge.sender(Http::One).post("/", &[], event(id))).unwrap();
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        };
        // One content under two names makes Apicurio's two numbers differ, as it counts names and contents apart.
        for subject in ["one-value", "two-value"] {
            support::registry().register(subject, "\"string\"").unwrap();
        }
        let twice = |before: &dyn Fn() -> Setup, after: &dyn Fn() -> Setup| {
            let mut first = before().start();
            post(&first, &["one", "two"]);
            assert!(first.stop().success());
            let second = after().start();
            post(&second, &["two", "three"]);
            second
        };
        let plain = || Setup::new(kafka(), None).set("feeds.journey.topic", "plain.journey");
        assert!(twice(&plain, &plain).stop().success());
        let older = scratch::dir("older").join("journey.avsc");
        fs::write(&older, older_journey()).unwrap();
        let second = twice(&|| setup().set("feeds.journey.schema", older.to_str().unwrap()), &setup);
        // A body that is no event gives the dead-letter topic a record.
        let answer = runtime.block_on(second.sender(Http::One).post("/", &[], "no event")).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        second
    })
}

/// An earlier version of the journey schema: a nested record has a member less.
fn older_journey() -> String {
    let newest = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/journey.avsc");
    let mut schema: Value = serde_json::from_str(&fs::read_to_string(newest).unwrap()).unwrap();
    let data = schema["fields"].as_array_mut().unwrap().iter_mut().find(|field| field["name"] == "data").unwrap();
    let members = data["type"][1]["fields"].as_array_mut().unwrap();
    let all = members.len();
    members.retain(|member| member["name"] != "group_id");
    assert_eq!(members.len(), all - 1);
    schema.to_string()
}

/// A local S3 with a bucket `lake`: moto, from PyPI.
fn s3() -> &'static str {
    static S3: OnceLock<(String, Child)> = OnceLock::new();
    let (url, _) = S3.get_or_init(|| {
        let dir = scratch::dir("s3");
        let venv = moto();
        let port = scratch::port();
        let mut command = Command::new(venv.join("bin/moto_server"));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let mut child = Child::spawn("s3", &command, &dir);
        let url = format!("http://127.0.0.1:{port}");
        let bucket = format!("{url}/lake");
        child.wait_ready(|| ureq::put(&bucket).send_empty().is_ok());
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
    assert!(venv.join("bin/moto_server").exists(), "moto is installed");
    venv
}
