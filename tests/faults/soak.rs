//! Hours of load and faults on one bridge: every event that was answered 200 is looked for, and nothing of the process grows.
//!
//! `--soak HOURS` runs this alone. It goes by rounds of a minute: load, and faults at random moments; then all heals, all that was
//! sent comes to its end, and what came into the topics since the round before is judged as any case is.

use std::{
    fs,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    chaos::{self, Dice},
    checker::{Checker, Content},
    event::{Event, Feed},
    load::{Fate, Plan, RATE},
    rig::{self, Rig, Trial, settled},
    support::{
        client::Http,
        process::{Child, Signal},
        proxy::Proxy,
    },
    verdict::{self, Copies, Expect, Kind, OVERLOAD, RECOVERY_MAX, STOPPING, Summary, Violation, describe},
};

/// For how long a round's faults go on.
const ROUND: Duration = Duration::from_secs(45);

/// Larger than the topic of the journeys allows for a while: each refusal costs its producer an epoch.
const REFUSED_BYTES: usize = 50_000;
const LOWERED: &str = "10000";
const USUAL: &str = "1048588";

/// On a slow machine an outage leaves more work than the machine can ever make up for while new events go on coming.
const OPEN_MAX: usize = 5000;

/// One round in so many that is late in something is the machine's fault; more are not.
const LATE_ONE_IN: usize = 10;

/// What must not grow. Taken at a round's end, when nothing is under way.
#[derive(Clone, Copy, Default)]
struct Sample {
    memory_mb: u64,
    threads: u64,
    descriptors: u64,
    log_lines: u64,
    /// Since the sample before, of the same process.
    log_lines_since: u64,
}

/// Everything of all rounds.
#[derive(Default)]
struct Total {
    rounds: usize,
    late: usize,
    sent: usize,
    acked: usize,
    duplicated: usize,
    /// Since the process was last started.
    samples: Vec<Sample>,
}

pub fn run(hours: f64) -> ExitCode {
    let lasts = Duration::from_secs_f64(hours * 3600.0);
    let mut dice = Dice::rolled();
    let plan = Plan {
        rate: if cfg!(debug_assertions) { RATE } else { 1000 },
        keys: 100,
        open_max: OPEN_MAX,
        ..Plan::default()
    };
    let mut rig = Trial::default().rig(plan, &[]);
    let (mut seen, mut total, started) =
        (Content::read(&rig.kafka, &rig.bridge.setup), Total::default(), Instant::now());
    while started.elapsed() < lasts || total.rounds == 0 {
        let (next, violations) = round(rig, &mut dice, &mut seen, &mut total);
        rig = next;
        if verdict::only_late(&violations) && !violations.is_empty() {
            total.late += 1;
            eprintln!("late:\n{}", describe(&violations));
        } else if !violations.is_empty() {
            eprintln!("{}\n{}", describe(&violations), rig.bridge.setup.dir.display());
            return ExitCode::FAILURE;
        }
    }
    let Total { rounds, late, sent, acked, duplicated, .. } = total;
    println!(
        "soak: {:.2} h, {rounds} rounds, {late} of them late; sent {sent}, acked {acked}, lost 0, duplicated {duplicated}",
        started.elapsed().as_secs_f64() / 3600.0
    );
    if late * LATE_ONE_IN > rounds { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn round(mut rig: Rig, dice: &mut Dice, seen: &mut Content, total: &mut Total) -> (Rig, Vec<Violation>) {
    let load = rig.load();
    let refused = refused(&rig, total.rounds);
    let began = Instant::now();
    while began.elapsed() < ROUND {
        match dice.up_to(40) {
            0 => {
                rig = ended_and_started_again(rig, dice);
                total.samples.clear();
            }
            1 => renew(&rig),
            _ => chaos::fault(&rig, dice),
        }
        sleep(Duration::from_millis(dice.up_to(1500)));
    }
    rig.kafka.restore();
    rig.wait_in_sync();
    rig.wait_led_without(0);
    let healed = Instant::now();
    let mut violations = Vec::new();
    if !load.recovered(healed, rig::CALM, RECOVERY_MAX) {
        violations.push(Violation::new(Kind::Late, format!("not all 200 within {RECOVERY_MAX:?}")));
    }
    let fates = [load.stop(), refused].concat();
    if let Err(what) = settled(&rig.bridge) {
        violations.push(Violation::new(Kind::Stuck, what));
    }
    seen.go_on(&rig.kafka, &rig.bridge.setup);
    let expect =
        Expect { broken: true, ..Expect::held().refusal(OVERLOAD).refusal(STOPPING).copies(Copies::Restarted) };
    let (summary, found) = Checker::check(&fates, seen, &expect, true);
    violations.extend(found);
    total.samples.push(Sample::of(&rig.bridge.child, total.samples.last()));
    violations.extend(grown(&total.samples));
    total.add(&summary);
    (rig, violations)
}

/// Each is refused by its topic and becomes a dead letter, as are batches of the load that are too large.
fn refused(rig: &Rig, round: usize) -> Vec<Fate> {
    let limit = |bytes: &str| {
        rig.kafka.alter_topic_config(&rig.topic(Feed::Journey), &[("max.message.bytes", bytes)]);
    };
    limit(LOWERED);
    let large = (0..4).map(|number| {
        let event = Event::new(u32::MAX, 4 * round + number, Feed::Journey, 4, REFUSED_BYTES);
        Event { feed: Feed::DeadLetter, ..event }
    });
    let fates = rig.deliver(&rig.bridge.sender(Http::Two), large);
    limit(USUAL);
    fates
}

/// The load is sent to the address that the bridge was started with: it has to listen there again.
fn ended_and_started_again(mut rig: Rig, dice: &mut Dice) -> Rig {
    let address = rig.bridge.ingress.to_string();
    rig.bridge.child.signal(if dice.up_to(2) == 0 { Signal::Kill } else { Signal::Terminate });
    rig.bridge.child.wait();
    // A start waits for Kafka, as it should, and nothing else of this thread heals a wire meanwhile.
    rig.each_wire(Proxy::heal);
    rig.set("ingress.listen", &address).restarted()
}

/// Another certificate of the same CA.
fn renew(rig: &Rig) {
    let setup = &rig.bridge.setup;
    setup.authority.server(&["localhost"], [[127, 0, 0, 1]]).write(&setup.dir, "server");
}

impl Sample {
    fn of(bridge: &Child, before: Option<&Self>) -> Self {
        let process = format!("/proc/{}", bridge.pid());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect(name);
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let log_lines = bridge.stderr().lines().count() as u64;
        Self {
            memory_mb: number("VmRSS:") / 1024,
            threads: number("Threads:"),
            descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count() as u64,
            log_lines,
            log_lines_since: log_lines - before.map_or(0, |it| it.log_lines),
        }
    }
}

impl Total {
    fn add(&mut self, summary: &Summary) {
        self.rounds += 1;
        self.sent += summary.sent;
        self.acked += summary.acked;
        self.duplicated += summary.duplicated;
        let Sample { memory_mb, threads, descriptors, log_lines_since, .. } =
            self.samples.last().copied().unwrap_or_default();
        eprintln!(
            "round {}: {summary}; now {memory_mb} MiB, {threads} threads, {descriptors} descriptors, {log_lines_since} log lines",
            self.rounds
        );
    }
}

/// So many rounds must have been since the process was started before a comparison says anything.
const ENOUGH: usize = 12;

/// The last rounds beside the first ones of the same process. The first round warms up.
fn grown(samples: &[Sample]) -> Vec<Violation> {
    if samples.len() < ENOUGH {
        return Vec::new();
    }
    let third = (samples.len() - 1) / 3;
    let (first, last) = (&samples[1..=third], &samples[samples.len() - third..]);
    let compare = |what: &str, (before, now): (u64, u64), more: u64| {
        (now > before + more).then(|| Violation::new(Kind::TooMuchMemory, format!("{before} {what} have become {now}")))
    };
    let middles = |of: fn(&Sample) -> u64| (middle(first, of), middle(last, of));
    // An outage is worth a thousand lines: only the quietest rounds can be compared.
    let quietest = |of: &[Sample]| of.iter().map(|it| it.log_lines_since).min().unwrap_or_default();
    let found = [
        compare("MiB", middles(|it| it.memory_mb), 40),
        compare("threads", middles(|it| it.threads), 8),
        compare("descriptors", middles(|it| it.descriptors), 60),
        compare("log lines in a quiet round", (quietest(first), quietest(last)), 200),
    ];
    found.into_iter().flatten().collect()
}

fn middle(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// The judge of growth judges.
pub fn growth_is_found() {
    let flat = vec![Sample { memory_mb: 100, threads: 20, descriptors: 50, log_lines: 0, log_lines_since: 300 }; 30];
    assert!(grown(&flat).is_empty());
    let leaking = |number: u64, sample: &Sample| Sample { memory_mb: sample.memory_mb + 4 * number, ..*sample };
    let growing: Vec<Sample> = (0..).zip(&flat).map(|(number, sample)| leaking(number, sample)).collect();
    assert_eq!(grown(&growing).len(), 1);
    let talking = |number: u64, sample: &Sample| Sample { log_lines_since: 300 + 30 * number, ..*sample };
    let talking: Vec<Sample> = (0..).zip(&flat).map(|(number, sample)| talking(number, sample)).collect();
    assert_eq!(grown(&talking).len(), 1);
}
