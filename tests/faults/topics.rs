//! What is done to the cluster by its own tools: topics, partitions, limits, rights, quotas.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};

use crate::{
    brokers::{hasty, held_and_200, patient},
    event::{Event, Feed},
    load::{Fate, Plan, Reply, block_on, deliver},
    rig::{Case, Rig, Trial},
    support::{bridge::Setup, client::Http, kafka::Kafka, proxy::runtime, starting::Starting, wait_until},
    verdict::{Copies, Expect, Kind, Outcome, Violation},
};

/// Takes longer than any other.
pub fn longest() -> Case {
    Case::slow("epochs_are_used_up", epochs_used_up)
}

pub fn cases() -> Vec<Case> {
    vec![
        Case::slow("row_14_a_quota_throttles", quota),
        Case::fast("row_15_a_topic_is_missing_at_the_start", missing_at_start),
        Case::slow("row_16_a_topic_is_deleted_and_made_again", deleted),
        Case::slow("row_17_partitions_are_added", partitions_added),
        Case::slow("row_18_permission_for_one_topic_is_revoked_and_given_again", permission_revoked),
        Case::fast("row_20_a_record_larger_than_its_topic_allows", too_large),
        Case::fast("row_30_the_dead_letter_topic_is_unavailable", no_dead_letters),
        Case::fast("row_31_unknown_member_event_type_and_feed", unknown),
    ]
}

const CONFIG_TOOL: &str = "kafka.admin.ConfigCommand";

fn quota(trial: &Trial) -> Outcome {
    let plan = Plan { padding: 2000, ..hasty() };
    let rig = trial.rig(plan, &[]);
    let load = rig.load();
    let all_clients = ["--entity-type", "clients", "--entity-default", "--alter"];
    let set = [&all_clients[..], &["--add-config", "producer_byte_rate=8000"]].concat();
    rig.kafka.tool(CONFIG_TOOL, &set);
    let since = Instant::now();
    load.wait_reply("an attempt is throttled past its deadline", since, |reply| {
        matches!(reply, Reply::Refused(503, _))
    });
    sleep(Duration::from_secs(5));
    rig.kafka.tool(CONFIG_TOOL, &[&all_clients[..], &["--delete-config", "producer_byte_rate"]].concat());
    let healed = Instant::now();
    let expect = Expect::held().healed(healed);
    rig.verdict(load, &expect)
}

fn missing_at_start(trial: &Trial) -> Outcome {
    let kafka = crate::rig::cluster();
    let plan = patient();
    let setup = trial.setup(&kafka, &plan).set("kafka.create_topics", "false");
    let mut waiting = Starting::new(setup);
    for feed in Feed::ALL {
        let topic = waiting.setup.topic(feed.label());
        waiting.waits_for(&format!("{topic} ("));
        kafka.create_topic(&topic, 3, &[]);
    }
    let rig = Rig { bridge: waiting.ready(), kafka, plan };
    let fates = rig.deliver(&rig.bridge.sender(Http::Two), crate::sender::events(10));
    rig.judge(&fates, &Expect::all_200(), Vec::new(), |_, _| Vec::new())
}

/// Only the deleted topic's events wait.
fn others_all_200(fates: &[Fate], feed: Feed) -> Vec<Violation> {
    let others = fates.iter().filter(|fate| fate.event.feed != feed);
    let failed = others.filter(|fate| !matches!(fate.attempts[0].reply, Reply::Acked(_)));
    failed.map(|fate| Violation::of_fate(fate, "not 200 at first")).collect()
}

fn deleted(trial: &Trial) -> Outcome {
    let rig = trial.rig(hasty(), &[]);
    let load = rig.load();
    let topic = rig.topic(Feed::Queue);
    let since = Instant::now();
    rig.kafka.delete_topic(&topic);
    load.wait_reply("an attempt is answered 503", since, |reply| matches!(reply, Reply::Refused(503, _)));
    rig.kafka.create_topic(&topic, 3, &[]);
    let healed = Instant::now();
    let expect = Expect { deleted: Some((Feed::Queue, healed)), ..Expect::held().healed(healed) };
    rig.verdict_with(load, &expect, |_, fates| others_all_200(fates, Feed::Queue))
}

/// Keys move to other partitions: across the change their records have no order.
fn partitions_added(trial: &Trial) -> Outcome {
    let rig = trial.rig(Plan::default(), &[]);
    let load = rig.load();
    let topic = rig.topic(Feed::Journey);
    rig.kafka.add_partitions(&topic, 6);
    wait_until("a new partition is written to", || rig.kafka.end_offsets(&topic)[3..].iter().any(|end| *end > 0));
    let healed = Instant::now();
    let expect = Expect { partitions: vec![3, 6], order: false, ..Expect::all_200().healed(healed) };
    rig.verdict(load, &expect)
}

/// A table `[kafka.client]`.
pub fn client(properties: &[(&str, String)]) -> String {
    let lines = properties.iter().map(|(name, value)| format!("\"{name}\" = {}\n", json!(value)));
    format!("[kafka.client]\n{}", lines.collect::<String>())
}

/// The bridge comes as a user with a password.
pub fn as_user(setup: Setup, kafka: &Kafka) -> Setup {
    let security = kafka.security();
    let toml = client(&security.sasl_plaintext("SCRAM-SHA-256"));
    setup.set("kafka.brokers", &security.sasl_plaintext_bootstrap()).toml(&toml)
}

fn permission_revoked(trial: &Trial) -> Outcome {
    let kafka = crate::rig::cluster();
    let bridge = as_user(trial.setup(&kafka, &hasty()), &kafka).start();
    let rig = Rig { bridge, kafka, plan: hasty() };
    let load = rig.load();
    let topic = rig.topic(Feed::Queue);
    let denied = ["--deny-principal", "User:causeway", "--operation", "Write", "--topic", &topic];
    let tool = "org.apache.kafka.tools.AclCommand";
    rig.kafka.tool(tool, &[&["--add"], &denied[..]].concat());
    let since = Instant::now();
    load.wait_reply("an attempt is answered 503", since, |reply| matches!(reply, Reply::Refused(503, _)));
    sleep(Duration::from_secs(3));
    rig.kafka.tool(tool, &[&["--remove", "--force"], &denied[..]].concat());
    let healed = Instant::now();
    let expect = Expect::held().healed(healed);
    rig.verdict_with(load, &expect, |_, fates| others_all_200(fates, Feed::Queue))
}

/// What a topic refuses is in the dead letters, with the key that it had.
fn too_large(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    rig.kafka.alter_topic_config(&rig.topic(Feed::Journey), &[("max.message.bytes", "10000")]);
    let load = rig.load();
    let large = (0..4).map(|number| {
        let event = Event::new(u32::MAX, number, Feed::Journey, 4, 50_000);
        Event { number: usize::MAX - number, feed: Feed::DeadLetter, ..event }
    });
    let large = rig.deliver(&rig.bridge.sender(Http::Two), large);
    load.wait_seconds(1);
    let fates = [load.stop(), large].concat();
    rig.judge(&fates, &held_and_200(), Vec::new(), |bridge, _| {
        match bridge.metric("causeway_dead_letters_total", &["feed=\"journey\"", "stage=\"PRODUCE\""]) {
            4.0 => Vec::new(),
            other => vec![Violation::new(Kind::WrongMetric, format!("{other} dead letters of PRODUCE"))],
        }
    })
}

/// Each refused batch costs its producer an epoch, of which there are 32,767; with the next one they begin again, and the broker
/// takes none of them any more. Of three of these events one is such a batch at least: a producer is replaced.
fn epochs_used_up(trial: &Trial) -> Outcome {
    const WORKERS: usize = 32;
    const REFUSED: usize = 33_000;
    let rig = trial.rig(patient(), &[]);
    rig.kafka.alter_topic_config(&rig.topic(Feed::Journey), &[("max.message.bytes", "4000")]);
    let refused = (0..WORKERS).map(|worker| {
        let (sender, plan) = (rig.bridge.sender(Http::Two), rig.plan.clone());
        runtime().spawn(async move {
            let mut fates = Vec::new();
            for number in (worker..REFUSED).step_by(WORKERS) {
                // Of one key, and so of one partition: brokers side by side would share an epoch.
                let event = Event::new(u32::MAX, number, Feed::Journey, 1, 8000);
                let event = Event { number: usize::MAX - number, feed: Feed::DeadLetter, ..event };
                fates.push(deliver(&sender, event, &plan, |_| ()).await);
            }
            fates
        })
    });
    let refused: Vec<_> = refused.collect();
    let mut fates = refused.into_iter().flat_map(|worker| block_on(worker).unwrap()).collect::<Vec<_>>();
    let (committed, load) = (rig.bridge.metric("causeway_committed_total", &[]), rig.load());
    load.wait_seconds(2);
    fates.extend(load.stop());
    let expect = Expect { order: false, ..held_and_200() };
    rig.judge(&fates, &expect, Vec::new(), |bridge, fates| {
        let journey = fates.iter().filter(|fate| fate.event.feed == Feed::Journey).count();
        let labels = ["feed=\"journey\"", "reason=\"epochs_used_up\""];
        let replaced = bridge.metric("causeway_producer_replaced_total", &labels);
        if committed == 0.0 && journey > 20 && replaced > 0.0 {
            return Vec::new();
        }
        vec![Violation::new(
            Kind::Other,
            format!("{committed} were not refused, {journey} came after, {replaced} replaced"),
        )]
    })
}

/// Its records are held; those of the feeds are not.
fn no_dead_letters(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let load = rig.load();
    let topic = rig.topic(Feed::DeadLetter);
    rig.kafka.delete_topic(&topic);
    let gone = Instant::now();
    let reported = || {
        let committed = rig.bridge.metric("causeway_dead_letters_total", &[]);
        committed + rig.bridge.metric("causeway_redelivered_total", &[])
    };
    // librdkafka calls a topic unknown 5 s after it has gone at the earliest. A bridge that takes its word for a commit has
    // then answered 200 for most of what came since.
    let enough = reported() + f64::from(load.plan.rate) / 2.0;
    wait_until("dead letters have failed", || reported() >= enough);
    rig.kafka.create_topic(&topic, 3, &[]);
    let healed = Instant::now();
    // What was committed before went with the topic.
    let expect = Expect { deleted: Some((Feed::DeadLetter, gone)), ..held_and_200().healed(healed) };
    rig.verdict(load, &expect)
}

fn unknown(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let event = |number: usize, feed: Feed, members: Json| {
        let name = if feed == Feed::Other { "com.asapp.event.nobody_knows" } else { "com.asapp.event.journey" };
        let mut event = json!({
            "api_version": "v2.0.0", "name": name, "event_id": format!("unknown-{number}"), "event_type": "NEVER_SEEN",
            "meta_data": {"issue_id": "key"},
        });
        event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        Event::of(number, feed, Some("key".to_owned()), event.to_string())
    };
    let events = [
        event(0, Feed::Journey, json!({"nobody": {"knows": [1, 2.5, "x", null]}})),
        event(1, Feed::Journey, json!({})),
        event(2, Feed::Other, json!({"data": {"of": "a feed of next year"}})),
    ];
    let fates = rig.deliver(&rig.bridge.sender(Http::One), events);
    rig.judge(&fates, &Expect::all_200().copies(Copies::One), Vec::new(), |bridge, _| {
        match bridge.metric("causeway_unknown_members_total", &["feed=\"journey\""]) {
            1.0 => Vec::new(),
            other => vec![Violation::new(Kind::WrongMetric, format!("{other} unknown members"))],
        }
    })
}
