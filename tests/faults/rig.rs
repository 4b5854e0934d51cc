//! What a case runs on: three brokers behind bad wires, the bridge, the load; and how its verdict comes about.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    checker::{Checker, Content},
    event::{Event, Feed},
    load::{Fate, Load, Plan, Reply, block_on, deliver},
    support::{
        self,
        bridge::{Bridge, Setup},
        client::Sender,
        kafka::{Broker, Kafka, KafkaOptions},
        pool::{Lease, Pool},
        proxy::Proxy,
    },
    verdict::{Copies, Expect, Kind, Outcome, RECOVERY_MAX, Summary, Violation},
};

/// A case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Runs with `--include-slow` only.
    pub slow: bool,
    pub body: fn(&Trial) -> Outcome,
}

impl Case {
    pub const fn fast(name: &'static str, body: fn(&Trial) -> Outcome) -> Self {
        Self { name, slow: false, body }
    }

    pub const fn slow(name: &'static str, body: fn(&Trial) -> Outcome) -> Self {
        Self { name, slow: true, body }
    }
}

/// One run of a case's body.
#[derive(Default)]
pub struct Trial {
    /// In which way the bridge is broken on purpose: `SABOTAGE`.
    pub sabotage: Option<&'static str>,
}

/// All that must be all right for so long before a recovery counts.
pub const CALM: Duration = Duration::from_millis(1500);

/// A killed broker's partitions go to others after 3 s instead of 9 s: every case that kills one would wait for it.
const FAST_SESSIONS: [(&str, &str); 2] =
    [("broker.session.timeout.ms", "3000"), ("broker.heartbeat.interval.ms", "500")];

/// Three brokers, each behind a proxy, with users and access control beside.
pub fn cluster() -> Lease {
    static POOL: Pool = Pool::new(2, || Kafka::start(options()));
    POOL.lease()
}

pub fn options() -> KafkaOptions {
    let properties = FAST_SESSIONS.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    KafkaOptions { brokers: 3, secured: true, proxied: true, properties, ..KafkaOptions::default() }
}

/// A bridge to a cluster that nobody else uses.
pub struct Rig {
    pub bridge: Bridge,
    pub kafka: Lease,
    pub plan: Plan,
}

impl Trial {
    /// The bridge is told what the plan's sender will do; `settings` are keys of its configuration.
    pub fn rig(&self, plan: Plan, settings: &[(&str, &str)]) -> Rig {
        self.rig_with(plan, |setup| settings.iter().fold(setup, |setup, (key, value)| setup.set(key, value)))
    }

    pub fn rig_with(&self, plan: Plan, configure: impl FnOnce(Setup) -> Setup) -> Rig {
        self.rig_on(cluster(), plan, configure)
    }

    pub fn rig_on(&self, kafka: Lease, plan: Plan, configure: impl FnOnce(Setup) -> Setup) -> Rig {
        let bridge = configure(self.setup(&kafka, &plan)).start();
        Rig { bridge, kafka, plan }
    }

    /// The configuration, for cases that start the bridge in their own way.
    pub fn setup(&self, kafka: &Kafka, plan: &Plan) -> Setup {
        let setup = Setup::new(kafka, Some(support::registry()))
            .set("kafka.brokers", &kafka.proxied_bootstrap())
            .set("kafka.topics.replication", "3")
            .set("sender.timeout_ms", &plan.timeout.as_millis().to_string())
            .set("sender.retries", &plan.retries.to_string())
            .set("sender.retry_pause_ms_max", &plan.pause.as_millis().to_string())
            .set("ingress.drain_ms_max", &(plan.timeout.as_millis() + 5000).to_string());
        match self.sabotage {
            Some(sabotage) => setup.env("SABOTAGE", sabotage),
            None => setup,
        }
    }
}

impl Rig {
    /// The load, once its first events are answered: what is broken afterwards was whole before.
    pub fn load(&self) -> Load {
        let load = Load::start(&self.bridge, self.plan.clone());
        load.wait_seconds(1);
        load
    }

    /// Sets a key of the configuration, for the next start.
    pub fn set(self, key: &str, value: &str) -> Self {
        let Self { bridge, kafka, plan } = self;
        let Bridge { setup, child, ingress, admin } = bridge;
        Self { bridge: Bridge { setup: setup.set(key, value), child, ingress, admin }, kafka, plan }
    }

    /// The same bridge again, from its configuration; the one before has ended.
    pub fn restarted(self) -> Self {
        let Self { bridge, kafka, plan } = self;
        let Bridge { setup, child, .. } = bridge;
        drop(child);
        Self { bridge: setup.start(), kafka, plan }
    }

    /// Posts one event after the other, each by the sender's rules.
    pub fn deliver(&self, sender: &Sender, events: impl IntoIterator<Item = Event>) -> Vec<Fate> {
        block_on(async {
            let mut fates = Vec::new();
            for event in events {
                fates.push(deliver(sender, event, &self.plan, |_| ()).await);
            }
            fates
        })
    }

    pub fn each_broker(&self, action: impl Fn(&Broker)) {
        self.kafka.brokers().iter().for_each(action);
    }

    pub fn each_wire(&self, action: impl Fn(&Proxy)) {
        self.kafka.proxies().iter().for_each(action);
    }

    /// So many records are in the topics, whatever became of their answers.
    pub fn records(&self) -> i64 {
        Feed::ALL.iter().flat_map(|feed| self.kafka.end_offsets(&self.topic(*feed))).sum()
    }

    pub fn topic(&self, feed: Feed) -> String {
        self.bridge.topic(feed.label())
    }

    /// By broker id: those that lead a partition of this feed's topic.
    pub fn leaders(&self, feed: Feed) -> Vec<i32> {
        let mut leaders = self.kafka.leaders(&self.topic(feed));
        leaders.sort_unstable();
        leaders.dedup();
        leaders
    }

    /// Waits until this broker leads nothing and every partition has a leader.
    pub fn wait_led_without(&self, broker: i32) {
        support::wait_until("others lead the partitions", || {
            Feed::ALL.iter().all(|feed| {
                let leaders = self.leaders(*feed);
                !leaders.is_empty() && leaders.iter().all(|it| *it >= 0 && *it != broker)
            })
        });
    }

    /// Waits until every partition has all its replicas in sync.
    pub fn wait_in_sync(&self) {
        support::wait_until("all replicas are in sync", || {
            Feed::ALL.iter().all(|feed| self.kafka.in_sync(&self.topic(*feed)).is_some_and(|least| least == 3))
        });
    }

    /// Ends the load and the bridge, and judges.
    pub fn verdict(self, load: Load, expect: &Expect) -> Outcome {
        self.verdict_with(load, expect, |_, _| Vec::new())
    }

    /// The same; `look` adds what the case itself has to say about the bridge, which still runs, and the fates.
    pub fn verdict_with(
        self,
        load: Load,
        expect: &Expect,
        look: impl FnOnce(&Bridge, &[Fate]) -> Vec<Violation>,
    ) -> Outcome {
        let mut violations = Vec::new();
        if expect.healed.is_some_and(|healed| !load.recovered(healed, CALM, RECOVERY_MAX)) {
            violations.push(Violation::new(Kind::Late, format!("not all 200 within {RECOVERY_MAX:?}")));
        }
        let fates = load.stop();
        self.judge(&fates, expect, violations, look)
    }

    /// For cases that have sent by themselves.
    pub fn judge(
        mut self,
        fates: &[Fate],
        expect: &Expect,
        mut violations: Vec<Violation>,
        look: impl FnOnce(&Bridge, &[Fate]) -> Vec<Violation>,
    ) -> Outcome {
        if let Err(what) = settled(&self.bridge) {
            violations.push(Violation::new(Kind::Stuck, what));
        }
        violations.extend(look(&self.bridge, fates));
        let memory_mb = memory_mb(&self.bridge);
        if memory_mb > expect.memory_mb_max {
            let what = format!("{memory_mb} MiB, more than {} MiB", expect.memory_mb_max);
            violations.push(Violation::new(Kind::TooMuchMemory, what));
        }
        let failed = ["causeway_redelivered_total", "causeway_undelivered_total"];
        let failed = failed.iter().any(|name| self.bridge.metric(name, &[]) > 0.0);
        let content = Content::read(&self.kafka, &self.bridge.setup);
        violations.extend(metrics(&self.bridge, fates, expect, &content));
        let (mut summary, found) = Checker::check(fates, &content, expect, failed);
        violations.extend(found);
        let status = self.bridge.stop();
        if !status.success() {
            violations.push(Violation::new(Kind::WrongExit, format!("{status}: {}", self.bridge.child.tail())));
        }
        summary.memory_mb = memory_mb;
        self.outcome(summary, violations)
    }

    /// For cases that end the bridge: what it left in Kafka.
    pub fn judge_ended(self, fates: &[Fate], expect: &Expect, mut violations: Vec<Violation>) -> Outcome {
        let content = Content::read(&self.kafka, &self.bridge.setup);
        let (summary, found) = Checker::check(fates, &content, expect, false);
        violations.extend(found);
        self.outcome(summary, violations)
    }

    fn outcome(self, summary: Summary, violations: Vec<Violation>) -> Outcome {
        if violations.is_empty() {
            let topics = Feed::ALL.map(|feed| self.bridge.topic(feed.label()));
            self.kafka.forget_topics(&topics.each_ref().map(String::as_str));
            return Ok(summary);
        }
        eprintln!("    {summary}\n    {}", self.bridge.setup.dir.display());
        Err(violations)
    }
}

/// Waits until nothing is held or on its way any more.
pub fn settled(bridge: &Bridge) -> Result<(), String> {
    let gauges = ["causeway_in_flight_requests", "causeway_queue_records", "causeway_queue_bytes"];
    let started = Instant::now();
    loop {
        let left: Vec<_> =
            gauges.iter().map(|name| (*name, bridge.metric(name, &[]))).filter(|it| it.1 != 0.0).collect();
        if left.is_empty() {
            return Ok(());
        }
        if started.elapsed() > support::HANG {
            return Err(format!("{left:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The most memory that the process ever had.
pub fn memory_mb(bridge: &Bridge) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", bridge.child.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// What the bridge counted against what the sender and the topics saw.
fn metrics(bridge: &Bridge, fates: &[Fate], expect: &Expect, content: &Content) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut wrong = |what: String| found.push(Violation::new(Kind::WrongMetric, what));
    let undelivered = bridge.metric("causeway_undelivered_total", &[]);
    if undelivered > 0.0 && !expect.undelivered {
        wrong(format!("{undelivered} records were given up"));
    }
    let stood_still = bridge.metric("causeway_producer_replaced_total", &["reason=\"stands_still\""]);
    if stood_still > 0.0 && !expect.own_fault {
        wrong(format!("{stood_still} producers were replaced for a fault of Kafka's"));
    }
    if expect.copies == Copies::Restarted {
        return found;
    }
    let replies = || fates.iter().flat_map(|fate| &fate.attempts).map(|it| &it.reply);
    let (acked, counted) = (
        replies().filter(|it| matches!(it, Reply::Acked(_))).count() as f64,
        bridge.metric("causeway_answers_total", &["status=\"200\""]),
    );
    let unseen = replies().filter(|it| matches!(it, Reply::TimedOut | Reply::Broken(_))).count() as f64;
    if counted < acked || counted > acked + unseen {
        wrong(format!("{counted} answers of 200 counted, {acked} seen, {unseen} attempts without an answer"));
    }
    let redelivered = bridge.metric("causeway_redelivered_total", &[]);
    for feed in Feed::ALL {
        let label = format!("feed=\"{}\"", feed.label());
        let committed = match feed {
            Feed::DeadLetter => bridge.metric("causeway_dead_letters_total", &[]),
            _ => bridge.metric("causeway_committed_total", &[&label]),
        };
        let records = content.records(feed).len() as f64;
        let deleted = expect.deleted.is_some_and(|(gone, _)| gone == feed);
        let exact = redelivered == 0.0 && undelivered == 0.0;
        if !deleted && (committed > records || exact && committed != records) {
            wrong(format!("{committed} events of {} counted as committed, {records} are there", feed.label()));
        }
    }
    found
}
