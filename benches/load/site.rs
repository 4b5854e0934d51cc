//! The measured servers, each in a process of its own, and the generator that posts to them.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::Value as Json;

use super::{
    PARTITIONS,
    figures::{Figures, cpu, forget_peak, has_ended, micros_each, peak_mb, resident_mb},
    produce,
    support::{
        self,
        bridge::{Bridge, SENDER, Setup},
        certs::{Authority, ClientOptions},
        client::Http,
        kafka::{Kafka, KafkaOptions},
        process::Child,
        scratch,
    },
};

pub struct Site {
    pub kafka: Kafka,
    pub bare: Target,
}

/// A server that the generator posts to.
pub struct Target {
    url: String,
    /// The folder of `ca.crt`, `sender.crt` and `sender.key`.
    dir: PathBuf,
    server: Server,
    acked: Cell<u64>,
    attempts: Cell<u64>,
}

enum Server {
    Bare(Child),
    Bridge(Box<Bridge>),
}

impl Site {
    pub fn new() -> Self {
        // Old segments go at once: a run writes more than a disk should have to hold.
        let properties = [
            ("log.segment.bytes", "16777216"),
            ("log.retention.bytes", "16777216"),
            ("log.retention.check.interval.ms", "5000"),
            ("log.segment.delete.delay.ms", "1000"),
        ];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let kafka = Kafka::start(KafkaOptions { heap_mb: 1024, properties, ..KafkaOptions::default() });
        Self { kafka, bare: Target::bare() }
    }

    /// A bridge that is ready to take events, with or without a registry.
    pub fn bridge(&self, registry: bool) -> Target {
        self.bridge_with(registry, |setup| setup)
    }

    /// A bridge as [`Self::bridge`] gives, with the settings that `change` makes.
    pub fn bridge_with(&self, registry: bool, change: impl FnOnce(Setup) -> Setup) -> Target {
        let registry = registry.then(support::registry);
        let setup = Setup::new(&self.kafka, registry)
            .set("sender.timeout_ms", "5000")
            .set("kafka.topics.partitions", &PARTITIONS.to_string());
        let setup = change(setup);
        sender(&setup.authority, &setup.dir);
        let (dir, bridge) = (setup.dir.clone(), setup.start());
        let url = format!("https://localhost:{}/", bridge.ingress.port());
        Target { url, dir, server: Server::Bridge(Box::new(bridge)), acked: Cell::default(), attempts: Cell::default() }
    }

    pub fn broker(&self) -> u32 {
        self.kafka.brokers()[0].pid()
    }

    /// One measurement of `target` under `causeway send <load>`.
    pub fn post(&self, target: &Target, load: &[&str]) -> Figures {
        self.post_after(0.0, target, load)
    }

    /// A measurement as [`Self::post`] takes, whose latencies and throughput leave out the first `warm_up` seconds.
    pub fn post_after(&self, warm_up: f64, target: &Target, load: &[&str]) -> Figures {
        let (server, broker) = (target.pid(), self.broker());
        forget_peak(server);
        let before = (cpu(server), cpu(broker));
        let (said, generator) = target.send(&[load, &["--warm-up", &warm_up.to_string()]].concat());
        let events = said["acked"].as_u64().expect("a count");
        assert_eq!(said["sent"], said["acked"], "every event is answered 200: {said}");
        let attempts = said["attempts"].as_u64().expect("a count");
        if attempts > events {
            eprintln!("{} attempts more than events: {}", attempts - events, said["by_status"]);
        }
        target.acked.set(target.acked.get() + events);
        target.attempts.set(target.attempts.get() + attempts);
        let latency = &said["latency_ms"];
        let millis = |quantile: &str| latency[quantile].as_f64().unwrap_or(f64::NAN);
        let (counted, seconds) = (latency["count"].as_f64().unwrap_or_default(), said["seconds"].as_f64());
        Figures {
            events,
            events_per_second: counted / (seconds.expect("a time") - warm_up).max(1e-3),
            p50_ms: millis("p50"),
            p99_ms: millis("p99"),
            p99_9_ms: millis("p99_9"),
            cpu_us: micros_each(cpu(server) - before.0, events),
            broker_cpu_us: micros_each(cpu(broker) - before.1, events),
            generator_cpu_us: micros_each(generator, events),
            peak_mb: peak_mb(server),
        }
    }

    /// A measurement of rdkafka alone with the events of this file, in a process of its own.
    pub fn produce(&self, events: &Path, prefix: &str, in_flight: usize, rate: Option<f64>, seconds: f64) -> Figures {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("produce").arg("--events").arg(events).args(["--prefix", prefix]);
        command.args(["--brokers", &self.kafka.bootstrap(), "--broker-pid", &self.broker().to_string()]);
        command.args(["--in-flight", &in_flight.to_string(), "--seconds", &seconds.to_string()]);
        command.args(rate.map(|rate| format!("--rate={rate}")));
        let said = command.stderr(Stdio::inherit()).output().expect("this program starts");
        assert!(said.status.success(), "rdkafka alone: {}", said.status);
        serde_json::from_slice(&said.stdout).expect("figures")
    }

    /// Creates the topics that [`Self::produce`] writes to.
    pub fn topics(&self, prefix: &str, partitions: i32) {
        for feed in ["activity", "journey", "queue"] {
            self.kafka.create_topic(&produce::topic(prefix, feed), partitions, &[]);
        }
    }
}

impl Target {
    fn bare() -> Self {
        let dir = scratch::dir("bare");
        let authority = Authority::new("Bench sender CA");
        authority.write(&dir, "ca");
        authority.server(&["localhost"], [[127, 0, 0, 1]]).write(&dir, "server");
        sender(&authority, &dir);
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("bare").arg(&dir);
        let mut child = Child::spawn("bare", &command, &dir);
        let mut address = String::new();
        child.wait_ready(|| {
            address = fs::read_to_string(dir.join("address")).unwrap_or_default();
            !address.is_empty()
        });
        let port = address.rsplit(':').next().expect("a port");
        Self {
            url: format!("https://localhost:{port}/"),
            dir,
            server: Server::Bare(child),
            acked: Cell::default(),
            attempts: Cell::default(),
        }
    }

    pub fn pid(&self) -> u32 {
        match &self.server {
            Server::Bare(child) => child.pid(),
            Server::Bridge(bridge) => bridge.child.pid(),
        }
    }

    /// Runs `causeway send` with these flags; returns its JSON and the CPU time that it took.
    pub fn send(&self, load: &[&str]) -> (Json, Duration) {
        // Each run has a seed of its own, and so new ids: an event that was committed before costs the bridge nothing.
        static SEED: AtomicU64 = AtomicU64::new(1);
        let seed = SEED.fetch_add(1, Ordering::Relaxed).to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
        command.args(["send", "--json", "--seed", &seed, "--url", &self.url, "--ca", "ca.crt"]);
        // The timeout is long, so that a late answer counts as late, not lost: thousands of handshakes at a time take a
        // busy machine longer than ASAPP would wait.
        command
            .args(["--cert", "sender.crt", "--key", "sender.key", "--timeout-ms", "30000"])
            .args(load)
            .current_dir(&self.dir);
        let mut generator = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the generator starts");
        let said = serde_json::from_reader(generator.stdout.take().expect("its output"));
        while !has_ended(generator.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = cpu(generator.id());
        let status = generator.wait().expect("its end");
        (said.unwrap_or_else(|error| panic!("send {load:?}: {status}, {error}")), took)
    }

    /// Checks the bridge's own counts: each event answered 200 was committed once, or joined one that was. Events join
    /// others because a file's ids come again in every round, and because a retry joins its first attempt.
    pub fn check(&self) {
        if let Server::Bridge(_) = &self.server {
            let (committed, joined) = (self.metric("causeway_committed_total"), self.metric("causeway_joined_total"));
            let (acked, attempts) = (self.acked.get(), self.attempts.get());
            assert!(
                (acked as f64..=attempts as f64).contains(&(committed + joined)),
                "{committed} committed and {joined} joined, beside {acked} answered 200 in {attempts} attempts"
            );
        }
    }

    /// A count of the bridge, summed over all labels.
    pub fn metric(&self, name: &str) -> f64 {
        let Server::Bridge(bridge) = &self.server else { panic!("a bridge") };
        bridge.metric(name, &[])
    }

    /// The server's CPU time during `time` without any load, and its resident memory afterwards.
    pub fn idle(&self, time: Duration) -> (Duration, f64) {
        let before = cpu(self.pid());
        std::thread::sleep(time);
        (cpu(self.pid()) - before, resident_mb(self.pid()))
    }

    /// A bridge's resident memory while this many connections are open on which nothing was ever sent.
    pub fn with_idle_connections(&self, connections: usize) -> f64 {
        let Server::Bridge(bridge) = &self.server else { panic!("a bridge") };
        let sender = bridge.sender(Http::One);
        tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
            let mut open = Vec::new();
            for _ in 0..connections {
                open.push(sender.connect().await.expect("a connection"));
            }
            while self.metric("causeway_connections") < connections as f64 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            resident_mb(self.pid())
        })
    }
}

/// Writes a sender's certificate with an RSA key, as ASAPP's has.
fn sender(authority: &Authority, dir: &Path) {
    authority.client(ClientOptions { rsa: true, ..ClientOptions::dns(SENDER) }).write(dir, "sender");
}
