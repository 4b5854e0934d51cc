//! What the bridge stands on: its threads, its clock, its descriptors, the registry, its configuration, names, disks.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, Write},
    net::TcpStream,
    process::Command,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    brokers::{hasty, held_and_200, patient},
    event::{Event, Feed},
    load::{Load, Plan, Reply},
    rig::{Case, Rig, Trial, options},
    sender::events,
    support::{
        client::Http,
        kafka::{Kafka, KafkaOptions},
        namespace::Namespace,
        pool::Lease,
        process::{Child, Signal},
        proxy::Proxy,
        registry::Registry,
        scratch,
        starting::Starting,
        stopwatch::Stopwatch,
        wait_until,
    },
    topics::client,
    verdict::{Copies, Expect, Kind, NO_COMMIT_IN_TIME, Outcome, Violation},
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::slow("row_04_controller_killed", controller_killed),
        Case::slow("row_19_password_and_broker_certificate_rotated", secrets_rotated),
        Case::slow("row_42_a_producers_thread_hangs", |trial| thread_hangs(trial, false)),
        Case::slow("row_42_one_thread_hangs_beside_another_of_its_feed", |trial| thread_hangs(trial, true)),
        Case::slow("row_43_our_clock_jumps", clock_jumps),
        Case::fast("row_44_file_descriptors_used_up", no_descriptors),
        Case::slow("row_45_registry_down", registry_down),
        Case::fast("row_46_wrong_configuration", wrong_configuration),
        Case::slow("row_47_a_brokers_disk_is_full", disk_full),
        Case::slow("row_48_dns_gone", dns_gone),
    ]
}

/// A controller that is no broker, and the one that leads.
fn controller_killed(trial: &Trial) -> Outcome {
    let cluster = KafkaOptions { controllers: 3, secured: false, heap_mb: 256, ..options() };
    // On a machine that is busy with the start of six of Kafka's processes the first commits alone can take seconds.
    let rig = trial.rig_on(Lease::own(Kafka::start(cluster)), patient(), |setup| setup);
    let load = rig.load();
    let controller = rig.kafka.active_controller();
    let (killed, watch) = (Instant::now(), Stopwatch::start());
    controller.kill();
    load.wait_seconds(5);
    let other = rig.kafka.active_controller().id;
    let same = other == controller.id;
    let healed = Instant::now();
    rig.verdict_with(load, &Expect::all_200().healed(healed), |_, fates| {
        let since = fates.iter().flat_map(|fate| &fate.attempts).filter(|it| it.ended >= killed);
        let longest = since.map(|it| it.ended - it.sent.max(killed)).max().unwrap_or_default();
        let mut wrong = Vec::new();
        if longest > watch.allowed(HOLD) {
            let what = format!("held for {longest:?} without its controller: a usual sender had got a 503");
            wrong.push(Violation::new(Kind::Late, what));
        }
        if same {
            wrong.push(Violation::new(Kind::Other, "it still leads"));
        }
        wrong
    })
}

/// How long the bridge holds what a usual sender posts: D of its `timeout_ms`, 5 s.
const HOLD: Duration = Duration::from_millis(4500);

/// First Kafka learns the new password, then the bridge's file has it; and a broker comes back with another certificate.
fn secrets_rotated(trial: &Trial) -> Outcome {
    let kafka = crate::rig::cluster();
    let set_password = |kafka: &Kafka, password: &str| {
        let config = format!("SCRAM-SHA-256=[password={password}]");
        let user = ["--alter", "--entity-type", "users", "--entity-name", "rotating", "--add-config", &config];
        kafka.tool("kafka.admin.ConfigCommand", &user);
    };
    set_password(&kafka, "first");
    let mut properties = kafka.security().sasl_ssl("SCRAM-SHA-256");
    properties.retain(|(name, _)| !["sasl.username", "sasl.password"].contains(name));
    properties.push(("sasl.username", "rotating".to_owned()));
    properties.push(("sasl.password_file", "password".to_owned()));
    let brokers = kafka.security().sasl_ssl_bootstrap();
    let rig = trial.rig_on(kafka, Plan::default(), |setup| {
        fs::write(setup.dir.join("password"), "first").unwrap();
        setup.set("kafka.brokers", &brokers).toml(&client(&properties))
    });
    let load = rig.load();
    set_password(&rig.kafka, "second");
    fs::write(rig.bridge.setup.dir.join("password"), "second").unwrap();
    let renewed = || rig.bridge.metric("causeway_kafka_renewals_total", &["result=\"ok\""]) > 0.0;
    wait_until("the new password is in use", renewed);
    load.wait_seconds(2);
    rig.kafka.security().renew_broker_certificate();
    let broker = &rig.kafka.brokers()[0];
    broker.stop();
    broker.start();
    rig.kafka.wait_ready();
    rig.wait_in_sync();
    let healed = Instant::now();
    load.wait_seconds(2);
    rig.verdict(load, &held_and_200().healed(healed))
}

/// Feeds have their producers in the order activity, journey, queue; before them there is a client that looks at the topics.
const JOURNEYS_MAIN: &str = "2";

/// The thread that takes the delivery reports: nothing can be answered 200 any more, and the process must not pretend.
///
/// With `beside_another` it is librdkafka's own of the journey's producer, after a record that was refused for itself: that
/// one's producer lives on.
fn thread_hangs(trial: &Trial, beside_another: bool) -> Outcome {
    let mut rig = trial.rig(Plan { retries: 0, ..hasty() }, &[]);
    let mut refused = Vec::new();
    if beside_another {
        rig.kafka.alter_topic_config(&rig.topic(Feed::Journey), &[("max.message.bytes", "10000")]);
        let large = Event::new(u32::MAX, 0, Feed::Journey, 4, 50_000);
        refused = rig.deliver(&rig.bridge.sender(Http::Two), [Event { feed: Feed::DeadLetter, ..large }]);
    }
    let load = rig.load();
    let mut python = Command::new("python3");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/stop_thread.py");
    let thread: &[&str] = if beside_another { &["rdk:main", JOURNEYS_MAIN] } else { &["pace"] };
    python.args([script, &rig.bridge.child.pid().to_string()]).args(thread);
    let mut tracer = Child::spawn("stop_thread", &python, &rig.bridge.setup.dir);
    tracer.wait_ready(|| tracer_says(&rig).starts_with("stopped"));
    assert_ne!(tracer_says(&rig).trim(), "stopped 0", "no such thread");
    let since = Instant::now();
    if !beside_another {
        load.wait_reply("an attempt is answered 503", since, |reply| matches!(reply, Reply::Refused(503, _)));
    }
    let status = rig.bridge.child.wait();
    drop(tracer);
    let fates = [load.stop(), refused].concat();
    let mut found = Vec::new();
    if status.code() != Some(5) {
        found.push(Violation::new(Kind::WrongExit, format!("{status}\n{}", rig.bridge.child.tail())));
    }
    let expect = Expect { broken: true, late: true, refusals: vec![NO_COMMIT_IN_TIME], ..Expect::all_200() };
    rig.judge_ended(&fates, &expect, found)
}

fn tracer_says(rig: &Rig) -> String {
    fs::read_to_string(rig.bridge.setup.dir.join("stop_thread.out")).unwrap_or_default()
}

/// libfaketime changes what the process takes for the time of day; monotonic time goes on, as it does on a real machine.
fn clock_jumps(trial: &Trial) -> Outcome {
    let library = faketime();
    let dir = scratch::dir("clock");
    let clock = dir.join("clock");
    fs::write(&clock, "+0").unwrap();
    let rig = trial.rig_with(Plan::default(), |setup| {
        setup
            .env("LD_PRELOAD", &library)
            .env("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    });
    let load = rig.load();
    let set = |offset: &str| {
        // Renamed into place: the process reads it at any time.
        let next = dir.join("next");
        fs::write(&next, offset).unwrap();
        fs::rename(next, &clock).unwrap();
    };
    set("+50m");
    load.wait_seconds(5);
    set("-23h");
    load.wait_seconds(5);
    set("+0");
    let healed = Instant::now();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let (topic, kafka) = (rig.topic(Feed::Journey), &rig.kafka);
    let stamps: Vec<i64> = kafka.read(&topic).into_iter().map(|record| record.timestamp - now).collect();
    let jumped = [stamps.iter().any(|it| *it > 40 * 60_000), stamps.iter().any(|it| *it < -22 * 3_600_000)];
    rig.verdict_with(load, &Expect::all_200().healed(healed), |_, _| match jumped {
        [true, true] => Vec::new(),
        _ => vec![Violation::new(Kind::Other, format!("the clock did not jump as told: {jumped:?}"))],
    })
}

fn faketime() -> String {
    let found = Command::new("find").args(["/usr/lib", "-name", "libfaketimeMT.so.1"]).output().unwrap();
    let path = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    assert!(!path.is_empty(), "no libfaketime. Debian, Ubuntu: apt-get install faketime");
    path
}

/// Who is connected is served; who comes waits in the backlog until there is a descriptor.
fn no_descriptors(trial: &Trial) -> Outcome {
    let rig = trial.rig(Plan { senders: 2, ..patient() }, &[]);
    let http_2 = rig.bridge.sender(Http::Two);
    let mut fates = rig.deliver(&http_2, events(5));
    let pid = rig.bridge.child.pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = format!("--nofile={}:", open + 3);
    let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(status.expect("prlimit (Debian, Ubuntu: apt-get install util-linux)").success());
    let crowd: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(rig.bridge.ingress).unwrap()).collect();
    let used = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    wait_until("every descriptor is in use", || used() >= open + 3);
    let more =
        |from: usize| (from..from + 20).map(|number| Event::new(u32::MAX - 1, number, Feed::ALL[number % 5], 10, 100));
    fates.extend(rig.deliver(&http_2, more(0)));
    drop(crowd);
    // A new connection, now that there is room.
    fates.extend(rig.deliver(&rig.bridge.sender(Http::One), more(20)));
    rig.judge(&fates, &Expect::all_200(), Vec::new(), |_, _| Vec::new())
}

/// It is asked at the start and never again.
fn registry_down(trial: &Trial) -> Outcome {
    let registry = Registry::start();
    let url = registry.url().to_owned();
    let rig = trial.rig(Plan::default(), &[("registry.url", &url)]);
    let load = rig.load();
    registry.process().signal(Signal::Stop);
    load.wait_seconds(5);
    let again = trial.setup(&rig.kafka, &rig.plan).set("registry.url", &url);
    let mut cold = Starting::new(again);
    cold.waits_for("registry");
    let refused = !cold.accepts_connections();
    registry.process().signal(Signal::Continue);
    let mut cold = cold.ready();
    let stopped = cold.stop();
    rig.verdict_with(load, &Expect::all_200(), |_, _| match (refused, stopped.success()) {
        (true, true) => Vec::new(),
        other => vec![Violation::new(Kind::Other, format!("without a registry: not ready, then stopped: {other:?}"))],
    })
}

fn wrong_configuration(trial: &Trial) -> Outcome {
    let kafka = crate::rig::cluster();
    let rig = trial.rig_on(kafka, patient(), |setup| setup);
    let wrong = trial
        .setup(&rig.kafka, &rig.plan)
        .set("sender.timeout_ms", "100")
        .set("ingress.listen", "nowhere:1")
        .set("ingress.tls.client_names", "nobody")
        .toml("[kafka.client]\nacks = '1'\n'linger.ms' = 'soon'");
    let mut child = Child::spawn("causeway", &wrong.command(&["serve"]), &wrong.dir);
    let status = child.wait();
    let said = child.stderr();
    let mut found = Vec::new();
    if status.code() != Some(3) {
        found.push(Violation::new(Kind::WrongExit, status.to_string()));
    }
    for part in ["sender.timeout_ms is 100", "ingress.listen is", "client_names holds", "acks", "linger.ms"] {
        if !said.contains(part) {
            found.push(Violation::new(Kind::Other, format!("{part} is not named in:\n{said}")));
        }
    }
    let fates = rig.deliver(&rig.bridge.sender(Http::Two), events(5));
    rig.judge(&fates, &Expect::all_200(), found, |_, _| Vec::new())
}

/// The leader's disk: it ends, others lead; with room again, it comes back.
fn disk_full(trial: &Trial) -> Outcome {
    let cluster = KafkaOptions { disk_mb: Some(128), secured: false, ..options() };
    let rig = trial.rig_on(Lease::own(Kafka::start(cluster)), Plan { padding: 2000, ..patient() }, |setup| setup);
    let load = rig.load();
    let leader = rig.leaders(Feed::Journey)[0];
    let broker = rig.kafka.broker(leader);
    broker.fill_disk();
    wait_until("the broker ends", || !broker.runs());
    rig.wait_led_without(leader);
    let healed = Instant::now();
    load.wait_seconds(2);
    broker.free_disk();
    broker.start();
    rig.kafka.wait_ready();
    rig.wait_in_sync();
    rig.verdict(load, &held_and_200().healed(healed))
}

/// The brokers' names are known, then to nobody, then again.
fn dns_gone(trial: &Trial) -> Outcome {
    const HOST: &str = "kafka.causeway.test";
    let cluster = KafkaOptions { proxied_host: HOST, secured: false, ..options() };
    let kafka = Lease::own(Kafka::start(cluster));
    let hosts = scratch::dir("dns").join("hosts");
    let known = format!("127.0.0.1 localhost {HOST}\n");
    fs::write(&hosts, &known).unwrap();
    // Written in place: the namespace has the file, not its name.
    let write = |text: &str| {
        let mut file = OpenOptions::new().write(true).truncate(true).open(&hosts).unwrap();
        file.rewind().unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let namespace = Arc::new(Namespace::with_hosts(&hosts));
    let ports = kafka.proxies().iter().map(|wire| format!("{HOST}:{}", wire.address.port()));
    let brokers = ports.collect::<Vec<_>>().join(",");
    let rig = trial.rig_on(kafka, patient(), |setup| {
        // Both are numbers: only the brokers have a name.
        setup.set("kafka.brokers", &brokers).within(&namespace)
    });
    let load: Load = rig.load();
    write("127.0.0.1 localhost\n");
    load.wait_seconds(10);
    // On open connections everything went on. A connection that breaks now cannot be had again without the name.
    let held = load.last_failure();
    rig.each_wire(Proxy::reset);
    sleep(Duration::from_secs(3));
    write(&known);
    let healed = Instant::now();
    rig.verdict_with(load, &Expect::all_200().copies(Copies::Redelivered).healed(healed), |_, _| match held {
        None => Vec::new(),
        Some(_) => vec![Violation::new(Kind::WrongAnswer, "not 200 on open connections")],
    })
}
