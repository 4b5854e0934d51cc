//! Bytes -> `Event` -> Avro -> JSON, by every built-in feed's schema: the same document comes back.

use std::cell::RefCell;

use causeway::{event::Parser, record::Record, transcode::Transcoder};

use crate::{ROUTES, fill, gives_back, parse};

/// What the bridge reuses from body to body.
#[derive(Default)]
struct Bench {
    transcoder: Transcoder,
    record: Record,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::default();
}

/// Before members alone: what a fuzzer makes of them is then an event more often.
const IDENTITY: &str = r#"{"api_version":"v1.3.0","name":"n","event_id":"e","event_type":"t","#;

/// The input is a body, or, where it begins with a quotation mark, the members of one beside its identity.
pub fn run(input: &[u8]) {
    if input.starts_with(b"\"") {
        translate(&[IDENTITY.as_bytes(), input, b"}"].concat());
    } else {
        translate(input);
    }
}

fn translate(body: &[u8]) {
    Parser::new(128).read(body, |event| {
        let Ok(event) = event else { return };
        let document = parse(body).expect("an event is JSON");
        BENCH.with_borrow_mut(|Bench { transcoder, record }| {
            for route in ROUTES.iter() {
                if fill(route, record, &event, body, transcoder).is_err() {
                    continue;
                }
                if let Err(lost) = gives_back(record, &route.schema, &document) {
                    panic!("{}: {lost}", route.label);
                }
                let mut fresh = Record::default();
                fill(route, &mut fresh, &event, body, &mut Transcoder::default()).expect("it was an event");
                assert_eq!(fresh.value(), record.value(), "{}: the event before left something behind", route.label);
            }
        });
    });
}
