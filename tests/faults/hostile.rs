//! Who may not send, certificates that change, and clients that mean harm; each beside a load that notices nothing of it.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    attacks,
    event::{Event, Feed},
    load::{Attempt, Fate, Load, Plan, Reply, attempt, block_on, reply},
    rig::{Case, Rig, Trial},
    sending::{BOTH, Parts, Raw, post_parts},
    support::{
        HANG,
        bridge::{Bridge, SENDER},
        certs::{Authority, ClientOptions, Identity},
        client::{Http, Sender},
        stopwatch, wait_until,
    },
    verdict::{Expect, Outcome},
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::fast("row_24_client_gone_in_the_middle_of_its_body", gone_in_its_body),
        Case::fast("row_27_slow_heads_and_slow_bodies", slow),
        Case::fast("row_28_body_over_the_limit", body_over_the_limit),
        Case::fast("row_33_no_good_certificate", no_good_certificate),
        Case::fast("row_34_certificate_not_on_the_allow_list", not_on_the_allow_list),
        Case::fast("row_35_certificates_change_under_load", certificates_change),
        Case::fast("row_36_changed_certificates_are_broken", certificates_break),
        Case::fast("row_37_floods_and_smuggling", floods),
        Case::slow("row_37_ten_thousand_idle_connections", idle_connections),
    ]
}

const HEAD_MAX: Duration = Duration::from_secs(1);

/// Bytes of a body over the limit that its stub has.
const STUB_BYTES: usize = 16 * 1024;

/// What the cases post beside the load.
fn event(number: usize, feed: Feed, padding: usize) -> Event {
    Event::new(u32::MAX, number, feed, 10, padding)
}

/// The load's verdict; what the case has posted beside it is judged with it.
fn verdict(rig: Rig, load: Load, beside: Vec<Fate>, expect: &Expect) -> Outcome {
    let mut fates = load.stop();
    fates.extend(beside);
    rig.judge(&fates, expect, Vec::new(), |_, _| Vec::new())
}

/// So many partial bodies over each protocol, with and without a length.
fn gone_in_its_body(trial: &Trial) -> Outcome {
    const CLIENTS: usize = 20;
    let rig = trial.rig(Plan::default(), &[]);
    let load = rig.load();
    let open = rig.bridge.metric("causeway_connections", &[]);
    // Kept until the end: dropped while a connection of theirs is open, a body over HTTP/2 would come to its own.
    let _unended = block_on(async {
        let (mut posts, mut bodies) = (JoinSet::new(), Vec::new());
        for number in 0..CLIENTS {
            let http = BOTH[number % 2];
            let (sender, body) = (rig.bridge.sender(http), event(number, Feed::Journey, 100).body);
            // What has come is an event by itself; but more was announced, or its end was not.
            let length = (number % 4 < 2).then(|| (body.len() + 1).to_string());
            let (parts, source) = Parts::new();
            parts.send(body).await.unwrap();
            bodies.push(parts);
            posts.spawn(async move {
                let headers: Vec<_> = length.iter().map(|length| ("content-length", length.as_str())).collect();
                post_parts(sender, http, "/", &headers, source).await.map(drop)
            });
        }
        let connected = || rig.bridge.metric("causeway_connections", &[]) >= open + CLIENTS as f64;
        wait_until("all are connected", connected);
        load.wait_seconds(1);
        posts.shutdown().await;
        // The load may have opened a few more of its own meanwhile.
        wait_until("all are gone", || rig.bridge.metric("causeway_connections", &[]) < open + CLIENTS as f64 / 2.0);
        bodies
    });
    verdict(rig, load, Vec::new(), &Expect::all_200())
}

fn slow(trial: &Trial) -> Outcome {
    let plan = Plan { timeout: stopwatch::lately(Duration::from_secs(3)), ..Plan::default() };
    let rig = trial.rig(plan, &[("ingress.head_ms_max", "1000")]);
    let load = rig.load();
    block_on(async {
        tokio::join!(
            attacks::slow_heads(&rig.bridge, vec![None; 50], HEAD_MAX),
            attacks::half_heads(&rig.bridge, HEAD_MAX),
            attacks::slow_bodies(&rig.bridge, 50),
        )
    });
    verdict(rig, load, Vec::new(), &Expect::all_200())
}

fn body_over_the_limit(trial: &Trial) -> Outcome {
    let rig = trial.rig(Plan::default(), &[("ingress.body_bytes_max", "65536")]);
    let load = rig.load();
    let fates = block_on(async {
        let mut fates = Vec::new();
        for (number, http) in BOTH.into_iter().enumerate() {
            let body = event(number, Feed::Journey, 100_000).body;
            let whole = Event::of(number, Feed::DeadLetter, None, body.clone());
            let attempts = vec![attempt(&rig.bridge.sender(http), &whole, HANG).await];
            // What is kept of it: its first bytes, in the dead letters.
            fates.push(Fate { event: Event::of(number, Feed::DeadLetter, None, body.slice(..STUB_BYTES)), attempts });
        }
        fates
    });
    let expect = Expect::all_200().refusal((413, "body_too_large"));
    verdict(rig, load, fates, &expect).inspect(|summary| assert_eq!(summary.unacked_there, 2, "stubs"))
}

/// Each is refused in its handshake.
fn assert_shut_out(bridge: &Bridge, what: &str, identity: Option<&Identity>) {
    for http in BOTH {
        let sender = Sender::new(bridge.ingress, &bridge.setup.authority.pem(), identity, http);
        let found = block_on(attempt(&sender, &event(0, Feed::Journey, 100), HANG)).reply;
        assert!(matches!(found, Reply::Broken(_)), "{what} over {http:?}: {found:?}");
    }
}

fn no_good_certificate(trial: &Trial) -> Outcome {
    let rig = trial.rig_with(Plan::default(), |setup| {
        fs::write(setup.dir.join("crl.pem"), setup.authority.crl(&[])).unwrap();
        setup.set("ingress.tls.crl", "crl.pem")
    });
    let load = rig.load();
    let setup = &rig.bridge.setup;
    let elsewhere = Authority::new("Another CA").client(ClientOptions::dns(SENDER));
    let expired = setup.identity(ClientOptions::dns(SENDER).expired());
    let revoked = setup.identity(ClientOptions::dns(SENDER));
    // A session from before its certificate is revoked, and a connection.
    let sender = Sender::new(rig.bridge.ingress, &setup.authority.pem(), Some(&revoked), Http::One);
    let (before, after) = (event(0, Feed::Journey, 100), event(1, Feed::Journey, 100));
    let served = block_on(attempt(&sender, &before, HANG));
    let crl = setup.authority.crl(&[&revoked.serial]);
    change(&rig.bridge, "ok", |dir| fs::write(dir.join("crl.pem"), crl).unwrap());
    wait_until("its connection is closed", || {
        rig.bridge.metric("causeway_connections_closed_total", &["certificate"]) == 1.0
    });
    let shut_out = block_on(attempt(&sender, &after, HANG));
    for (what, identity) in
        [("none", None), ("of another CA", Some(&elsewhere)), ("expired", Some(&expired)), ("revoked", Some(&revoked))]
    {
        assert_shut_out(&rig.bridge, what, identity);
    }
    assert!(matches!(shut_out.reply, Reply::Broken(_)), "{shut_out:?}");
    let served = Fate { event: before, attempts: vec![served] };
    verdict(rig, load, vec![served], &Expect::all_200())
}

fn not_on_the_allow_list(trial: &Trial) -> Outcome {
    let rig = trial.rig(Plan::default(), &[]);
    let load = rig.load();
    let stranger = rig.bridge.setup.identity(ClientOptions::dns("other.example"));
    let fates = BOTH.into_iter().enumerate().map(|(number, http)| {
        let event = event(number, Feed::Journey, 100);
        let attempts = vec![block_on(attempt(&rig.bridge.sender_as(&stranger, http), &event, HANG))];
        Fate { event, attempts }
    });
    let fates: Vec<Fate> = fates.collect();
    let expect = Expect::all_200().refusal((403, "certificate_not_allowed"));
    verdict(rig, load, fates, &expect).inspect(|summary| assert_eq!(summary.unacked_there, 0))
}

/// Changes files, and waits until the bridge has looked at them.
fn change(bridge: &Bridge, result: &str, change: impl FnOnce(&Path)) {
    let reloads = || bridge.metric("causeway_tls_reloads_total", &[&format!("result=\"{result}\"")]);
    let before = reloads();
    change(&bridge.setup.dir);
    wait_until(&format!("the change is {result}"), || reloads() > before);
}

/// The load keeps its connections; a second one opens a connection for each event.
fn fresh_load(rig: &Rig) -> Load {
    let plan = Plan { rate: 5, senders: 2, ..rig.plan.clone() };
    Load::with(BOTH.map(|http| rig.bridge.sender(http).fresh()).into(), plan)
}

fn certificates_change(trial: &Trial) -> Outcome {
    let rig = trial.rig_with(Plan::default(), |setup| {
        fs::write(setup.dir.join("crl.pem"), setup.authority.crl(&[])).unwrap();
        setup.set("ingress.tls.crl", "crl.pem")
    });
    let (load, fresh) = (rig.load(), fresh_load(&rig));
    let authority = &rig.bridge.setup.authority;
    let next = Authority::new("The next CA");
    for _ in 0..3 {
        let server = authority.server(&["localhost"], [[127, 0, 0, 1]]);
        change(&rig.bridge, "ok", |dir| drop(server.write(dir, "server")));
        let revoked = rig.bridge.setup.identity(ClientOptions::dns(SENDER));
        change(&rig.bridge, "ok", |dir| fs::write(dir.join("crl.pem"), authority.crl(&[&revoked.serial])).unwrap());
        assert_shut_out(&rig.bridge, "revoked", Some(&revoked));
        load.wait_seconds(1);
    }
    change(&rig.bridge, "ok", |dir| fs::write(dir.join("ca.crt"), authority.pem() + &next.pem()).unwrap());
    let event = event(0, Feed::Journey, 100);
    let sender = rig.bridge.sender_as(&next.client(ClientOptions::dns(SENDER)), Http::Two);
    let of_the_next = Fate { attempts: vec![block_on(attempt(&sender, &event, HANG))], event };
    load.wait_seconds(1);
    let mut beside = fresh.stop();
    beside.push(of_the_next);
    verdict(rig, load, beside, &Expect::all_200())
}

fn certificates_break(trial: &Trial) -> Outcome {
    let rig = trial.rig(Plan::default(), &[]);
    let (load, fresh) = (rig.load(), fresh_load(&rig));
    let other = rig.bridge.setup.authority.server(&["localhost"], [[127, 0, 0, 1]]);
    let good =
        ["server.key", "server.crt", "ca.crt"].map(|name| (name, fs::read(rig.bridge.setup.dir.join(name)).unwrap()));
    for (name, text) in [("server.key", other.private_key.as_str()), ("server.crt", "no certificate"), ("ca.crt", "")] {
        change(&rig.bridge, "refused", |dir| fs::write(dir.join(name), text).unwrap());
        load.wait_seconds(1);
        let log = rig.bridge.child.stderr();
        assert!(log.lines().any(|line| line.contains("all the old ones stay") && line.contains(name)), "{name}");
    }
    change(&rig.bridge, "ok", |dir| {
        good.iter().for_each(|(name, text)| fs::write(dir.join(name), text).unwrap());
    });
    let beside = fresh.stop();
    verdict(rig, load, beside, &Expect::all_200())
}

fn floods(trial: &Trial) -> Outcome {
    let rig = trial.rig(Plan::default(), &[("ingress.head_ms_max", "1000")]);
    let load = rig.load();
    let events: Vec<Event> = (0..3).map(|number| event(number, Feed::Journey, 100)).collect();
    let bodies: Vec<&str> = events.iter().map(|event| std::str::from_utf8(&event.body).unwrap()).collect();
    let sent = Instant::now();
    let (taken, ..) = block_on(async {
        let half_open = attacks::half_open(&rig.bridge, 500).await;
        let idle = attacks::idle(&rig.bridge, 500).await;
        let done = tokio::join!(
            attacks::smuggling::taken_by_chunks(&rig.bridge, [bodies[0], bodies[1], bodies[2]]),
            attacks::smuggling::refused(&rig.bridge),
            attacks::rapid_reset(&rig.bridge, 10),
            attacks::continuation_flood(&rig.bridge),
            attacks::empty_data_flood(&rig.bridge),
        );
        drop((half_open, idle));
        done
    });
    let ended = Instant::now();
    let fates = events.into_iter().zip(taken).map(|(event, answer)| {
        let attempts = vec![Attempt { sent, ended, reply: reply(&answer), retry_after: None }];
        Fate { event, attempts }
    });
    let fates: Vec<Fate> = fates.collect();
    // The three were sent one after the other, and nobody wrote down when.
    verdict(rig, load, fates, &Expect { order: false, ..Expect::all_200() })
}

fn idle_connections(trial: &Trial) -> Outcome {
    const CLIENTS: usize = 10_000;
    let rig = trial.rig(Plan::default(), &[]);
    let load = rig.load();
    let opened = block_on(attacks::idle(&rig.bridge, CLIENTS));
    assert!(rig.bridge.metric("causeway_connections", &[]) >= CLIENTS as f64);
    load.wait_seconds(3);
    // They are there, and one of them has something to say after all.
    let event = event(0, Feed::Journey, 100);
    let mut raw = Raw::over(opened.into_iter().next_back().unwrap());
    let sent = Instant::now();
    block_on(raw.post("/", std::str::from_utf8(&event.body).unwrap()));
    let answer = block_on(raw.answer()).expect("an answer");
    let spoke = Attempt { sent, ended: Instant::now(), reply: reply(&answer), retry_after: None };
    // Each has its buffers: under 30 KB.
    let expect = Expect { memory_mb_max: 330, ..Expect::all_200() };
    verdict(rig, load, vec![Fate { event, attempts: vec![spoke] }], &expect)
}
