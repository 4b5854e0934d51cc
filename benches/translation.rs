//! The translation beside its limits: simd-json's tape alone on the same bytes, and apache-avro's encoding of the same record.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that fails here has failed"
)]

use std::hint::black_box;

use apache_avro::{reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use causeway::{
    event::Parser,
    feed::{self, SchemaSource},
    schema::Schema,
    transcode::Transcoder,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use simd_json::{Buffers, Tape};

/// Each feed's sample, compact as a sender posts it.
fn samples() -> [(&'static str, Vec<u8>); 3] {
    [
        ("activity", include_str!("../tests/data/events/activity.sample.json")),
        ("journey", include_str!("../tests/data/events/journey.sample.json")),
        ("queue", include_str!("../tests/data/events/queue.sample.typed.json")),
    ]
    .map(|(label, text)| {
        let document: serde_json::Value = serde_json::from_str(text).expect("a sample is JSON");
        (label, document.to_string().into_bytes())
    })
}

fn schema(label: &str) -> Schema {
    let feed = feed::built_in().into_iter().find(|feed| feed.label == label).expect("a built-in feed");
    let SchemaSource::BuiltIn(text) = feed.schema else { panic!("a built-in schema") };
    Schema::parse(text).expect("a built-in schema compiles")
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
            let mut parser = Parser::new(128);
            let mut transcoder = Transcoder::default();
            let mut value = Vec::new();
            bencher.iter(|| {
                value.clear();
                parser.read(black_box(&body), |event| {
                    transcoder.encode(&event.expect("a sample is an event"), &schema.plan, &mut value)
                });
                black_box(&value);
            });
        });
        group.finish();

        let mut avro = Vec::new();
        Parser::new(128).read(&body, |event| {
            Transcoder::default().encode(&event.expect("a sample is an event"), &schema.plan, &mut avro)
        });
        let record = GenericDatumReader::builder(&schema.avro)
            .build()
            .expect("a reader")
            .read_value(&mut avro.as_slice())
            .expect("our own bytes");
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

criterion_group!(benches, translation);
criterion_main!(benches);
