//! Clients that mean harm, each beside a well-behaved sender whose events are all answered 200.

mod flood;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    attacks::{self, until_closed},
    sending::{BOTH, Posted, Raw, assert_all_there, event, head, journey, noise, records},
    support::{
        self, HANG,
        bridge::{Bridge, Setup},
        certs::ClientOptions,
        client::Http,
        stopwatch::Stopwatch,
        wait_until,
    },
};

const HEAD_MAX: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Events that the well-behaved sender posts in a second.
const RATE: u32 = 100;

/// The bridge that these tests attack at the same time.
fn bridge() -> &'static Bridge {
    static BRIDGE: OnceLock<Bridge> = OnceLock::new();
    BRIDGE.get_or_init(|| {
        let setup = Setup::new(support::kafka(), None);
        setup.set("ingress.head_ms_max", "1000").set("ingress.idle_ms_max", "4000").start()
    })
}

/// A sender that posts at its rate whatever happens to others, over HTTP/1.1 and HTTP/2 in turn.
pub struct Steady {
    bridge: &'static Bridge,
    watch: Stopwatch,
    stop: Arc<AtomicBool>,
    posting: JoinHandle<Posted>,
}

impl Steady {
    pub fn start(bridge: &'static Bridge, name: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let posting = tokio::spawn(post_at_rate(bridge, name, Arc::clone(&stop)));
        Self { bridge, watch: Stopwatch::start(), stop, posting }
    }

    /// Every event was answered 200 at the first attempt, none came late, and all are in Kafka.
    pub async fn assert_undisturbed(self) {
        // Some of it after the attack, and enough to count.
        sleep(Duration::from_secs(1)).await;
        let elapsed = self.watch.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        let posted = self.posting.await.unwrap();
        assert_eq!((posted.errors, &posted.others), (0, &Default::default()));
        let usual = Duration::from_secs_f64(posted.acked.len() as f64 / f64::from(RATE)).mul_f64(1.25);
        self.watch.assert_allows(elapsed, usual);
        assert_all_there(support::kafka(), self.bridge, &posted);
    }
}

async fn post_at_rate(bridge: &'static Bridge, name: &'static str, stop: Arc<AtomicBool>) -> Posted {
    let senders = BOTH.map(|http| Arc::new(bridge.sender(http)));
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut posts = JoinSet::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        ticks.tick().await;
        let (sender, id) = (Arc::clone(&senders[number % 2]), format!("steady-{name}-{number}"));
        posts.spawn(async move { (sender.post("/", &[], journey(&id)).await, id) });
    }
    let mut posted = Posted::default();
    for (answer, id) in posts.join_all().await {
        match answer {
            Ok(answer) if answer.status == 200 => posted.acked.push(id),
            Ok(answer) => *posted.others.entry(answer.status).or_default() += 1,
            Err(error) => {
                eprintln!("{id}: {error}");
                posted.errors += 1;
            }
        }
    }
    posted
}

fn closed(bridge: &Bridge, reason: &str) -> f64 {
    bridge.metric("causeway_connections_closed_total", &[&format!("reason=\"{reason}\"")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_trickles_in_is_cut_off() {
    let steady = Steady::start(bridge(), "slow-head");
    let before = closed(bridge(), "slow_head");
    // Not only the first head of a connection.
    let clients = (0..100).map(|number| (number % 2 == 0).then(|| journey("before a slow head")));
    attacks::slow_heads(bridge(), clients.collect(), HEAD_MAX).await;
    // The other test of such heads may run beside this one.
    assert!(closed(bridge(), "slow_head") >= before + 100.0);
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bodies_that_trickle_in_are_each_408() {
    let steady = Steady::start(bridge(), "slow-body");
    attacks::slow_bodies(bridge(), 60).await;
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_do_not_end_are_cut_off() {
    let steady = Steady::start(bridge(), "handshake");
    let failures = || bridge().metric("causeway_handshake_failures_total", &["timeout"]);
    let before = failures();
    let begun = Instant::now();
    let mut clients = attacks::half_open(bridge(), 500).await;
    let opening = begun.elapsed();
    let watch = Stopwatch::start();
    for tcp in &mut clients {
        until_closed(tcp).await;
    }
    let elapsed = watch.elapsed();
    // Ten seconds are all that a handshake has; these were begun before.
    assert!(elapsed > Duration::from_secs(10).saturating_sub(opening), "{elapsed:?}");
    watch.assert_allows(elapsed, Duration::from_secs(20));
    wait_until("all are counted", || failures() == before + 500.0);
    // All bridge-made lines, those of other tests too: ten a second.
    let logged = bridge().child.stderr().matches("\"TLS handshake failed\"").count();
    assert!((1..400).contains(&logged), "{logged} lines of 500 failed handshakes");
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_two_ends_is_refused_or_taken_by_its_chunks_and_the_connection_closed() {
    let steady = Steady::start(bridge(), "smuggling");
    attacks::smuggling::refused(bridge()).await;
    let event = journey("by its chunks");
    attacks::smuggling::taken_by_chunks(bridge(), [&event; 3]).await;
    let smuggled = |value: &[u8]| String::from_utf8_lossy(value).contains(attacks::smuggling::SMUGGLED);
    let found: Vec<_> = records(support::kafka(), bridge())
        .into_iter()
        .filter(|record| record.value.as_deref().is_some_and(smuggled))
        .collect();
    assert!(found.is_empty(), "{found:?}");
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_after_its_time() {
    let before = closed(bridge(), "idle");
    let steady = Steady::start(bridge(), "idle");
    let watch = Stopwatch::start();
    let mut unused = bridge().sender(Http::One).connect().await.unwrap();
    let mut used = bridge().sender(Http::One).connect().await.unwrap();
    let body = journey("before it is idle");
    used.write_all(format!("{}{body}", head("/", body.len())).as_bytes()).await.unwrap();
    let closed_after = async |stream| {
        until_closed(stream).await;
        watch.elapsed()
    };
    let (first, second) = tokio::join!(closed_after(&mut unused), closed_after(&mut used));
    for elapsed in [first, second] {
        assert!(elapsed >= IDLE_MAX, "{elapsed:?}");
        watch.assert_allows(elapsed, IDLE_MAX * 3);
    }
    assert!(closed(bridge(), "idle") >= before + 2.0);
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_idle_connections_make_room_for_a_sender_that_posts() {
    static BRIDGE: OnceLock<Bridge> = OnceLock::new();
    const MAX: usize = 1000;
    let bridge = BRIDGE
        .get_or_init(|| Setup::new(support::kafka(), None).set("ingress.connections_max", &MAX.to_string()).start());
    let steady = Steady::start(bridge, "idle-thousands");
    let (mut idle, mut half_open) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        // Without a handshake, too.
        half_open.extend(attacks::half_open(bridge, 50).await);
        idle.extend(attacks::idle(bridge, 50).await);
        assert!(bridge.metric("causeway_connections", &[]) <= MAX as f64 + 5.0);
    }
    let opened = idle.len() + half_open.len();
    assert!(bridge.metric("causeway_connections_evicted_total", &[]) >= (opened - MAX) as f64);
    steady.assert_undisturbed().await;
}

/// What is refused by its head alone, and whose body comes drop by drop, makes room for who is allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_allowed_keeps_no_place_by_a_body_that_does_not_end() {
    const MAX: usize = 4;
    let setup = Setup::new(support::kafka(), None).set("ingress.connections_max", &MAX.to_string());
    let bridge = setup.set("sender.timeout_ms", "60000").start();
    let stranger = bridge.sender_as(&bridge.setup.identity(ClientOptions::dns("evil.example")), Http::One);
    let mut drops = JoinSet::new();
    for _ in 0..MAX {
        let mut raw = Raw::open(&stranger).await;
        raw.write(head("/", 900_000)).await;
        drops.spawn(async move {
            loop {
                raw.write("x").await;
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
    wait_until("all places are taken", || bridge.metric("causeway_connections", &[]) == MAX as f64);
    wait_until("all have asked", || bridge.metric("causeway_requests_received_total", &[]) == MAX as f64);
    let asked = Instant::now();
    while bridge.sender(Http::One).post("/", &[], journey("honest")).await.map_or(0, |answer| answer.status) != 200 {
        assert!(asked.elapsed() < HANG, "no place for who is allowed");
    }
    drops.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_line_feed_ends_a_line_of_a_head() {
    // RFC 9112, section 2.2, leaves that to us; hyper does it.
    let mut raw = Raw::open(&bridge().sender(Http::One)).await;
    let body = journey("bare line feeds");
    raw.write(format!("{}{body}", head("/", body.len()).replace("\r\n", "\n"))).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_of_16_kib_is_read_and_a_larger_one_is_431() {
    const HEAD_BYTES_MAX: usize = 16 * 1024;
    let sender = bridge().sender(Http::One);
    for (bytes, whole, status) in [
        (HEAD_BYTES_MAX, true, 200),
        (HEAD_BYTES_MAX, false, 200),
        (HEAD_BYTES_MAX + 1, true, 431),
        (HEAD_BYTES_MAX + 1, false, 431),
        (4 * HEAD_BYTES_MAX, true, 431),
    ] {
        let body = event("com.asapp.event.journey", "a large head", &noise(100_000));
        let head = head("/", body.len());
        let filling = "x".repeat(bytes - head.len() - "x-filling: \r\n".len());
        let head = head.replacen("\r\n", &format!("\r\nx-filling: {filling}\r\n"), 1);
        assert_eq!(head.len(), bytes);
        let mut raw = Raw::open(&sender).await;
        if whole {
            raw.write(format!("{head}{body}")).await;
        } else {
            let (begin, rest) = head.split_at(9000);
            raw.write(begin).await;
            raw.write(rest).await;
            raw.write(&body).await;
        }
        assert_eq!(raw.head().await.map(|(status, _)| status), Some(status), "{bytes} {whole}");
    }
}
