//! `causeway dev` and the commands beside it, as a person at a terminal uses them.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rcgen::SerialNumber;
use serde_json::{Value as Json, json};

use crate::{
    support::{
        self,
        avro::{datum, json as avro_json, schema_id},
        bridge::SENDER,
        certs::{Authority, ClientOptions, Identity},
        client::{Http, Sender},
        process::{Child, Signal},
        scratch,
        stopwatch::Stopwatch,
        wait_until,
    },
    translation::{same, without_nulls},
};

fn causeway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.args(arguments);
    command
}

/// A running `causeway dev`.
struct Dev {
    dir: PathBuf,
    child: Child,
    started: Duration,
    says: Json,
}

impl Dev {
    fn start(dir: &Path, further: &[&str]) -> Self {
        Self::start_with(dir, further, &[])
    }

    fn start_with(dir: &Path, further: &[&str], environment: &[(&str, &str)]) -> Self {
        let ready = dir.join("ready.json");
        let _ = fs::remove_file(&ready);
        let mut command =
            causeway(&["dev", "--port", "0", "--admin-port", "0", "--ready-file", ready.to_str().unwrap()]);
        // As a person gives it. The commands beside it run in another folder.
        command.arg("--dir").arg(dir.file_name().unwrap()).args(further).current_dir(dir.parent().unwrap());
        command.envs(environment.iter().copied());
        let started = Instant::now();
        let mut child = Child::spawn("dev", &command, dir);
        let mut says = Json::Null;
        child.wait_ready(|| {
            says = fs::read(&ready).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
            !says.is_null()
        });
        Self { dir: dir.to_owned(), started: started.elapsed(), child, says }
    }

    fn sender(&self) -> Sender {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap();
        let identity = Identity {
            certificate: read("sender.crt"),
            private_key: read("sender.key"),
            serial: SerialNumber::from(vec![1]),
        };
        let port =
            self.says["url"].as_str().unwrap().trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
        Sender::new(SocketAddr::from(([127, 0, 0, 1], port)), &read("ca.crt"), Some(&identity), Http::One)
    }

    async fn post(&self, body: &str) -> Json {
        let answer = self.sender().post("/", &[], body.to_owned()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// The registry's side of the admin port.
    fn get(&self, path: &str) -> (u16, Json) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent.get(format!("{}{path}", self.says["admin"].as_str().unwrap())).call().unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&body).unwrap_or(Json::Null))
    }

    /// `causeway tail <arguments>` beside it: the lines that it prints until it ends.
    fn tail(&self, arguments: &[&str]) -> Vec<Json> {
        self.tail_with(arguments, &[])
    }

    fn tail_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Vec<Json> {
        let mut command = causeway(&["tail"]);
        command.envs(environment.iter().copied());
        let Output { status, stdout, stderr } = command.args(arguments).arg("--dir").arg(&self.dir).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
        String::from_utf8(stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn stop(&mut self, signal: Signal) {
        self.child.signal(signal);
        let status = self.child.wait();
        assert_eq!(status.code(), Some(0), "{}", self.child.tail());
        assert!(!self.dir.join("dev.json").exists(), "dev.json says that dev runs");
    }
}

fn event(name: &str, event_id: &str, event_type: &str, members: Json) -> String {
    let mut event = json!({"api_version": "v1.3.0", "name": name, "event_id": event_id, "event_type": event_type});
    event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    event.to_string()
}

fn equal(found: &Json, posted: &str) -> bool {
    same(&without_nulls(found), &without_nulls(&serde_json::from_str(posted).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_is_ready_at_once_and_its_curl_line_posts_a_sample() {
    let watch = Stopwatch::start();
    let mut dev = Dev::start(&scratch::dir("dev"), &[]);
    println!("dev was ready after {:?}", dev.started);
    // A build without optimization, beside other tests.
    watch.assert_allows(dev.started, Duration::from_secs(4));

    let printed = dev.child.stdout();
    let curl = printed.lines().map(str::trim).find(|line| line.starts_with("curl ")).expect("a curl line");
    let words: Vec<&str> = curl.split(' ').collect();
    let after = |flag: &str| *words.iter().skip_while(|word| **word != flag).nth(1).expect(flag);
    for file in [after("--cacert"), after("--cert"), after("--key"), after("--data-binary").trim_start_matches('@')] {
        assert!(dev.dir.parent().unwrap().join(file).is_file(), "{file} of {curl}");
    }
    assert!(words.contains(&dev.says["url"].as_str().unwrap()), "{curl}");
    for hint in ["causeway tail --beginning --dir", "Ctrl-C"] {
        assert!(printed.contains(hint), "{hint}: {printed}");
    }

    // What curl would post, right after the line is there.
    let sample = fs::read_to_string(dev.dir.join("journey.json")).unwrap();
    let receipt = dev.post(&sample).await;
    assert_eq!(receipt["topic"], "asapp.journey");
    let sample: Json = serde_json::from_str(&sample).unwrap();
    let place = format!("asapp.journey/{}@{}", receipt["partition"], receipt["offset"]);
    wait_until("the event's line is printed", || {
        let printed = dev.child.stdout();
        printed.lines().any(|line| {
            line.contains(&place)
                && ["event_id", "event_type"].iter().all(|it| line.contains(sample[it].as_str().unwrap()))
        })
    });
    dev.post("\u{1b}[31mno event").await;
    wait_until("the dead letter's line is printed", || dev.child.stdout().contains("dead letter"));
    assert!(!dev.child.stdout().contains('\u{1b}'), "no colours where there is no terminal");
    dev.stop(Signal::Terminate);
    assert_eq!(dev.child.stderr(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_prints_every_event_also_one_that_comes_at_once() {
    let mut dev = Dev::start(&scratch::dir("dev"), &[]);
    let sender = dev.sender();
    for number in 0..50 {
        let body = event("com.asapp.event.journey", &format!("event-{number}."), "T", json!({}));
        assert_eq!(sender.post("/", &[], body).await.unwrap().status, 200);
    }
    // Events without a key go to any partition, and partitions are read in no order: wait for each.
    wait_until("every event's line is printed", || {
        let printed = dev.child.stdout();
        (0..50).all(|number| printed.contains(&format!("event-{number}.")))
    });
    dev.stop(Signal::Interrupt);
}

/// What a person has exported for another bridge.
const ANOTHER: [(&str, &str); 4] = [
    ("CAUSEWAY_KAFKA__BROKERS", "127.0.0.1:1"),
    ("CAUSEWAY_INGRESS__LISTEN", "192.0.2.1:8443"),
    ("CAUSEWAY_ADMIN__LISTEN", "192.0.2.1:9090"),
    ("CAUSEWAY_REGISTRY__URL", "http://127.0.0.1:1"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_leads_neither_dev_nor_the_commands_beside_it_to_another_cluster() {
    let mut dev = Dev::start_with(&scratch::dir("dev"), &[], &ANOTHER);
    let body = event("com.asapp.event.journey", "1", "T", json!({}));
    dev.post(&body).await;
    let lines = dev.tail_with(&["--beginning", "--no-follow"], &ANOTHER);
    assert!(lines.len() == 1 && equal(&lines[0]["event"], &body), "{lines:?}");
    wait_until("the event's line is printed", || dev.child.stdout().contains("asapp.journey/"));
    dev.stop(Signal::Terminate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_goes_on_when_nobody_reads_what_it_prints() {
    let dir = scratch::dir("dev");
    let ready = dir.join("ready.json");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" >/dev/full", "sh", env!("CARGO_BIN_EXE_causeway")]);
    command.args(["dev", "--port", "0", "--admin-port", "0", "--dir"]).arg(&dir).arg("--ready-file").arg(&ready);
    let mut child = Child::spawn("dev", &command, &dir);
    let mut says = Json::Null;
    child.wait_ready(|| {
        says = fs::read(&ready).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        !says.is_null()
    });
    let mut dev = Dev { dir, child, started: Duration::ZERO, says };
    for number in 0..2 {
        dev.post(&event("com.asapp.event.journey", &format!("{number}"), "T", json!({}))).await;
        assert_eq!(dev.tail(&["--beginning", "--no-follow"]).len(), number + 1);
    }
    dev.stop(Signal::Terminate);
    assert_eq!(dev.child.stderr(), "");
}

/// The command, of whose standard output nobody reads anything: its exit code and standard error.
fn unread(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn that_nobody_reads_the_output_is_no_failure() {
    let mut dev = Dev::start(&scratch::dir("dev"), &["--quiet"]);
    for arguments in [&["send", "--generate", "--count", "1", "--rate", "100"][..], &["schemas"], &["check"]] {
        let done = unread(causeway(arguments).arg("--dir").arg(&dev.dir));
        assert_eq!(done, (Some(0), String::new()), "{arguments:?}");
    }
    for arguments in [&["completions", "bash"][..], &["man"]] {
        assert_eq!(unread(&mut causeway(arguments)), (Some(0), String::new()), "{arguments:?}");
    }
    dev.stop(Signal::Terminate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_cannot_be_written_is_a_failure() {
    let mut dev = Dev::start(&scratch::dir("dev"), &["--quiet"]);
    dev.post(&event("com.asapp.event.journey", "e", "T", json!({}))).await;
    for arguments in [&["tail", "--beginning", "--no-follow"][..], &["check"], &["schemas"], &["topics"], &["replay"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let Output { status, stderr, .. } =
            causeway(arguments).arg("--dir").arg(&dev.dir).stdout(full).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(1) && said.starts_with("error: standard output: "), "{arguments:?}: {said}");
    }
    dev.stop(Signal::Terminate);
}

/// One and more of every feed, with members that test the translation back, and the pointers of those that `extras` has.
fn events() -> [(String, Json); 5] {
    [
        (
            event(
                "com.asapp.event.activity",
                "a-1",
                "agent.rated",
                json!({"data": {"rep_id": "r-1"}, "meta_data": {"issue_id": "i-1", "event_time": "2025-03-04T09:45:00+01:00"}}),
            ),
            json!(["/meta_data/event_time"]),
        ),
        (
            event(
                "com.asapp.event.activity",
                "a-2",
                "agent.left",
                json!({"data": {"agent_id": "r-1"}, "more": {"a": [1, 2.5, "x"]}, "and/more": 1}),
            ),
            json!(["/and~1more", "/data/agent_id", "/more"]),
        ),
        (
            event(
                "com.asapp.event.journey",
                "j-1",
                "agent.rated",
                json!({"meta_data": {"issue_id": "i-1"}, "data": 5}),
            ),
            json!(["/data"]),
        ),
        (
            event("com.asapp.event.queue", "q-1", "T", json!({"data": {"queue_id": 18_446_744_073_709_551_615_u64}})),
            json!(["/data/queue_id"]),
        ),
        (
            event(
                "unheard.of",
                "o-1",
                "T",
                json!({"meta_data": {"issue_id": "i-2"}, "data": {"rep_id": "r-2", "deep": [[{"x": 1e300}]]}}),
            ),
            json!([]),
        ),
    ]
}

/// `tail`'s arguments, and the `event_id`s that are left of [`events`] and one dead letter.
const FILTERS: &[(&[&str], &str)] = &[
    (&["--feed", "activity"], "a-1 a-2"),
    (&["--feed", "queue", "--feed", "other"], "o-1 q-1"),
    (&["--type", "agent.rated"], "a-1 j-1"),
    (&["--issue", "i-1"], "a-1 j-1"),
    (&["--agent", "r-1"], "a-1 a-2"),
    (&["--agent", "r-2"], "o-1"),
    (&["--feed", "activity", "--type", "agent.rated", "--issue", "i-1", "--agent", "r-1"], "a-1"),
    (&["--issue", "i-9"], ""),
    (&["--feed", "journey", "--count", "1"], "j-1"),
    (&["--count", "0"], ""),
    (&["--dead-letters"], "dead"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_prints_what_was_posted_and_nothing_that_was_not_asked_for() {
    let mut dev = Dev::start(&scratch::dir("dev"), &["--quiet"]);
    // One that follows from the beginning, before there is anything.
    let mut follows = causeway(&["tail", "--beginning", "--count", "6"]);
    follows.arg("--dir").arg(&dev.dir);
    let mut follows = Child::spawn("tail", &follows, &dev.dir);

    let posted = events();
    let mut receipts = Vec::new();
    for (body, _) in &posted {
        receipts.push(dev.post(body).await);
    }
    dev.post("no event").await;

    let all = dev.tail(&["--beginning", "--no-follow"]);
    assert_eq!(all.len(), 6);
    for ((body, extras), receipt) in posted.iter().zip(&receipts) {
        let line = all.iter().find(|line| {
            line["topic"] == receipt["topic"]
                && line["partition"] == receipt["partition"]
                && line["offset"] == receipt["offset"]
        });
        let line = line.unwrap_or_else(|| panic!("{receipt} in {all:?}"));
        assert!(equal(&line["event"], body), "{}\nposted {body}", line["event"]);
        assert_eq!(line["extras"], *extras, "{body}");
        assert_eq!(line["headers"]["ce_id"], line["event"]["event_id"]);
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    let ids = |arguments: &[&str]| {
        let mut ids: Vec<String> = dev
            .tail(&[arguments, &["--beginning", "--no-follow"]].concat())
            .iter()
            .map(|line| line["event"]["event_id"].as_str().unwrap_or("dead").to_owned())
            .collect();
        ids.sort();
        ids.join(" ")
    };
    for (arguments, expected) in FILTERS {
        assert_eq!(ids(arguments), *expected, "{arguments:?}");
    }
    let letters = dev.tail(&["--dead-letters", "--no-follow"]);
    assert_eq!(
        (letters.len(), &letters[0]["body"], &letters[0]["feed"]),
        (1, &json!("no event"), &json!("dead-letter"))
    );
    assert_eq!(letters[0]["headers"]["__connect.errors.stage"], "READ");
    assert_eq!(dev.tail(&["--since", "1h", "--no-follow"]).len(), 6);
    assert_eq!(dev.tail(&["--count", "4", "--beginning"]).len(), 4);
    // Whole seconds ago, so that all of them are older.
    let newest = all.iter().map(|line| line["timestamp"].as_str().unwrap().to_owned()).max().unwrap();
    let newest = time::OffsetDateTime::parse(&newest, &time::format_description::well_known::Rfc3339).unwrap();
    wait_until("a second and more has passed", || {
        (time::OffsetDateTime::now_utc() - newest).whole_milliseconds() > 1_100
    });
    assert_eq!(dev.tail(&["--since", "1s", "--no-follow"]), Vec::<Json>::new());

    assert!(follows.wait().success());
    assert_eq!(follows.stdout().lines().count(), 6, "{}", follows.stdout());
    dev.stop(Signal::Terminate);
    let Output { status, stderr, .. } = causeway(&["tail", "--dir"]).arg(&dev.dir).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && stderr.contains("causeway dev"), "nothing runs there any more: {stderr}");
}

#[test]
fn dev_keeps_its_certificates_until_they_expire() {
    let dir = scratch::dir("dev");
    let files = ["ca.crt", "server.crt", "server.key", "sender.crt", "sender.key"];
    let read = || files.map(|file| fs::read_to_string(dir.join(file)).unwrap());
    Dev::start(&dir, &["--quiet"]).stop(Signal::Terminate);
    let first = read();
    Dev::start(&dir, &["--quiet"]).stop(Signal::Interrupt);
    assert!(first == read(), "the second start took others");

    let expired = Authority::new("Anyone").client(ClientOptions::dns(SENDER).expired());
    fs::write(dir.join("sender.crt"), &expired.certificate).unwrap();
    Dev::start(&dir, &["--quiet"]).stop(Signal::Terminate);
    let second = read();
    assert!(second[3] != expired.certificate && second[3] != first[3], "an expired certificate is made anew");
    assert!(second[0] != first[0], "with its CA, whose key nobody keeps");

    fs::remove_file(dir.join("server.key")).unwrap();
    Dev::start(&dir, &["--quiet"]).stop(Signal::Terminate);
    assert!(read()[2] != second[2]);
    for key in ["server.key", "sender.key"] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(dir.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, flag) in
        [(["--port", &port, "--admin-port", "0"], "--port"), (["--port", "0", "--admin-port", &port], "--admin-port")]
    {
        let dir = scratch::dir("dev");
        let Output { status, stderr, .. } = causeway(&["dev", "--dir"]).arg(&dir).args(arguments).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&port) && stderr.contains(&format!("{flag} ")), "{flag}: {stderr}");
        assert!(!dir.join("dev.json").exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_dev_leaves_the_first_alone() {
    let mut dev = Dev::start(&scratch::dir("dev"), &["--quiet"]);
    let port = dev.says["url"].as_str().unwrap().trim_end_matches('/').rsplit(':').next().unwrap().to_owned();
    let elsewhere = scratch::dir("dev");
    for (dir, port, why) in [(&dev.dir, "0", "another `causeway dev` runs with "), (&elsewhere, &*port, "listen")] {
        let second = causeway(&["dev", "--admin-port", "0", "--port", port, "--dir"]).arg(dir).output().unwrap();
        let said = String::from_utf8(second.stderr).unwrap();
        assert!(second.status.code() == Some(1) && said.contains(why), "{:?}: {said}", second.status);
    }
    let body = event("com.asapp.event.journey", "1", "T", json!({}));
    dev.post(&body).await;
    let lines = dev.tail(&["--beginning", "--no-follow"]);
    assert!(lines.len() == 1 && equal(&lines[0]["event"], &body), "{lines:?}");
    dev.stop(Signal::Terminate);
}

/// As a full disk leaves it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_was_half_written_is_written_anew() {
    let dir = scratch::dir("dev");
    for half in [|dir: &Path| fs::write(dir.join("server.key"), ""), |dir: &Path| fs::remove_file(dir.join("ca.crt"))] {
        let mut dev = Dev::start(&dir, &["--quiet"]);
        dev.post(&event("com.asapp.event.journey", "1", "T", json!({}))).await;
        dev.stop(Signal::Terminate);
        half(&dir).unwrap();
    }
    let mut dev = Dev::start(&dir, &["--quiet"]);
    dev.post(&event("com.asapp.event.journey", "1", "T", json!({}))).await;
    dev.stop(Signal::Terminate);
}

#[test]
fn a_dev_that_cannot_tell_that_it_is_ready_fails() {
    let dir = scratch::dir("dev");
    let nowhere = dir.join("nowhere").join("ready.json");
    let mut command = causeway(&["dev", "--quiet", "--port", "0", "--admin-port", "0", "--dir"]);
    let output = command.arg(&dir).arg("--ready-file").arg(&nowhere).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("ready.json"), "{:?}: {said}", output.status);
}

/// It had no time to remove its file.
#[test]
fn a_dev_that_was_killed_is_not_taken_for_one_that_runs() {
    let folder = scratch::dir("dev");
    let dir = folder.join(".causeway");
    fs::create_dir(&dir).unwrap();
    let mut dev = Dev::start(&dir, &["--quiet"]);
    dev.child.signal(Signal::Kill);
    dev.child.wait();
    assert!(dir.join("dev.json").exists());
    let says = |arguments: &[&str]| {
        let output = causeway(arguments).current_dir(&folder).env_remove("CAUSEWAY_CONFIG").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let gone = "no `causeway dev` runs here (.causeway/dev.json was left by one that is gone)";
    for (arguments, remedy) in
        [(&["tail"][..], "give --config FILE"), (&["send", "--generate", "--count", "1"], "give --url")]
    {
        let (code, error) = says(arguments);
        assert!(code == Some(3) && error.contains(gone) && error.contains(remedy), "{code:?} {error}");
    }
    fs::write(folder.join("causeway.toml"), "[kafka]\nbrokers = 5\n").unwrap();
    let (code, error) = says(&["topics"]);
    assert!(code == Some(3) && error.contains("causeway.toml:2: "), "{code:?} {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devs_admin_port_is_a_registry_that_any_client_can_decode_with() {
    let mut dev = Dev::start(&scratch::dir("dev"), &["--quiet"]);
    let (status, subjects) = dev.get("/subjects");
    assert_eq!(status, 200);
    let mut subjects: Vec<&str> = subjects.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["asapp.activity-value", "asapp.journey-value", "asapp.other-value", "asapp.queue-value"]);
    for subject in subjects {
        assert_eq!(dev.get(&format!("/subjects/{subject}/versions")), (200, json!([1])));
        let (status, latest) = dev.get(&format!("/subjects/{subject}/versions/latest"));
        assert_eq!((status, &latest["subject"], &latest["version"]), (200, &json!(subject), &json!(1)));
        assert_eq!(dev.get(&format!("/subjects/{subject}/versions/1")), (200, latest.clone()));
        let (status, by_id) = dev.get(&format!("/schemas/ids/{}", latest["id"]));
        assert_eq!((status, &by_id["schema"]), (200, &latest["schema"]), "{subject}");
        apache_avro::Schema::parse_str(by_id["schema"].as_str().unwrap()).unwrap();
        let versions = json!([{"subject": subject, "version": 1}]);
        assert_eq!(dev.get(&format!("/schemas/ids/{}/versions", latest["id"])), (200, versions));
    }
    // Confluent's codes, without which a client takes a server for no registry.
    for (unknown, code) in [
        ("/subjects/x-value/versions", 40401),
        ("/subjects/x-value/versions/latest", 40401),
        ("/schemas/ids/99", 40403),
        ("/schemas/ids/x", 40403),
        ("/config/asapp.queue-value", 40408),
        ("/subjects/asapp.queue-value/versions/2", 40401),
        ("/nothing", 404),
    ] {
        let (status, error) = dev.get(unknown);
        assert_eq!((status, &error["error_code"]), (404, &json!(code)), "{unknown}");
    }
    assert_eq!(dev.get("/readyz").0, 200);
    dev.stop(Signal::Terminate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_with_brokers_of_its_own_creates_the_topics_there() {
    let brokers = support::kafka().bootstrap();
    let mut dev = Dev::start(&scratch::dir("dev"), &["--brokers", &brokers]);
    assert_eq!((&dev.says["brokers"], &dev.says["embedded"]), (&json!(brokers), &json!(false)));
    let body = fs::read_to_string(dev.dir.join("queue.json")).unwrap();
    let receipt = dev.post(&body).await;
    for topic in ["asapp.activity", "asapp.journey", "asapp.queue", "asapp.other", "asapp.dead-letter"] {
        assert_eq!(support::kafka().end_offsets(topic).len(), 3, "{topic}");
    }
    let record = support::kafka().read("asapp.queue").remove(0);
    assert_eq!(
        (json!(record.partition), json!(record.offset)),
        (receipt["partition"].clone(), receipt["offset"].clone())
    );
    // As a registry-aware client reads it: the record names its schema, dev's admin port has it.
    let wire = record.value.unwrap();
    let (_, schema) = dev.get(&format!("/schemas/ids/{}", schema_id(&wire)));
    let schema = apache_avro::Schema::parse_str(schema["schema"].as_str().unwrap()).unwrap();
    let value = avro_json(&datum(&schema, &wire[5..]));
    assert_eq!(value["event_id"], serde_json::from_str::<Json>(&body).unwrap()["event_id"]);
    let lines = dev.tail(&["--beginning", "--no-follow", "--feed", "queue"]);
    assert!(lines.len() == 1 && equal(&lines[0]["event"], &body), "{lines:?}");
    // A real broker looks up offsets by time.
    assert_eq!(dev.tail(&["--since", "1d", "--no-follow", "--feed", "queue"]).len(), 1);
    wait_until("the event's line is printed", || dev.child.stdout().contains("asapp.queue/"));
    dev.stop(Signal::Terminate);
}

fn printed(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = causeway(arguments).output().unwrap();
    assert!(status.success() && stderr.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn every_command_explains_itself_with_examples() {
    let help = printed(&["--help"]);
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.trim_start_matches("  ").split(' ').next().filter(|word| !word.is_empty()))
        .collect();
    for command in ["dev", "serve", "tail", "completions", "man"] {
        assert!(commands.contains(&command), "{command} is not in {commands:?}");
    }
    for command in commands {
        let text = printed(&["help", command]);
        assert!(text.contains("Usage: causeway"), "{command}: {text}");
        // What prints one thing has its example in the line that describes it.
        if !["help", "completions", "man"].contains(&command) {
            assert!(text.contains(&format!("Examples:\n  causeway {command}")), "{command}: {text}");
            assert_eq!(printed(&[command, "--help"]), text, "{command}");
        }
    }
    assert_eq!(printed(&["--version"]).trim(), version());
}

/// The crate's version, with the commit where these are sources with their history.
fn version() -> String {
    let version = concat!("causeway ", env!("CARGO_PKG_VERSION"));
    let root = env!("CARGO_MANIFEST_DIR");
    if !Path::new(root).join(".git").exists() {
        return version.to_owned();
    }
    let commit = Command::new("git").args(["-C", root, "rev-parse", "--short=12", "HEAD"]).output().unwrap();
    format!("{version} ({})", String::from_utf8(commit.stdout).unwrap().trim())
}

#[test]
fn the_shells_completions_and_the_manual_page_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let text = printed(&["completions", shell]);
        assert!(["causeway", "dev", "serve", "dead-letters"].iter().all(|word| text.contains(word)), "{shell}");
    }
    let script = scratch::dir("completions").join("causeway.bash");
    fs::write(&script, printed(&["completions", "bash"])).unwrap();
    let check = format!(". '{}' && complete -p causeway", script.display());
    let Output { status, stderr, .. } = Command::new("bash").args(["-c", &check]).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let man = printed(&["man"]);
    assert!(man.contains(".TH causeway 1") && man.contains("Exit codes"), "{man}");
    let pages: Vec<&str> =
        man.split("\ncauseway\\-").skip(1).filter_map(|rest| rest.split_once("(1)")).map(|it| it.0).collect();
    assert!(pages.contains(&"tail") && pages.contains(&"man"), "{pages:?}");
    for page in pages {
        let man = printed(&["man", page]);
        let (title, usage) = (format!(".TH causeway-{page} 1"), format!("\\fBcauseway {page}\\fR"));
        assert!(man.contains(&title) && man.contains(&usage), "{page}: {man}");
    }
}

#[test]
fn wrong_usage_has_its_own_exit_code_and_says_how_it_is_right() {
    for (arguments, said) in [
        (["dev", "--prot", "1"].as_slice(), "--port"),
        (&["tail", "--since", "soon"], "10m"),
        (&["tail", "--feed", "queue", "--dead-letters"], "cannot be used with"),
        // A dead letter has none of these: nothing would ever be shown.
        (&["tail", "--type", "T", "--dead-letters"], "cannot be used with"),
        (&["tail", "--issue", "1", "--dead-letters"], "cannot be used with"),
        (&["tail", "--agent", "1", "--dead-letters"], "cannot be used with"),
        (&["man", "nothing"], "serve"),
        (&["nothing"], "Usage"),
        (&[], "Usage"),
    ] {
        let Output { status, stderr, .. } = causeway(arguments).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(2) && stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

/// Each as it stands in the README, beside a `dev`: no flag but where that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_topics_schemas_and_replay_find_the_dev_beside_them() {
    let mut dev = Dev::start(&scratch::dir("dev"), &[]);
    let run = |arguments: &[&str]| {
        let Output { status, stdout, stderr } = causeway(arguments).arg("--dir").arg(&dev.dir).output().unwrap();
        let text = format!("{}{}", String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        (status.code(), text)
    };
    for (arguments, said) in [
        (&["check"][..], "asapp.journey"),
        (&["topics"], "The embedded broker of `causeway dev` has no settings to show"),
        (&["schemas"], "`causeway dev` serves these schemas itself"),
        (&["schemas", "--apply"], "`causeway dev` serves these schemas itself"),
        (&["schemas", "--print", "queue"], "\"namespace\""),
        (&["replay"], "0"),
    ] {
        let (code, text) = run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    dev.post("no event").await;
    let (code, text) = run(&["replay"]);
    assert_eq!(code, Some(0), "still no event: {text}");
    dev.stop(Signal::Terminate);
}
