//! The table of cases, from outside: posted over mutual TLS, read back from the broker.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value as Json, json};

use crate::{
    support::{
        self,
        avro::Decoder,
        bridge::{Bridge, SENDER, Setup},
        client::Http,
        topics::Record,
    },
    translation::same,
};

/// Every case's name, body and expected record.
fn cases() -> Vec<(String, Vec<u8>, Json)> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let names =
        fs::read_dir(data.join("cases")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .map(|name| {
            let body = fs::read(data.join("cases").join(&name)).unwrap();
            let expected = serde_json::from_slice(&fs::read(data.join("expected").join(&name)).unwrap()).unwrap();
            (name, body, expected)
        })
        .collect()
}

/// The records of all of a bridge's topics, by feed and where they stand.
fn read_all(bridge: &Bridge) -> BTreeMap<(String, i32, i64), Record> {
    let feeds = ["activity", "journey", "queue", "other", "dead-letter"];
    let read =
        feeds.map(|feed| support::kafka().read(&bridge.topic(feed)).into_iter().map(move |record| (feed, record)));
    read.into_iter()
        .flatten()
        .map(|(feed, record)| ((feed.to_owned(), record.partition, record.offset), record))
        .collect()
}

async fn post_all(http: Http) {
    let bridge = Setup::new(support::kafka(), Some(support::registry())).start();
    let sender = bridge.sender(http);
    let mut posted = Vec::new();
    for (name, body, expected) in cases() {
        let answer = sender.post("/", &[("content-type", "application/json")], body.clone()).await.unwrap();
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        posted.push((name, body, expected, answer.body));
    }
    let records = read_all(&bridge);
    assert_eq!(records.len(), posted.len(), "one record for each body, and no other");
    let decoder = Decoder::new(support::registry());
    for (name, body, expected, receipt) in posted {
        let feed = expected["feed"].as_str().unwrap();
        assert_eq!(receipt["topic"], json!(bridge.topic(feed)), "{name}");
        let place =
            (feed.to_owned(), receipt["partition"].as_i64().unwrap() as i32, receipt["offset"].as_i64().unwrap());
        let record = records
            .get(&place)
            .unwrap_or_else(|| panic!("{name}: nothing stands where its receipt says, at {place:?}"));
        if feed == "dead-letter" {
            check_dead_letter(&name, &body, &expected, record);
        } else {
            check_record(&name, &body, &expected, record, &decoder);
        }
    }
    assert!(bridge.metric("causeway_dead_letters_total", &["stage=\"READ\""]) > 40.0);
}

fn check_record(name: &str, body: &[u8], expected: &Json, record: &Record, decoder: &Decoder<'_>) {
    let key = record.key.as_deref().map(String::from_utf8_lossy);
    assert_eq!(json!(key), expected["key"], "{name}: key");
    let mut value = decoder.decode_json(record.value.as_deref().unwrap());
    let extras = value.as_object_mut().unwrap().remove("extras").unwrap_or_default();
    assert!(same(&value, &expected["value"]), "{name}: value\n  found    {value}\n  expected {}", expected["value"]);
    assert!(
        same(&extras, &expected["extras"]),
        "{name}: extras\n  found    {extras}\n  expected {}",
        expected["extras"]
    );
    assert_eq!(json!(record.header("ce_time")), expected["ce_time"], "{name}: ce_time");
    for (header, member) in [("ce_id", "event_id"), ("ce_source", "name"), ("ce_type", "event_type")] {
        // No attribute has a control character.
        let expected = value[member].as_str().map(|text| text.replace('\n', "%0A"));
        assert_eq!(record.header(header), expected.as_deref(), "{name}: {header}");
    }
    assert_eq!(record.header("ce_specversion"), Some("1.0"), "{name}");
    assert_eq!(record.header("content-type"), Some("application/avro"), "{name}");
    let hash = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(body));
    assert_eq!(record.header("causeway_body"), Some(hash.as_str()), "{name}");
}

fn check_dead_letter(name: &str, body: &[u8], expected: &Json, record: &Record) {
    assert_eq!(record.value.as_deref().unwrap_or_default(), body, "{name}: the raw body");
    let key = record.key.as_deref().map(String::from_utf8_lossy);
    assert_eq!(json!(key), expected["key"], "{name}: key");
    let reason = record.header("__connect.errors.exception.message").unwrap();
    assert!(reason.contains(expected["reason_contains"].as_str().unwrap()), "{name}: {reason}");
    let (size, sender) = (body.len().to_string(), format!("dns:{SENDER}"));
    for (header, expected) in [
        ("__connect.errors.stage", "READ"),
        ("causeway_size", &size),
        ("causeway_sender", &sender),
        ("content-type", "application/json"),
        ("causeway_attempts", "0"),
    ] {
        assert_eq!(record.header(header), Some(expected), "{name}: {header}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_stands_in_its_topic_over_http_1() {
    post_all(Http::One).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_stands_in_its_topic_over_http_2() {
    post_all(Http::Two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_registry_values_are_in_single_object_encoding() {
    let bridge = Setup::new(support::kafka(), None).start();
    let body = include_bytes!("../data/events/queue.sample.typed.json").as_slice();
    let answer = bridge.sender(Http::One).post("/events", &[], body).await.unwrap();
    assert_eq!(answer.status, 200);
    let record = support::kafka().read(&bridge.topic("queue")).pop().unwrap();
    let value = record.value.unwrap();
    let schema = crate::translation::schema_of("queue");
    assert_eq!(value[..2], [0xC3, 0x01]);
    assert_eq!(value[2..10], schema.fingerprint);
    let restored = causeway::restore::restore(&value[10..], &schema).unwrap();
    assert!(same(&restored, &serde_json::from_slice(body).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traceparent_and_the_time_of_receipt_travel_with_the_record() {
    let bridge = Setup::new(support::kafka(), None).start();
    let before = time::OffsetDateTime::now_utc();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("traceparent", trace), ("tracestate", "asapp=1")];
    let body = include_bytes!("../data/events/journey.sample.json").as_slice();
    bridge.sender(Http::Two).post("/", &headers, body).await.unwrap();
    let record = support::kafka().read(&bridge.topic("journey")).pop().unwrap();
    assert_eq!(record.header("traceparent"), Some(trace));
    assert_eq!(record.header("tracestate"), Some("asapp=1"));
    // What a tracer could not read is nobody's trace.
    let other =
        json!({"api_version": "v1", "name": "com.asapp.event.journey", "event_id": "not-traced", "event_type": "T"});
    let other = other.to_string();
    bridge.sender(Http::Two).post("/", &[("traceparent", &trace[1..]), headers[1]], other).await.unwrap();
    let records = support::kafka().read(&bridge.topic("journey"));
    let record_of_it = records.iter().find(|record| record.header("ce_id") == Some("not-traced")).unwrap();
    assert_eq!((record_of_it.header("traceparent"), record_of_it.header("tracestate")), (None, None));
    let (before, after) =
        (before.unix_timestamp() * 1000, time::OffsetDateTime::now_utc().unix_timestamp() * 1000 + 1000);
    assert!((before..=after).contains(&record.timestamp), "{} is not in {before}..={after}", record.timestamp);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_cloud_events_attribute_may_be_is_percent_encoded() {
    let bridge = Setup::new(support::kafka(), None).start();
    let event = json!({"api_version": "v1", "name": "a name, 100 %", "event_id": "an\tid 日", "event_type": "T\u{0}"});
    let sender = bridge.sender(Http::One);
    let mut receipts = Vec::new();
    for _ in 0..2 {
        receipts.push(sender.post("/", &[], event.to_string()).await.unwrap().body);
    }
    assert_eq!(receipts[0], receipts[1], "a retry is known by its id");
    let record = support::kafka().read(&bridge.topic("other")).pop().unwrap();
    for (header, expected) in [("ce_source", "a%20name,%20100%20%25"), ("ce_id", "an%09id 日"), ("ce_type", "T%00")] {
        assert_eq!(record.header(header), Some(expected));
    }
}

/// The partition that Java's default partitioner gives: murmur2 of the key, positive, modulo the partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_have_the_partition_that_a_java_producer_would_give_them() {
    let bridge = Setup::new(support::kafka(), None).set("kafka.topics.partitions", "6").start();
    let sender = bridge.sender(Http::One);
    // Values of org.apache.kafka.common.utils.Utils.toPositive(murmur2(key)) % 6, as Kafka's own tests give the hashes.
    for (key, murmur2) in
        [("21", -973_932_308_i32), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)]
    {
        let event = json!({"api_version": "v1", "name": "com.asapp.event.journey", "event_id": key, "event_type": "T", "meta_data": {"issue_id": key}});
        let answer = sender.post("/", &[], event.to_string()).await.unwrap();
        assert_eq!(answer.body["partition"], json!((murmur2 & 0x7fff_ffff) % 6), "{key}");
    }
}
