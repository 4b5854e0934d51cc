//! The translation beside two limits: simd-json's tape alone on the same bytes, and apache-avro's encoding of the same
//! record. Two other ways are measured, too. The way over that tape is for events that do not look as senders write
//! them. The way through apache-avro's `Value` turns serde_json's document into a `Value`, which is resolved and
//! encoded by the schema.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that fails here has failed"
)]

use std::hint::black_box;

use apache_avro::{reader::datum::GenericDatumReader, types::Value as Avro, writer::datum::GenericDatumWriter};
use causeway::{
    event::Parser,
    feed::{self, SchemaSource},
    schema::{Kind, Plan, Schema},
    transcode::{Direct, Transcoder, read_rfc3339},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Map, Value as Json};
use simd_json::{Buffers, Tape};

/// Each feed's sample, compact as a sender posts it.
fn samples() -> [(&'static str, Vec<u8>); 3] {
    [
        ("activity", include_str!("../tests/data/events/activity.sample.json")),
        ("journey", include_str!("../tests/data/events/journey.sample.json")),
        ("queue", include_str!("../tests/data/events/queue.sample.typed.json")),
    ]
    .map(|(label, text)| {
        let document: Json = serde_json::from_str(text).expect("a sample is JSON");
        (label, document.to_string().into_bytes())
    })
}

fn schema(label: &str) -> Schema {
    let feed = feed::built_in().into_iter().find(|feed| feed.label == label).expect("a built-in feed");
    let SchemaSource::BuiltIn(text) = feed.schema else { panic!("a built-in schema") };
    Schema::parse(text).expect("a built-in schema compiles")
}

/// The document's members as apache-avro's `Value`, of which [`Avro::resolve`] makes the schema's record.
fn to_record(members: Map<String, Json>, plan: &Plan) -> Avro {
    let fields = members.into_iter().map(|(name, json)| {
        let field = &plan.fields[plan.find(&name).expect("a sample has no unknown member")];
        (name, to_value(json, &field.kind))
    });
    Avro::Record(fields.collect())
}

fn to_value(json: Json, kind: &Kind) -> Avro {
    match (kind, json) {
        (Kind::Record(plan), Json::Object(members)) => to_record(members, plan),
        (Kind::Array(items), Json::Array(elements)) => {
            Avro::Array(elements.into_iter().map(|element| to_value(element, items)).collect())
        }
        (Kind::Map(values), Json::Object(entries)) => {
            Avro::Map(entries.into_iter().map(|(key, entry)| (key, to_value(entry, values))).collect())
        }
        (Kind::TimestampMillis, Json::String(text)) => {
            Avro::TimestampMillis(read_rfc3339(&text).expect("a timestamp").millis)
        }
        (Kind::String, Json::String(text)) => Avro::String(text),
        (Kind::Long, Json::Number(number)) => Avro::Long(number.as_i64().expect("a long")),
        (Kind::Double, Json::Number(number)) => Avro::Double(number.as_f64().expect("a double")),
        (Kind::Boolean, Json::Bool(boolean)) => Avro::Boolean(boolean),
        (_, Json::Null) => Avro::Null,
        (kind, json) => panic!("a sample has {json} for {kind:?}"),
    }
}

fn translation(criterion: &mut Criterion) {
    for (label, body) in samples() {
        let schema = schema(label);
        let bytes = Throughput::Bytes(body.len() as u64);

        let mut group = criterion.benchmark_group("tape");
        group.throughput(bytes.clone());
        group.bench_function(label, |bencher| {
            let mut copy = Vec::new();
            let mut buffers = Buffers::new(4096);
            let mut tape = Tape(Vec::new());
            bencher.iter(|| {
                copy.clear();
                copy.extend_from_slice(black_box(&body));
                copy.resize(body.len() + simd_json::INPUT_PADDING, 0);
                let mut filled = std::mem::replace(&mut tape, Tape(Vec::new())).reset();
                simd_json::fill_tape_padded(&mut copy, body.len(), &mut buffers, &mut filled)
                    .expect("a sample is JSON");
                black_box(&filled.0);
                tape = filled.reset();
            });
        });
        group.finish();

        let mut group = criterion.benchmark_group("translate");
        group.throughput(bytes.clone());
        group.bench_function(label, |bencher| {
            let mut direct = Direct::default();
            bencher.iter(|| {
                let translated = direct.encode(black_box(&body), &schema.plan, 128);
                black_box(translated.expect("a sample is an event"));
            });
        });
        group.finish();

        let mut group = criterion.benchmark_group("over-tape");
        group.throughput(bytes);
        group.bench_function(label, |bencher| {
            let mut parser = Parser::new(128);
            let mut transcoder = Transcoder::default();
            let mut value = Vec::new();
            bencher.iter(|| {
                value.clear();
                parser.read(black_box(&body), |event| {
                    transcoder
                        .encode(&event.expect("a sample is an event"), &schema.plan, &mut value)
                        .expect("unambiguous")
                });
                black_box(&value);
            });
        });
        group.finish();
    }
}

fn through_apache_avro(criterion: &mut Criterion) {
    for (label, body) in samples() {
        let schema = schema(label);
        let bytes = Throughput::Bytes(body.len() as u64);
        let mut avro = Vec::new();
        Parser::new(128)
            .read(&body, |event| {
                Transcoder::default().encode(&event.expect("a sample is an event"), &schema.plan, &mut avro)
            })
            .expect("a sample is unambiguous");
        let reader = GenericDatumReader::builder(&schema.avro).build().expect("a reader");
        let record = reader.read_value(&mut avro.as_slice()).expect("our own bytes");
        let through_value = |body: &[u8], out: &mut Vec<u8>| {
            let writer = GenericDatumWriter::builder(&schema.avro).build().expect("a writer");
            let Json::Object(members) = serde_json::from_slice(body).expect("a sample is JSON") else {
                panic!("an object")
            };
            let resolved = to_record(members, &schema.plan).resolve(&schema.avro).expect("a sample fits its schema");
            writer.write_value_ref(out, &resolved).expect("a resolved record");
        };
        let mut same = Vec::new();
        through_value(&body, &mut same);
        // The bytes may differ, as a map's entries come in any order, so records are compared.
        let same = reader.read_value(&mut same.as_slice()).expect("apache-avro's bytes");
        assert_eq!(same, record, "{label}: both ways lead to the same record");
        let mut group = criterion.benchmark_group("through-value");
        group.throughput(bytes.clone());
        group.bench_function(label, |bencher| {
            let mut value = Vec::new();
            bencher.iter(|| {
                value.clear();
                through_value(black_box(&body), &mut value);
                black_box(&value);
            });
        });
        group.finish();

        let mut group = criterion.benchmark_group("apache-avro");
        group.throughput(bytes);
        group.bench_function(label, |bencher| {
            let writer = GenericDatumWriter::builder(&schema.avro).build().expect("a writer");
            let mut value = Vec::new();
            bencher.iter(|| {
                value.clear();
                writer.write_value_ref(&mut value, black_box(&record)).expect("its own record");
                black_box(&value);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, translation, through_apache_avro);
criterion_main!(benches);
