//! Clients that mean harm, each beside a well-behaved sender whose events are all answered 200.

mod flood;
mod frames;
mod smuggling;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    sending::{BOTH, Parts, Posted, assert_all_there, assert_refused, head, journey, post_parts},
    support::{
        self,
        bridge::{Bridge, Setup},
        client::Http,
        wait_until,
    },
};

const LIMIT: Duration = Duration::from_secs(60);

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
    started: Instant,
    stop: Arc<AtomicBool>,
    posting: JoinHandle<Posted>,
}

impl Steady {
    pub fn start(bridge: &'static Bridge, name: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let posting = tokio::spawn(post_at_rate(bridge, name, Arc::clone(&stop)));
        Self { bridge, started: Instant::now(), stop, posting }
    }

    /// Every event was answered 200 at the first attempt, none came late, and all are in Kafka.
    pub async fn assert_undisturbed(self) {
        // Some of it after the attack, and enough to count.
        sleep(Duration::from_secs(1)).await;
        let elapsed = self.started.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        let posted = self.posting.await.unwrap();
        assert_eq!((posted.errors, &posted.others), (0, &Default::default()));
        let expected = elapsed.as_secs_f64() * f64::from(RATE) * 0.8;
        assert!(posted.acked.len() as f64 >= expected, "{} events in {elapsed:?}", posted.acked.len());
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

/// Waits for the server's end of a connection; how long that took.
async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> Duration {
    let started = Instant::now();
    let mut rest = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("the server closes it");
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_trickles_in_is_cut_off() {
    const CLIENTS: usize = 100;
    let steady = Steady::start(bridge(), "slow-head");
    let sender = Arc::new(bridge().sender(Http::One));
    let before = closed(bridge(), "slow_head");
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let sender = Arc::clone(&sender);
        clients.spawn(async move {
            let mut stream = sender.connect().await.unwrap();
            if number % 2 == 0 {
                // Not only the first head of a connection.
                let body = journey("before a slow head");
                stream.write_all(format!("{}{body}", head("/", body.len())).as_bytes()).await.unwrap();
                let read = stream.read(&mut [0; 2048]).await.unwrap();
                assert!(read > 0, "an answer");
            }
            let started = Instant::now();
            let trickle = async |mut writer: tokio::io::WriteHalf<_>| {
                for byte in b"POST / HTTP/1.1\r\nx-filling: ".iter().chain(std::iter::repeat(&b'x')) {
                    if writer.write_all(&[*byte]).await.is_err() || writer.flush().await.is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            };
            let (mut reader, writer) = tokio::io::split(stream);
            tokio::select! {
                _ = until_closed(&mut reader) => {}
                () = trickle(writer) => {}
            }
            started.elapsed()
        });
    }
    for elapsed in clients.join_all().await {
        assert!(elapsed >= HEAD_MAX && elapsed < HEAD_MAX * 10, "{elapsed:?}");
    }
    assert_eq!(closed(bridge(), "slow_head"), before + CLIENTS as f64);
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bodies_that_trickle_in_are_each_408() {
    let steady = Steady::start(bridge(), "slow-body");
    let mut clients = JoinSet::new();
    for number in 0..60 {
        let http = BOTH[number % 2];
        clients.spawn(async move {
            let (parts, source) = Parts::new();
            let trickle = async {
                for part in std::iter::repeat_n("1", 1000) {
                    if parts.send(part.into()).await.is_err() {
                        // The answer is there.
                        std::future::pending::<()>().await;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            };
            let post = post_parts(bridge().sender(http), http, "/", &[("content-length", "1000")], source);
            tokio::select! {
                answer = post => answer.unwrap(),
                () = trickle => panic!("the whole body was waited for"),
            }
        });
    }
    for answer in clients.join_all().await {
        assert_refused(&answer, 408, "body_too_slow");
    }
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_do_not_end_are_cut_off() {
    const CLIENTS: usize = 500;
    let steady = Steady::start(bridge(), "handshake");
    let failures = || bridge().metric("causeway_handshake_failures_total", &["timeout"]);
    let before = failures();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut tcp = TcpStream::connect(bridge().ingress).await.unwrap();
        if number % 2 == 0 {
            // The begin of a ClientHello.
            tcp.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01]).await.unwrap();
        }
        clients.push(tcp);
    }
    let started = Instant::now();
    for tcp in &mut clients {
        until_closed(tcp).await;
    }
    let elapsed = started.elapsed();
    assert!((5.0..20.0).contains(&elapsed.as_secs_f64()), "{elapsed:?}");
    wait_until("all are counted", LIMIT, || failures() == before + CLIENTS as f64);
    steady.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_after_its_time() {
    let before = closed(bridge(), "idle");
    let steady = Steady::start(bridge(), "idle");
    let mut unused = bridge().sender(Http::One).connect().await.unwrap();
    let mut used = bridge().sender(Http::One).connect().await.unwrap();
    let body = journey("before it is idle");
    used.write_all(format!("{}{body}", head("/", body.len())).as_bytes()).await.unwrap();
    let (first, second) = tokio::join!(until_closed(&mut unused), until_closed(&mut used));
    for elapsed in [first, second] {
        assert!(elapsed >= IDLE_MAX && elapsed < IDLE_MAX * 3, "{elapsed:?}");
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
    let sender = Arc::new(bridge.sender(Http::One));
    let mut idle = Vec::new();
    for _ in 0..60 {
        let opened = (0..50).map(|number| {
            let sender = Arc::clone(&sender);
            tokio::spawn(async move {
                match number % 2 {
                    // Without a handshake, too.
                    0 => TcpStream::connect(bridge.ingress).await.ok().map(|tcp| (Some(tcp), None)),
                    _ => sender.connect().await.ok().map(|tls| (None, Some(tls))),
                }
            })
        });
        for connection in opened.collect::<Vec<_>>() {
            idle.extend(connection.await.unwrap());
        }
        assert!(bridge.metric("causeway_connections", &[]) <= MAX as f64 + 5.0);
    }
    assert!(idle.len() > 2 * MAX, "{} were opened", idle.len());
    assert!(bridge.metric("causeway_connections_evicted_total", &[]) >= (idle.len() - MAX) as f64 - 100.0);
    steady.assert_undisturbed().await;
}
