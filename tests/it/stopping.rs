//! How the bridge starts and stops: what it waits for, what it finishes, what it says.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value as Json;
use tokio::{
    net::{TcpSocket, TcpStream as TokioStream},
    task::JoinSet,
};

use crate::{
    attacks::frames::{self, END_HEADERS, HEADERS, frame},
    outage::{self, post, wait_held},
    sending::{BOTH, Load, Raw, assert_all_there, assert_refused, copies, head, journey},
    support::{
        self,
        bridge::{Bridge, Setup},
        client::{Answer, Http, TlsStream},
        kafka::Kafka,
        process::{Child, Signal},
        scratch,
        stopwatch::{self, Stopwatch},
        wait_until,
    },
};

/// Starts a bridge on ports known before, and waits no longer than until it answers on its admin port.
fn launch(setup: Setup) -> Bridge {
    let address = || SocketAddr::from(([127, 0, 0, 1], scratch::port()));
    let (ingress, admin) = (address(), address());
    let setup = setup.set("ingress.listen", &ingress.to_string()).set("admin.listen", &admin.to_string());
    let mut child = Child::spawn("causeway", &setup.command(&["serve"]), &setup.dir);
    child.wait_ready(|| TcpStream::connect(admin).is_ok());
    Bridge { setup, child, ingress, admin }
}

/// Waits until the bridge says that it is not ready because of `why`.
fn wait_unready(bridge: &Bridge, why: &str) {
    let mut last = String::new();
    wait_until(why, || {
        let (status, text) = bridge.get("/readyz");
        last = text;
        let answer: Json = serde_json::from_str(&last).unwrap();
        status == 503
            && answer["ready"] == Json::Bool(false)
            && answer["waiting_for"].as_array().unwrap().iter().any(|it| it.as_str().unwrap().contains(why))
    });
}

fn wait_ready(bridge: &Bridge) {
    wait_until("the bridge is ready", || bridge.get("/readyz").0 == 200);
}

fn says_close(answer: &Answer) -> bool {
    answer.headers.get("connection").is_some_and(|value| value == "close")
}

/// What a start that fails writes on standard error; its exit code is 3.
fn refused_start(setup: &Setup) -> String {
    let mut child = Child::spawn("causeway", &setup.command(&["serve"]), &setup.dir);
    let status = child.wait();
    assert_eq!(status.code(), Some(3), "{}", child.tail());
    child.stderr()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_held_requests_finish() {
    let kafka = outage::kafka();
    let mut bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "30000").start();
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    post(&mut posts, bridge.sender(Http::One), journey("one"));
    post(&mut posts, bridge.sender(Http::Two), journey("two"));
    wait_held(&bridge, 2.0);
    bridge.child.signal(Signal::Terminate);
    wait_unready(&bridge, "stopping");
    assert_eq!(bridge.get("/livez").0, 200);
    wait_until("new connections are refused", || TcpStream::connect(bridge.ingress).is_err());
    assert_eq!(bridge.metric("causeway_in_flight_requests", &[]), 2.0);
    kafka.brokers()[0].resume();
    let answers: Vec<_> = posts.join_all().await.into_iter().map(|(answer, _)| answer).collect();
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert!(answers.iter().any(says_close), "over HTTP/1.1: {answers:?}");
    assert_eq!(bridge.child.wait().code(), Some(0));
    assert_eq!(copies(&kafka, &bridge, "journey").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_does_not_wait_for_connections_without_a_request() {
    let mut bridge = Setup::new(support::kafka(), None).set("sender.timeout_ms", "60000").start();
    let (one, two) = (bridge.sender(Http::One), bridge.sender(Http::Two));
    // Both are kept after an answer; two more have not sent a request, not even a handshake.
    for sender in [&one, &two] {
        assert_eq!(sender.post("/", &[], journey("before")).await.unwrap().status, 200);
    }
    let fresh = Raw::open(&one).await;
    let mute = TcpStream::connect(bridge.ingress).unwrap();
    let told = Stopwatch::start();
    bridge.child.signal(Signal::Terminate);
    assert_eq!(bridge.child.wait().code(), Some(0));
    told.assert_within(Duration::from_secs(10));
    drop((fresh, mute));
}

/// Senders that have no request under way: over HTTP/1.1 one that rests, one that has not sent any yet and one that has not even
/// begun its handshake, over HTTP/2 the last two.
struct Quiet {
    rests: Raw,
    fresh: Raw,
    fresh_two: TlsStream,
    mute: Vec<(Http, TokioStream)>,
}

impl Quiet {
    async fn open(bridge: &Bridge) -> Self {
        let one = bridge.sender(Http::One);
        let (mut rests, fresh) = (Raw::open(&one).await, Raw::open(&one).await);
        rests.post("/", &journey("before")).await;
        assert_eq!(rests.answer().await.unwrap().status, 200);
        let fresh_two = bridge.sender(Http::Two).connect().await.unwrap();
        let mut mute = Vec::new();
        for http in BOTH {
            mute.push((http, TokioStream::connect(bridge.ingress).await.unwrap()));
        }
        wait_until("they are there", || bridge.metric("causeway_connections", &[]) == 5.0);
        Self { rests, fresh, fresh_two, mute }
    }

    /// Posts one event on each; gives back their ids with what was answered.
    async fn post(self, bridge: &Bridge) -> Vec<(&'static str, Option<Answer>)> {
        let Self { mut rests, mut fresh, fresh_two, mut mute } = self;
        rests.post("/", &journey("rests")).await;
        fresh.post("/", &journey("fresh")).await;
        let fresh_two = tokio::spawn(post_once(fresh_two, "fresh_two"));
        let (two, one) = (mute.pop().unwrap(), mute.pop().unwrap());
        let two = bridge.sender(two.0).shake_hands(two.1).await;
        let two = two.map(|stream| tokio::spawn(post_once(stream, "mute_two")));
        let one = bridge.sender(one.0).shake_hands(one.1).await.map(Raw::over);
        let mut answers = vec![("rests", rests.answer().await), ("fresh", fresh.answer().await)];
        let mute = match one {
            Ok(mut one) => {
                one.post("/", &journey("mute")).await;
                one.answer().await
            }
            Err(_) => None,
        };
        let mute_two = match two {
            Ok(two) => two.await.unwrap(),
            Err(_) => None,
        };
        answers.extend([("mute", mute), ("fresh_two", fresh_two.await.unwrap()), ("mute_two", mute_two)]);
        answers
    }
}

/// Posts an event over HTTP/2; none where the server does not take it.
async fn post_once(stream: TlsStream, id: &'static str) -> Option<Answer> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::post("https://localhost/").body(Full::new(Bytes::from(journey(id)))).unwrap();
    let (head, body) = sender.send_request(request).await.ok()?.into_parts();
    let body = serde_json::from_slice(&body.collect().await.ok()?.to_bytes()).unwrap();
    drop(sender);
    let _ = connection.await;
    Some(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

/// The request was on the wire when the drain began: who sent it knows nothing of that (RFC 9112, section 9.6).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_in_the_first_second_of_a_drain_is_answered() {
    let kafka = support::kafka();
    loop {
        let mut bridge = Setup::new(kafka, None).set("sender.timeout_ms", "60000").start();
        let quiet = Quiet::open(&bridge).await;
        bridge.child.signal(Signal::Terminate);
        let told = Instant::now();
        wait_until("new connections are refused", || TcpStream::connect(bridge.ingress).is_err());
        let answers = quiet.post(&bridge).await;
        let took = told.elapsed();
        assert_eq!(bridge.child.wait().code(), Some(0), "{}", bridge.child.tail());
        // All have come in that second, or this machine was too slow to ask for it: then once more.
        if took < Duration::from_secs(1) {
            let stored = copies(kafka, &bridge, "journey");
            for (id, answer) in answers {
                let answer = answer.unwrap_or_else(|| panic!("{id} was not answered"));
                assert_eq!(answer.status, 200, "{id}: {answer:?}");
                assert_eq!(says_close(&answer), !id.ends_with("two"), "{id}: {answer:?}");
                assert_eq!(stored[id], 1);
            }
            return;
        }
    }
}

/// Behind a balancer of layer 4 an instance that is added gets nothing otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_old_is_closed_with_an_answer_and_no_event_is_lost() {
    let kafka = support::kafka();
    let bridge = Setup::new(kafka, None).set("sender.timeout_ms", "60000").set("ingress.age_ms_max", "2000").start();
    let aged = || bridge.metric("causeway_connections_closed_total", &["reason=\"age\""]);
    let mut rests = Raw::open(&bridge.sender(Http::One)).await;
    rests.post("/", &journey("rests-1")).await;
    assert!(!says_close(&rests.answer().await.unwrap()));
    let load = Load::start(&bridge, 4, false);
    wait_until("all have come to their age", || aged() >= 5.0);
    // It is not cut: who sends on it at that moment knows nothing.
    rests.post("/", &journey("rests-2")).await;
    let last = rests.answer().await.expect("an answer");
    assert!(last.status == 200 && says_close(&last), "{last:?}");
    assert!(rests.answer().await.is_none());
    wait_until("they go on with other connections", || aged() >= 9.0);
    let posted = load.stop().await;
    assert!(posted.others.is_empty(), "{:?}", posted.others);
    // The two over HTTP/2 may have begun a request when they were told: that was not taken, and is theirs to send again.
    assert!(posted.errors <= 2, "{}", posted.errors);
    assert_all_there(kafka, &bridge, &posted);
}

/// Clients that do not close when they are told to: one over HTTP/2 that reads nothing, one that never begins to speak it, and
/// one that sends the begin of a head.
async fn deaf(bridge: &Bridge) -> impl Sized + use<> {
    let unread = frames::open(bridge, &[]).await;
    let unspoken = bridge.sender(Http::Two).connect().await.unwrap();
    let mut half = Raw::open(&bridge.sender(Http::One)).await;
    half.write("POST / HT").await;
    (unread, unspoken, half)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_cuts_who_does_not_close_and_lets_held_requests_finish() {
    let kafka = outage::kafka();
    let mut bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "60000").start();
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    post(&mut posts, bridge.sender(Http::One), journey("one"));
    post(&mut posts, bridge.sender(Http::Two), journey("two"));
    wait_held(&bridge, 2.0);
    let deaf = deaf(&bridge).await;
    wait_until("they are there", || bridge.metric("causeway_connections", &[]) == 5.0);
    let told = Stopwatch::start();
    bridge.child.signal(Signal::Terminate);
    wait_until("they are cut", || bridge.metric("causeway_connections", &[]) == 2.0);
    kafka.brokers()[0].resume();
    let answers: Vec<_> = posts.join_all().await.into_iter().map(|(answer, _)| answer.status).collect();
    assert_eq!(answers, [200, 200]);
    assert_eq!(bridge.child.wait().code(), Some(0));
    told.assert_within(Duration::from_secs(20));
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_takes_no_longer_than_the_drain_for_a_request_without_an_end() {
    let drain = Duration::from_millis(4100);
    let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "4000");
    let mut bridge = setup.set("ingress.drain_ms_max", "4100").start();
    // Its body never comes, and its answer is never read.
    let (mut writer, reader) = frames::open(&bridge, &[(4, 0)]).await;
    assert!(writer.write(&frame(HEADERS, END_HEADERS, 1, &frames::post())).await);
    wait_until("it is held", || bridge.metric("causeway_requests_received_total", &[]) == 1.0);
    bridge.child.signal(Signal::Terminate);
    let told = Stopwatch::start();
    assert_eq!(bridge.child.wait().code(), Some(0));
    told.assert_within(drain + Duration::from_millis(1500));
    drop((writer, reader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_the_drain() {
    let kafka = outage::kafka();
    let mut bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "60000").start();
    kafka.brokers()[0].pause();
    let sender = bridge.sender(Http::One);
    let held = tokio::spawn(async move { sender.post("/", &[], journey("held")).await });
    wait_held(&bridge, 1.0);
    bridge.child.signal(Signal::Terminate);
    wait_unready(&bridge, "stopping");
    let told = Stopwatch::start();
    bridge.child.signal(Signal::Terminate);
    assert_eq!(bridge.child.wait().code(), Some(1));
    told.assert_within(Duration::from_secs(10));
    assert!(held.await.unwrap().is_err(), "nothing but a commit is answered 200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_answers_200_only_and_loses_nothing() {
    let kafka = support::kafka();
    let mut bridge = Setup::new(kafka, None).set("sender.timeout_ms", "30000").start();
    let load = Load::start(&bridge, 8, false);
    wait_until("the load is on", || load.acked() >= 200);
    bridge.child.signal(Signal::Terminate);
    let posted = load.ended().await;
    assert!(posted.others.is_empty(), "{:?}", posted.others);
    assert_eq!(bridge.child.wait().code(), Some(0), "{}", bridge.child.tail());
    assert_all_there(kafka, &bridge, &posted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_under_load_loses_nothing_that_was_answered_200() {
    let kafka = support::kafka();
    let mut bridge = Setup::new(kafka, None).set("sender.timeout_ms", "30000").start();
    let load = Load::start(&bridge, 8, false);
    wait_until("the load is on", || load.acked() >= 200);
    bridge.child.signal(Signal::Kill);
    let posted = load.ended().await;
    bridge.child.wait();
    assert!(posted.others.is_empty(), "{:?}", posted.others);
    assert_all_there(kafka, &bridge, &posted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_while_kafka_stays_away_answers_503_and_says_so_by_its_exit_code() {
    let kafka = outage::kafka();
    for _ in 0..20 {
        if stopped_while_kafka_stays_away(&kafka).await {
            return;
        }
    }
    panic!("heads are always cut off");
}

/// False where this machine was too slow to ask for it: a head that is not whole a second after SIGTERM is cut off.
async fn stopped_while_kafka_stays_away(kafka: &Kafka) -> bool {
    // A drain is never shorter than D and 500 ms before its end, when what is still held is cut off: that is what came
    // after its begin.
    // A body has 10 s at most: that must not come first.
    let timeout = Duration::from_secs(stopwatch::lately(Duration::from_secs(4)).as_secs().min(10));
    let deadline = timeout * 9 / 10;
    let drain = deadline + Duration::from_millis(500);
    let mut bridge = Setup::new(kafka, None)
        .set("sender.timeout_ms", &timeout.as_millis().to_string())
        .set("ingress.drain_ms_max", &drain.as_millis().to_string())
        .start();
    let (one, two) = (bridge.sender(Http::One), bridge.sender(Http::Two));
    // They are in the middle of their first heads, so that they are not closed as idle.
    let (mut late, mut half) = (Raw::open(&one).await, Raw::open(&one).await);
    let opened = Instant::now();
    let body = journey("late");
    let head = head("/", body.len());
    let (begin, rest) = head.split_at(20);
    late.write(begin).await;
    half.write(begin).await;
    // Once a connection has had an answer, a request's time begins with its head.
    for sender in [&one, &two] {
        assert_eq!(sender.post("/", &[], journey("before")).await.unwrap().status, 200);
    }
    // A connection that is older than D/2 when its first head is there was not opened for it: its time begins with its head.
    tokio::time::sleep_until((opened + deadline / 2 - Duration::from_millis(200)).into()).await;
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    post(&mut posts, one, journey("one"));
    post(&mut posts, two, journey("two"));
    wait_held(&bridge, 2.0);
    bridge.child.signal(Signal::Terminate);
    let (told, watch) = (Instant::now(), Stopwatch::start());
    wait_unready(&bridge, "drain");
    tokio::time::sleep_until((told + Duration::from_millis(300)).into()).await;
    late.write(format!("{rest}{body}")).await;
    half.write(format!("{rest}{}", &body[..10])).await;
    let taken = || bridge.metric("causeway_requests_received_total", &[]) == 6.0;
    wait_until("the heads are taken or cut off", || taken() || bridge.metric("causeway_connections", &[]) <= 2.0);
    if !taken() {
        bridge.child.wait();
        kafka.brokers()[0].resume();
        return false;
    }
    let answers: Vec<_> = posts.join_all().await.into_iter().map(|(answer, _)| answer).collect();
    for answer in &answers {
        // They came just before: on a slow machine the cut-off may be as soon as their own deadline.
        let code = if answer.body["code"] == "stopping" { "stopping" } else { "no_commit_in_time" };
        assert_refused(answer, 503, code);
    }
    assert!(answers.iter().any(says_close), "over HTTP/1.1: {answers:?}");
    for raw in [&mut late, &mut half] {
        let answer = raw.answer().await.unwrap();
        assert_refused(&answer, 503, "stopping");
        assert!(says_close(&answer), "{answer:?}");
    }
    assert_eq!(bridge.metric("causeway_refused_total", &["feed=\"unknown\"", "stopping"]), 1.0);
    watch.assert_within(drain + Duration::from_secs(1));
    assert_eq!(bridge.child.wait().code(), Some(4));
    watch.assert_within(drain + Duration::from_secs(5));
    assert!(bridge.child.stderr().contains("\"given_up\":3"), "{}", bridge.child.tail());
    kafka.brokers()[0].resume();
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_another_one_takes_before_the_bridge_is_ready_is_named() {
    let kafka = outage::kafka();
    kafka.brokers()[0].kill();
    let mut bridge = launch(Setup::new(&kafka, None));
    // Bound, and nobody listens yet.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(bridge.ingress).unwrap();
    let _listener = socket.listen(1).unwrap();
    kafka.brokers()[0].start();
    kafka.wait_ready();
    assert_eq!(bridge.child.wait().code(), Some(3));
    let log = bridge.child.stderr();
    assert!(log.contains("ingress.listen = ") && log.contains("choose another address with --listen"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_that_starts_before_kafka_is_alive_and_says_what_it_waits_for() {
    let kafka = outage::kafka();
    kafka.brokers()[0].kill();
    let bridge = launch(Setup::new(&kafka, None).set("sender.timeout_ms", "5000"));
    wait_unready(&bridge, &format!("topics: no answer from {}", kafka.bootstrap()));
    assert_eq!(bridge.get("/livez").0, 200);
    assert_eq!(bridge.metric("causeway_ready", &[]), 0.0);
    assert!(TcpStream::connect(bridge.ingress).is_err(), "nobody is let in who could not be served");
    kafka.brokers()[0].start();
    kafka.wait_ready();
    wait_ready(&bridge);
    assert_eq!(bridge.metric("causeway_ready", &[]), 1.0);
    assert_eq!(bridge.sender(Http::One).post("/", &[], journey("first")).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_is_named_until_it_is_there() {
    let kafka = support::kafka();
    let bridge = launch(Setup::new(kafka, None).set("kafka.create_topics", "false"));
    let feeds = ["activity", "journey", "queue", "other", "dead-letter"];
    for feed in feeds {
        let topic = bridge.topic(feed);
        wait_unready(&bridge, &format!("{topic} ("));
        wait_unready(&bridge, "causeway topics --apply");
        kafka.create_topic(&topic, 1, &[]);
    }
    wait_ready(&bridge);
    assert_eq!(bridge.sender(Http::One).post("/", &[], journey("first")).await.unwrap().status, 200);
}

#[test]
fn a_bridge_that_is_not_ready_stops_when_it_is_told() {
    let setup = Setup::new(support::kafka(), None);
    let nobody = format!("127.0.0.1:{}", scratch::port());
    let mut bridge = launch(setup.set("kafka.brokers", &nobody));
    wait_unready(&bridge, "no answer");
    let told = Stopwatch::start();
    bridge.child.signal(Signal::Terminate);
    assert_eq!(bridge.child.wait().code(), Some(0));
    told.assert_within(Duration::from_secs(10));
}

#[test]
fn a_wrong_configuration_is_refused_with_every_error_named() {
    let setup = Setup::new(support::kafka(), None)
        .set("sender.timeout_ms", "100")
        .set("ingress.listen", "localhost:1")
        .set("ingress.tls.client_names", "sender")
        .set("kafka.client", "x")
        .toml("[ingress]\nlistn = 'x'\n[kafka.client]\nacks = '1'\n'linger.ms' = 'soon'");
    let errors = refused_start(&setup);
    for part in [
        "sender.timeout_ms is 100",
        "ingress.listen is",
        "client_names holds",
        "ingress.listn is not a key",
        "acks",
        "linger.ms",
    ] {
        assert!(errors.contains(part), "{part} is not in:\n{errors}");
    }
}

#[test]
fn unusable_certificate_files_are_all_named() {
    let setup = Setup::new(support::kafka(), None);
    for file in ["server.crt", "server.key", "ca.crt"] {
        std::fs::write(setup.dir.join(file), "not PEM").unwrap();
    }
    let setup = setup.set("ingress.tls.crl", "no-such.crl");
    let errors = refused_start(&setup);
    for key in ["ingress.tls.certificate", "ingress.tls.private_key", "ingress.tls.client_ca", "ingress.tls.crl"] {
        assert!(errors.contains(key), "{key} is not in:\n{errors}");
    }
}

#[test]
fn a_taken_port_is_named_with_its_flag() {
    let taken = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [ingress, admin] = taken.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
    let setup = Setup::new(support::kafka(), None).set("ingress.listen", &ingress).set("admin.listen", &admin);
    let errors = refused_start(&setup);
    for part in ["--listen", "--admin-listen", &ingress, &admin] {
        assert!(errors.contains(part), "{part} is not in:\n{errors}");
    }
}

#[test]
fn a_topic_that_takes_less_than_the_producer_sends_is_refused() {
    let kafka = support::kafka();
    let setup = Setup::new(kafka, None);
    kafka.create_topic(&setup.topic("queue"), 1, &[("max.message.bytes", "500000")]);
    let errors = refused_start(&setup);
    assert!(errors.contains(&setup.topic("queue")) && errors.contains("max.message.bytes"), "{errors}");
}
