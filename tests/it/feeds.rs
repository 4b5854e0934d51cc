//! What the configuration makes of feeds: new ones, paths of their own, other topics and keys; and what it may not say.

use std::{fs, path::Path, process::Output};

use serde_json::{Value as Json, json};

use crate::{
    sending::noise,
    support::{
        self,
        avro::{Decoder, schema_id},
        bridge::{Bridge, Setup},
        client::Http,
        topics::Record,
    },
    translation::same,
};

fn data(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)).unwrap()
}

fn event(name: &str, event_type: &str, members: Json) -> String {
    let mut event = json!({"api_version": "v1.3.0", "name": name, "event_id": "e-1", "event_type": event_type});
    event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    event.to_string()
}

async fn post(bridge: &Bridge, path: &str, body: &str) -> Json {
    let answer = bridge.sender(Http::One).post(path, &[], body.to_owned()).await.unwrap();
    assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
    answer.body
}

/// The one record that stands in the topic.
fn only_record(topic: &str) -> Record {
    let mut records = support::kafka().read(topic);
    assert_eq!(records.len(), 1, "{topic}: {records:?}");
    records.remove(0)
}

fn key(record: &Record) -> Option<String> {
    record.key.as_ref().map(|key| String::from_utf8(key.clone()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_further_feed_is_a_schema_file_and_a_table_in_the_configuration() {
    let schema = data("schemas/coaching.avsc");
    let setup = Setup::new(support::kafka(), Some(support::registry())).toml(
        "[feeds.coaching]\nname = \"com.asapp.event.coaching\"\nschema = \"coaching.avsc\"\nkey = [\"/data/nobody\", \"/data/coach_id\"]",
    );
    fs::write(setup.dir.join("coaching.avsc"), &schema).unwrap();
    let bridge = setup.start();
    let body = data("schemas/coaching.event.json");
    // Without a `topic` it is `asapp.` and the feed's name; no other test has this feed.
    assert_eq!(post(&bridge, "/", &body).await["topic"], "asapp.coaching");
    let record = only_record("asapp.coaching");
    assert_eq!(key(&record).as_deref(), Some("rep-2"));
    let mut value = Decoder::new(support::registry()).decode_json(record.value.as_deref().unwrap());
    let extras = value.as_object_mut().unwrap().remove("extras").unwrap();
    assert_eq!(extras, json!({"/details/room": "\"B2\""}), "the member that the schema does not have");
    let mut expected: Json = serde_json::from_str(&body).unwrap();
    expected["details"].as_object_mut().unwrap().remove("room");
    for (pointer, millis) in [
        ("/meta_data/create_time", 1_741_081_500_120_i64),
        ("/meta_data/event_time", 1_741_081_500_071),
        ("/details/started_ts", 1_741_079_700_000),
        ("/details/goals/0/due_ts", 1_743_465_600_000),
    ] {
        *expected.pointer_mut(pointer).unwrap() = json!(millis);
    }
    assert!(same(&value, &expected), "typed by the file\n  found    {value}\n  expected {expected}");
    let registered = support::registry().schema(schema_id(record.value.as_deref().unwrap()));
    assert_eq!(serde_json::from_str::<Json>(&registered).unwrap(), serde_json::from_str::<Json>(&schema).unwrap());
    assert_eq!(bridge.metric("causeway_committed_total", &["feed=\"coaching\""]), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_goes_by_its_own_name_wherever_another_stands() {
    let bridge = Setup::new(support::kafka(), None).start();
    let body = |first: Json, name: &str| {
        let mut event = json!({"data": first, "api_version": "v1"});
        event
            .as_object_mut()
            .unwrap()
            .extend(json!({"name": name, "event_id": "e-1", "event_type": "T"}).as_object().unwrap().clone());
        event.to_string()
    };
    for (first, name, label) in [
        (json!({"name": "com.asapp.event.queue"}), "com.asapp.event.activity", "activity"),
        (json!({"name": "com.asapp.event.nobody"}), "com.asapp.event.journey", "journey"),
        (json!({"name": "com.asapp.event.journey"}), "com.asapp.event.coaching-of-nobody", "other"),
        (json!({"rep_name": "\"name\":\"com.asapp.event.activity\""}), "com.asapp.event.queue", "queue"),
    ] {
        let topic = bridge.topic(label);
        assert_eq!(post(&bridge, "/", &body(first, name)).await["topic"], topic.as_str(), "{name}");
        let record = only_record(&topic);
        let source = record.headers.iter().find(|(header, _)| header == "ce_source").map(|(_, value)| value.clone());
        assert_eq!(source.as_deref(), Some(name.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_bound_to_a_feed_takes_every_body_whatever_its_name() {
    let bridge = Setup::new(support::kafka(), None).toml("[feeds.queue]\npath = \"/queue-processed\"").start();
    let (queue, letters) = (bridge.topic("queue"), bridge.topic("dead-letter"));
    let processed = event("com.asapp.processed.queue", "T", json!({"data": {"queue_id": "q-1"}}));
    assert_eq!(post(&bridge, "/queue-processed", &processed).await["topic"], json!(queue));
    // The same body by name is nobody's.
    assert_eq!(post(&bridge, "/events", &processed).await["topic"], json!(bridge.topic("other")));
    let record = only_record(&queue);
    assert_eq!((key(&record).as_deref(), record.header("ce_source")), (Some("q-1"), Some("com.asapp.processed.queue")));

    assert_eq!(post(&bridge, "/queue-processed", "no event").await["topic"], json!(letters));
    let letter = only_record(&letters);
    assert_eq!(letter.value.as_deref(), Some(b"no event".as_slice()));
    assert_eq!(letter.header("causeway_feed"), Some("queue"));
    assert_eq!(letter.header("__connect.errors.topic"), Some(queue.as_str()));
    assert_eq!(bridge.metric("causeway_dead_letters_total", &["feed=\"queue\"", "stage=\"READ\""]), 1.0);

    let answer = bridge.sender(Http::One).post("/queue-processed/more", &[], "{}").await.unwrap();
    assert_eq!((answer.status, &answer.body["code"]), (404, &json!("not_found")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chosen_event_types_go_to_a_topic_and_subject_of_their_own() {
    let setup = Setup::new(support::kafka(), Some(support::registry()));
    let rated = setup.topic("rated");
    let bridge = setup
        .toml(&format!("[feeds.activity.event_types]\n\"agent.rated\" = \"{rated}\"\nrated_again = \"{rated}\""))
        .start();
    for (event_type, topic) in [
        ("agent.rated", &rated),
        ("rated_again", &rated),
        ("agent", &bridge.topic("activity")),
        ("AGENT.RATED", &bridge.topic("activity")),
    ] {
        let body = event("com.asapp.event.activity", event_type, json!({"data": {"rep_id": "r-1"}}));
        assert_eq!(post(&bridge, "/", &body).await["topic"], json!(topic), "{event_type}");
    }
    // A type of that name in another feed stays there.
    let journey = event("com.asapp.event.journey", "agent.rated", json!({}));
    assert_eq!(post(&bridge, "/", &journey).await["topic"], json!(bridge.topic("journey")));

    let subject = format!("{rated}-value");
    let (status, version) = support::registry().get(&format!("/subjects/{subject}/versions/latest"));
    assert_eq!(status, 200, "{subject}: {version}");
    let records = support::kafka().read(&rated);
    assert_eq!(records.len(), 2);
    let decoder = Decoder::new(support::registry());
    for record in records {
        let wire = record.value.as_deref().unwrap();
        assert_eq!(json!(schema_id(wire)), version["id"], "the id that this subject gives the schema");
        assert_eq!(decoder.decode_json(wire)["data"]["rep_id"], "r-1");
        assert_eq!(key(&record).as_deref(), Some("r-1"));
    }
    assert_eq!(bridge.metric("causeway_committed_total", &["feed=\"activity\""]), 4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_topics_and_keys_are_what_the_configuration_says() {
    let setup = Setup::new(support::kafka(), None);
    let (mine, strange) = (setup.topic("mine_2"), setup.topic("strange"));
    let bridge = setup
        .set("feeds.journey.topic", &mine)
        .set("feeds.other.topic", &strange)
        .toml("[feeds.journey]\nname = \"acme.journey\"\nkey = [\"/data/a~1b/0\", \"/meta_data/session_id\"]")
        .start();
    for (name, members, topic, expected) in [
        ("acme.journey", json!({"meta_data": {"session_id": "s", "issue_id": "i"}}), &mine, Some("s")),
        ("acme.journey", json!({"data": {"a/b": 7}, "meta_data": {"session_id": 4_711}}), &mine, Some("4711")),
        ("acme.journey", json!({"meta_data": {"session_id": "", "issue_id": "i"}}), &mine, None),
        // Its built-in name is no longer its name.
        ("com.asapp.event.journey", json!({"meta_data": {"issue_id": -2.5}}), &strange, Some("-2.5")),
        (
            "unheard.of",
            json!({"data": {"rep_id": 18_446_744_073_709_551_615_u64}}),
            &strange,
            Some("18446744073709551615"),
        ),
        ("unheard.of", json!({"meta_data": {"issue_id": true}, "data": {"rep_id": "r"}}), &strange, Some("r")),
    ] {
        let receipt = post(&bridge, "/events", &event(name, "T", members.clone())).await;
        assert_eq!(receipt["topic"], json!(topic), "{name} {members}");
        let records = support::kafka().read(topic);
        let record = records.iter().find(|record| {
            (json!(record.partition), json!(record.offset)) == (receipt["partition"].clone(), receipt["offset"].clone())
        });
        assert_eq!(key(record.unwrap()).as_deref(), expected, "{name} {members}");
    }
    assert_eq!(bridge.metric("causeway_null_keys_total", &["feed=\"journey\""]), 1.0);
    assert_eq!(bridge.metric("causeway_committed_total", &["feed=\"other\""]), 3.0);
}

/// A start that ends by itself, with code 3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_record_is_its_own_feeds_where_two_share_a_topic() {
    let feeds = "[feeds.first]\nname = \"com.asapp.event.first\"\nschema = \"coaching.avsc\"\ntopic = \"{topic}\"
[feeds.second]\nname = \"com.asapp.event.second\"\nschema = \"coaching.avsc\"\ntopic = \"{topic}\"";
    let setup = Setup::new(support::kafka(), None);
    let topic = setup.topic("shared");
    let setup = setup.toml(&feeds.replace("{topic}", &topic));
    fs::write(setup.dir.join("coaching.avsc"), data("schemas/coaching.avsc")).unwrap();
    let bridge = setup.start();
    support::kafka().alter_topic_config(&topic, &[("max.message.bytes", "2000")]);
    let large = event("com.asapp.event.second", "T", json!({"filling": noise(10_000)}));
    assert_eq!(post(&bridge, "/", &large).await["topic"], bridge.topic("dead-letter"));
    let letter = only_record(&bridge.topic("dead-letter"));
    assert_eq!(letter.header("causeway_feed"), Some("second"));
    assert_eq!(letter.header("__connect.errors.topic"), Some(&*topic));
    for feed in ["first", "second", "dead-letter"] {
        assert_eq!(bridge.metric("causeway_queue_records", &[&format!("feed=\"{feed}\"")]), 0.0, "{feed}");
    }
}

fn refused_start(setup: &Setup) -> String {
    let Output { status, stderr, stdout } = setup.command(&["serve"]).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stdout.is_empty(), "errors go to standard error");
    stderr
}

#[test]
fn a_schema_that_cannot_take_every_event_is_refused_by_its_field() {
    let schema: Json = serde_json::from_str(&data("schemas/coaching.avsc")).unwrap();
    let changed = |pointer: &str, value: Json| {
        let mut schema = schema.clone();
        *schema.pointer_mut(pointer).expect(pointer) = value;
        schema.to_string()
    };
    for (text, field) in [
        (changed("/fields/5/type/1/fields/1", json!({"name": "coach_id", "type": "string"})), "data.coach_id"),
        (changed("/fields/5/type/1/fields/1/type", json!("string")), "coach_id"),
        (changed("/fields/6/type/1/fields/2/type/1", json!("bytes")), "details.score"),
        (changed("/fields/6/type/1/fields/1/type", json!(["null", "long", "string"])), "details.duration_sec"),
        (
            changed("/fields/6/type/1/fields/4/type/1/items/fields/0/type/1", json!("CoachingGoal")),
            "details.goals.text",
        ),
        (changed("/fields/2/type", json!(["null", "string"])), "event_id"),
        (changed("/fields/7/name", json!("rest")), "field `rest`"),
        (changed("/name", json!("no name")), "not an Avro schema"),
        ("{".to_owned(), "not an Avro schema"),
    ] {
        let setup = Setup::new(support::kafka(), None)
            .toml("[feeds.coaching]\nname = \"com.asapp.event.coaching\"\nschema = \"coaching.avsc\"");
        fs::write(setup.dir.join("coaching.avsc"), text).unwrap();
        let stderr = refused_start(&setup);
        assert!(stderr.contains("feeds.coaching.schema") && stderr.contains("coaching.avsc"), "{field}: {stderr}");
        assert!(stderr.contains(field), "{field}: {stderr}");
    }
    let setup = Setup::new(support::kafka(), None).toml("[feeds.coaching]\nname = \"c\"\nschema = \"nowhere.avsc\"");
    let stderr = refused_start(&setup);
    assert!(stderr.contains("nowhere.avsc") && stderr.contains("feeds.coaching.schema"), "{stderr}");
}

#[test]
fn every_mistake_in_a_configuration_is_named_at_once_with_its_line() {
    let setup = Setup::new(support::kafka(), None).unset("feeds.queue.topic").unset("kafka.topics.partitions").toml(
        "\
min_version = \"1.1\"
[sender]
timeout_ms = 499
[feeds.queue]
topic = \"no topic\"
key = [\"queue_id\"]
[feeds.coaching]
name = \"com.asapp.event.journey\"
[feeds.Loud]
name = \"x\"
[kafka.topics]
partitions = \"six\"
[ingres]
listen = \"127.0.0.1:1\"",
    );
    let stderr = refused_start(&setup);
    // The harness writes four lines before these.
    for (line, key) in [
        (5, "ingress.tls.min_version"),
        (7, "sender.timeout_ms"),
        (9, "feeds.queue.topic"),
        (10, "feeds.queue.key"),
        (12, "feeds.coaching.name"),
        (14, "feeds.Loud.name"),
        (16, "kafka.topics.partitions"),
        (18, "ingres.listen"),
    ] {
        let place = format!("causeway.toml:{line}: ");
        let named = stderr.lines().any(|it| it.contains(&place) && it.contains(key));
        assert!(named, "{place}{key} in\n{stderr}");
    }
    assert!(stderr.contains("coaching") && stderr.contains("schema"), "a new feed needs a schema: {stderr}");
    let setup = Setup::new(support::kafka(), None).set("sender.retries", "many").set("feeds.nope.topic", "t");
    let stderr = refused_start(&setup);
    assert!(stderr.contains("CAUSEWAY_SENDER__RETRIES") && stderr.contains("CAUSEWAY_FEEDS__NOPE__TOPIC"), "{stderr}");
}

/// Which takes no record without a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_topic_takes_events_without_a_key_and_dead_letters() {
    let setup = Setup::new(support::kafka(), None);
    for feed in ["journey", "dead-letter"] {
        support::kafka().create_topic(&setup.topic(feed), 1, &[("cleanup.policy", "compact")]);
    }
    let bridge = setup.start();
    let body = event("com.asapp.event.journey", "T", json!({}));
    assert_eq!(post(&bridge, "/", &body).await["topic"], bridge.topic("journey"), "it is no dead letter");
    assert_eq!(post(&bridge, "/", "no event").await["topic"], bridge.topic("dead-letter"));
    for feed in ["journey", "dead-letter"] {
        let record = only_record(&bridge.topic(feed));
        assert_eq!(key(&record).as_deref(), record.header("causeway_body"), "{feed}");
    }
    let keyed = event("com.asapp.event.journey", "T", json!({"meta_data": {"issue_id": "7"}}));
    post(&bridge, "/", &keyed).await;
    let records = support::kafka().read(&bridge.topic("journey"));
    assert_eq!(key(records.last().unwrap()).as_deref(), Some("7"));
}
