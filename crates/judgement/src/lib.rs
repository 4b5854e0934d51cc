//! When a translation is right: one judgement for the table of cases, the properties and the fuzz targets. And what each fuzz
//! target does with its input: `tests/it/corpus.rs` does the same with the kept corpora, without a fuzzer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what is wrong ends the test on the spot; a finding is a panic"
)]

pub mod config;
pub mod event;
pub mod http;
pub mod round_trip;

use std::sync::{Arc, LazyLock};

use causeway::{
    event::{Event, Parser, Unreadable},
    feed,
    record::{Made, Origin, Record, Route, single_object_prefix},
    restore::restore,
    schema::Schema,
    transcode::{Direct, Transcoder},
};
use serde_json::Value as Json;

const DEPTH_MAX: usize = 128;

/// A route for each built-in feed, in their order.
pub static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let schema = |feed: &feed::Feed| match feed.schema {
        feed::SchemaSource::BuiltIn(text) => Schema::parse(text).unwrap(),
        feed::SchemaSource::File(_) => unreachable!("a built-in feed"),
    };
    feed::built_in().iter().map(|feed| Route::new(feed, schema(feed))).collect()
});

pub fn schema_of(label: &str) -> Schema {
    ROUTES.iter().find(|route| route.label == label).unwrap().schema.clone()
}

fn origin() -> Origin {
    Origin {
        received_at: 1_700_000_000_000,
        sender: Arc::from("cn:test"),
        content_type: None,
        content_encoding: None,
        traceparent: None,
        tracestate: None,
        attempts: 0,
    }
}

/// What a case's body becomes: its feed's route and its record, or why it is a dead letter.
pub fn translate(body: &[u8]) -> Result<(&'static Route, Record), Unreadable> {
    let feeds = feed::built_in();
    Parser::new(DEPTH_MAX).read(body, |event| {
        let event = event.inspect_err(|why| {
            let mistaken = ROUTES.iter().find(|route| directly(route, body).is_some());
            assert!(mistaken.is_none(), "{why}, but it was translated directly: {}", body.escape_ascii());
        })?;
        let named = feeds.iter().position(|feed| feed.name.as_deref() == Some(event.name));
        let at = named.or_else(|| feeds.iter().position(|feed| feed.name.is_none())).unwrap();
        let route = &ROUTES[at];
        let mut record = Record::default();
        fill(route, &mut record, &event, body, &mut Transcoder::default())?;
        Ok((route, record))
    })
}

/// Makes the event's record for any route: a path may be bound to a feed whatever the `name` inside.
/// There is a record where the check of the whole event lets it pass, and nowhere else; and what is translated without a
/// tape becomes the same record, whose `extras` may stand in another order.
pub fn fill(
    route: &Route,
    record: &mut Record,
    event: &Event<'_>,
    body: &[u8],
    transcoder: &mut Transcoder,
) -> Result<(), Unreadable> {
    let made = route.fill(record, event, body, &origin(), transcoder);
    assert_eq!(
        made.clone().map(drop),
        event.checked().map(drop),
        "{}: the translation and the check differ",
        route.label
    );
    if let Some((directly, same)) = directly(route, body) {
        let head = |record: &Record| {
            let headers: Vec<_> = record.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            (record.key().map(<[u8]>::to_vec), headers, record.timestamp)
        };
        let value = |record| read_avro(value_of(record, &route.schema), &route.schema).unwrap();
        assert_eq!(made, Ok(same), "{}: directly and over the tape", route.label);
        assert_eq!(head(&directly), head(record), "{}: directly and over the tape", route.label);
        assert_eq!(value(&directly), value(record), "{}: directly and over the tape", route.label);
    }
    made.map(drop)
}

/// The record that is made without a tape, if one is.
pub fn directly<'a>(route: &Route, body: &'a [u8]) -> Option<(Record, Made<'a>)> {
    let mut record = Record::default();
    let made = route.fill_directly(&mut record, body, body, DEPTH_MAX, &origin(), &mut Direct::default())?;
    Some((record, made))
}

/// Promise 4: apache-avro reads the record's value to its last byte, and it gives back the document.
pub fn gives_back(record: &Record, schema: &Schema, document: &Json) -> Result<(), String> {
    read_avro(value_of(record, schema), schema)?;
    let restored = restore(value_of(record, schema), schema).map_err(|error| error.to_string())?;
    let (restored, document) = (without_nulls(&restored), without_nulls(document));
    if same(&restored, &document) { Ok(()) } else { Err(format!("\nposted   {document}\nrestored {restored}")) }
}

/// The document as promise 4 sees it: a null member is an absent one.
pub fn without_nulls(document: &Json) -> Json {
    match document {
        Json::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        Json::Array(elements) => elements.iter().map(without_nulls).collect(),
        scalar => scalar.clone(),
    }
}

/// Equal, numbers as i64, u64 or f64.
pub fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) => {
            let integer = |n: &serde_json::Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
            match (integer(x), integer(y)) {
                (Some(x), Some(y)) => x == y,
                _ => x.as_f64() == y.as_f64(),
            }
        }
        (Json::Array(x), Json::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Json::Object(x), Json::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        (a, b) => a == b,
    }
}

pub fn value_of<'a>(record: &'a Record, schema: &Schema) -> &'a [u8] {
    record.value().strip_prefix(single_object_prefix(schema.fingerprint).as_slice()).unwrap()
}

/// serde_json reads 128 levels at most; a case has as many.
pub fn parse(body: &[u8]) -> serde_json::Result<Json> {
    let mut body = serde_json::Deserializer::from_slice(body);
    body.disable_recursion_limit();
    serde::Deserialize::deserialize(&mut body)
}

pub fn read_avro(mut value: &[u8], schema: &Schema) -> Result<apache_avro::types::Value, String> {
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema.avro).build().unwrap();
    let read = reader.read_value(&mut value).map_err(|error| format!("apache-avro does not read it: {error}"))?;
    if value.is_empty() { Ok(read) } else { Err(format!("{} bytes are left behind the value", value.len())) }
}
