//! What reading and translating an event allocates: nothing, once the buffers of a thread are warm.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails here has failed"
)]

use std::{fs, path::Path, sync::Arc};

use allocation_counter::measure;
use causeway::{
    event::Parser,
    feed::{self, SchemaSource},
    record::{Origin, Record, Route},
    schema::Schema,
    transcode::{Direct, Transcoder},
};

/// Each feed's typical event, and those that look otherwise.
const EVENTS: &[(&str, &str)] = &[
    ("activity", "activity.sample.json"),
    ("journey", "journey.sample.json"),
    ("journey", "journey.newer.json"),
    ("queue", "queue.sample.json"),
    ("queue", "queue.sample.typed.json"),
    ("queue", "queue.newer.json"),
    // Its `data` and `details` become JSON text.
    ("other", "journey.sample.json"),
];

/// Of these: values of other types than the schema has, and a feed whose schema has JSON text.
const NEED_THE_TAPE: &[(&str, &str)] = &[("queue", "queue.sample.json"), ("other", "journey.sample.json")];

/// As a sender posts it: on one line.
fn body(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/events").join(file);
    let document: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    document.to_string().into_bytes()
}

fn route(label: &str) -> Route {
    let feed = feed::built_in().into_iter().find(|feed| feed.label == label).expect("a built-in feed");
    let SchemaSource::BuiltIn(text) = feed.schema else { panic!("a built-in schema") };
    Route::new(&feed, Schema::parse(text).unwrap())
}

#[test]
fn an_event_is_translated_without_an_allocation() {
    for (label, file) in EVENTS {
        let (route, body) = (route(label), body(file));
        let (mut parser, mut transcoder, mut value) = (Parser::new(128), Transcoder::default(), Vec::new());
        none_once_warm(&format!("{file} as {label} over the tape"), || {
            value.clear();
            parser.read(&body, |event| transcoder.encode(&event.unwrap(), &route.schema.plan, &mut value).unwrap());
        });
        assert!(!value.is_empty());
        let mut direct = Direct::default();
        if direct.encode(&body, &route.schema.plan, 128).is_some() {
            direct = Direct::default();
            none_once_warm(&format!("{file} as {label} directly"), || {
                assert!(direct.encode(&body, &route.schema.plan, 128).is_some());
            });
        } else {
            assert!(NEED_THE_TAPE.contains(&(label, file)), "{file} as {label} needs the tape");
        }
    }
}

fn none_once_warm(what: &str, mut translate: impl FnMut()) {
    let mut measured = || measure(&mut translate);
    assert!(measured().count_total > 0, "{what}: the first event fills empty buffers, and the counter sees it");
    for _ in 0..3 {
        let again = measured();
        assert_eq!((again.count_total, again.bytes_total), (0, 0), "{what}");
    }
}

/// Events of all feeds and sizes in turn, as one thread gets them.
#[test]
fn a_record_is_made_without_an_allocation() {
    let origin = Origin {
        received_at: 1,
        sender: Arc::from("dns:sender.asapp.example"),
        content_type: None,
        content_encoding: None,
        traceparent: None,
        tracestate: None,
        attempts: 0,
    };
    let events: Vec<_> = EVENTS.iter().map(|(label, file)| (route(label), body(file))).collect();
    let (mut parser, mut transcoder, mut record) = (Parser::new(128), Transcoder::default(), Record::default());
    let mut direct = Direct::default();
    for round in 0..3 {
        for (route, body) in &events {
            let made = measure(|| {
                if route.fill_directly(&mut record, body, body, 128, &origin, &mut direct).is_none() {
                    parser.read(body, |event| {
                        route.fill(&mut record, &event.unwrap(), body, &origin, &mut transcoder).map(drop).unwrap();
                    });
                }
            });
            assert!(record.headers().count() >= 6 && !record.value().is_empty());
            if round > 0 {
                assert_eq!((made.count_total, made.bytes_total), (0, 0), "{}: allocations, bytes", route.label);
            }
        }
    }
}
