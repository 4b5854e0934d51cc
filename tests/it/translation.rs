//! Bytes -> Avro -> JSON without a broker: the table of cases, and the property that nothing is lost.

use std::{collections::BTreeSet, fs, path::Path};

use causeway::{
    event::{Parser, Unreadable},
    feed::{self, SchemaSource},
    record::{Record, Route},
    restore::restore,
    schema::{Kind, Plan, Schema},
    transcode::{Transcoder, print_millis},
};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use judgement::{directly, fill, gives_back, parse, read_avro, translate, value_of};
pub use judgement::{same, schema_of, without_nulls};

fn read_json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_case_of_the_table_becomes_what_is_expected() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut names: Vec<_> = fs::read_dir(data.join("cases")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert!(names.len() > 50, "{} cases", names.len());
    let mut wrong = Vec::new();
    for name in names {
        let body = fs::read(data.join("cases").join(&name)).unwrap();
        let expected = read_json(&data.join("expected").join(&name));
        if let Err(difference) = check(&body, &expected) {
            wrong.push(format!("{}: {difference}", name.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(body: &[u8], expected: &Json) -> Result<(), String> {
    let compare = |what: &str, found: &Json, expected: &Json| {
        if same(found, expected) { Ok(()) } else { Err(format!("{what}\n  found    {found}\n  expected {expected}")) }
    };
    let (route, record) = match translate(body) {
        Err(why) => {
            compare("feed", &json!("dead-letter"), &expected["feed"])?;
            let word = expected["reason_contains"].as_str().unwrap_or_default();
            return if why.to_string().contains(word) {
                Ok(())
            } else {
                Err(format!("reason {why:?} has no {word:?}"))
            };
        }
        Ok(made) => made,
    };
    let schema = &route.schema;
    compare("feed", &json!(route.label), &expected["feed"])?;
    let key = record.key().map(String::from_utf8_lossy);
    compare("key", &json!(key), &expected["key"])?;
    let time = record.headers().find(|(name, _)| *name == "ce_time").map(|(_, value)| String::from_utf8_lossy(value));
    compare("ce_time", &json!(time), &expected["ce_time"])?;
    let avro = read_avro(value_of(&record, schema), schema)?;
    let mut value = plain(&avro);
    let extras = value.as_object_mut().and_then(|value| value.remove("extras")).unwrap_or_default();
    compare("value", &value, &expected["value"])?;
    compare("extras", &extras, &expected["extras"])?;
    let restored = restore(value_of(&record, schema), schema).map_err(|error| error.to_string())?;
    compare("restored", &without_nulls(&restored), &without_nulls(&parse(body).unwrap()))
}

/// Avro as JSON: fields that are not null, timestamps in milliseconds.
fn plain(value: &apache_avro::types::Value) -> Json {
    use apache_avro::types::Value as Avro;
    match value {
        Avro::Union(_, inner) => plain(inner),
        Avro::Record(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), plain(value)))
            .filter(|(_, value)| !value.is_null())
            .collect(),
        Avro::Map(entries) => entries.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        Avro::Array(items) => items.iter().map(plain).collect(),
        Avro::String(text) => json!(text),
        Avro::Long(number) | Avro::TimestampMillis(number) => json!(number),
        Avro::Int(number) => json!(number),
        Avro::Double(number) => json!(number),
        Avro::Boolean(boolean) => json!(boolean),
        Avro::Null => Json::Null,
        other => panic!("no schema of ours has {other:?}"),
    }
}

#[test]
fn fingerprints_are_those_that_fastavro_computes() {
    let expected = read_json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fingerprints.json"));
    for label in ["activity", "journey", "queue", "other"] {
        let hex: String = schema_of(label).fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(json!(hex), expected[label], "{label}");
    }
}

#[test]
fn a_fingerprint_ignores_what_the_canonical_form_leaves_out() {
    let schema = |field: &str| {
        let identity = ["api_version", "name", "event_id", "event_type"];
        let identity = identity.map(|name| format!(r#"{{"name":"{name}","type":"string"}},"#)).concat();
        let extras = r#"{"name":"extras","type":{"type":"map","values":"string"},"default":{}}"#;
        let text = format!(r#"{{"type":"record","name":"R","fields":[{identity}{field},{extras}]}}"#);
        Schema::parse(&text).unwrap().fingerprint
    };
    let plain = schema(r#"{"name":"x","type":["null","long"],"default":null}"#);
    for attributed in [
        r#"{"name":"x","type":["null","long"],"default":null,"logicalType":"timestamp-millis"}"#,
        r#"{"name":"x","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null}"#,
        r#"{"name":"x","type":["null","long"],"default":null,"order":"ignore"}"#,
        r#"{"name":"x","type":["null",{"type":"long","precision":5,"scale":2}],"default":null}"#,
    ] {
        assert_eq!(schema(attributed), plain, "{attributed}");
    }
    let items = r#"{"name":"x","type":["null",{"type":"array","items":"string"LOGICAL}],"default":null}"#;
    let tags = items.replace("LOGICAL", r#","logicalType":"tags""#);
    assert_eq!(schema(&tags), schema(&items.replace("LOGICAL", "")));
}

/// Each entry of `extras` has its whole pointer: of a small body they could be gigabytes.
#[test]
fn extras_take_no_more_than_a_value_may() {
    const BYTES_MAX: usize = 1_000_000;
    let members: Vec<_> = (0..6500).map(|number| format!(r#""{number}":1"#)).collect();
    let name = "k".repeat(40_000);
    let body = format!(
        r#"{{"api_version":"v1","name":"com.asapp.event.journey","event_id":"e","event_type":"T","details":{{"last_flow_action_called_inputs":{{"{name}":{{{}}}}}}}}}"#,
        members.join(",")
    );
    let schema = schema_of("journey");
    let mut value = Vec::new();
    Parser::new(128).read(body.as_bytes(), |event| {
        Transcoder::up_to(BYTES_MAX).encode(&event.unwrap(), &schema.plan, &mut value).unwrap();
    });
    assert!((BYTES_MAX + 1..2 * BYTES_MAX).contains(&value.len()), "{} bytes: too large, and not by much", value.len());
}

/// What JSON does not allow, or allows only just; and what no schema has.
const ODD_VALUES: &[&[u8]] = &[
    b"",
    b" ",
    b"null",
    b"nul",
    b"nulll",
    b"true",
    b"truefalse",
    b"0",
    b"00",
    b"01",
    b"-0",
    b"-01",
    b"-",
    b"+1",
    b"1.",
    b".5",
    b"0.0",
    b"-0.0",
    b"-0.25",
    b"00.5",
    b"1.5.5",
    b"1e5",
    b"1E-5",
    b"1.5e400",
    b"5.0",
    b"0.1000000000000000055511151231257827021181583404541015625",
    b"2.2250738585072011e-308",
    b"999999999999999",
    b"999999999999999999",
    b"-999999999999999999",
    b"9007199254740993",
    b"9007199254740993.0",
    b"9223372036854775808",
    b"99999999999999999999",
    b"1 2",
    b"0x1",
    b"NaN",
    b"\"\"",
    b"\"",
    b"\"open",
    b"'single'",
    b"\"a\" \"b\"",
    b"\"\\\"",
    b"\"\\x\"",
    b"\"\\/\\b\\f\\n\\r\\t\\\\\\\"\"",
    b"\"tab\there\"",
    b"\"0123456\x019\"",
    b"\"nul \0\"",
    b"\"\x01\"",
    b"\"\x7f\"",
    b"\"\xff\"",
    b"\"0123456789\xc3\"",
    b"\"\xc3\xa9 0123456789\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xf0\x9f\x98\x80\"",
    b"\"\\u00e9\\u0000\"",
    b"\"\\u00G0\"",
    b"\"\\u12\"",
    b"\"\\ud83d\\ude00\"",
    b"\"\\ud83d\\ue000\"",
    b"\"\\ud83d\\ud83d\"",
    b"\"\\ud83dx\"",
    b"\"\\ude00\"",
    b"\"2022-06-21T20:10:24.411Z\"",
    b"\"2022-06-21T20:10:24Z\"",
    b"\"2022-06-31T20:10:24.411Z\"",
    b"\"0000-06-21T20:10:24.411Z\"",
    b"\"2022-06-21T20:10:24.411Z",
    b"\"2022-06-21T20:10:24.41\\u0031Z\"",
    b"[]",
    b"[",
    b"[,]",
    b"[\"a\",]",
    b"[\"a\" \"b\"]",
    b"[\"a\",null]",
    b"[[\"a\"]]",
    b"[1}",
    b"{}",
    b"{",
    b"{,}",
    b"{\"a\":1,}",
    b"{\"a\" 1}",
    b"{\"a\":}",
    b"{a:1}",
    b"{\"a\":1]",
    b"{\"a\":1,\"a\":1}",
    b"{\"a\":1,\"\\u0061\":1}",
    b"{\"a\":null,\"a\":null}",
    b"{\"a\":{},\"b\":{},\"a\":{}}",
    b"{\"a\":{\"value\":\"1\"},\"b\":null,\"c\":{\"value\":\"2\",\"more\":[{\"x/~\":0.5}]}}",
    b"{\"a\":[{\"b\":1,\"b\":2}]}",
    b"{\"\xc3\":1}",
    b"{\"a\tb\":1}",
];

/// Neither way is to see more or less in a text than the other.
#[test]
fn odd_texts_are_the_same_with_and_without_a_tape() {
    let event = |feed: &str, meta: &[u8], data: &[u8], details: &[u8], id: &[u8], behind: &[u8]| {
        let head = format!(r#"{{"api_version":"v1","name":"com.asapp.event.{feed}","meta_data":{{"#);
        let parts: [&[u8]; 10] = [
            head.as_bytes(),
            meta,
            br#"},"data":{"#,
            data,
            br#"},"event_id":"#,
            id,
            br#","event_type":"T","details":{"#,
            details,
            b"}}",
            behind,
        ];
        parts.concat()
    };
    let with = |name: &str, value: &[u8]| [format!("\"{name}\":").as_bytes(), value].concat();
    let long_map = (0..40).map(|key| format!(r#""k{key}":{{"value":"{key}"}}"#)).collect::<Vec<_>>().join(",");
    let deep = |levels: usize| [b"[".repeat(levels), b"]".repeat(levels)].concat();
    let more = [format!("{{{long_map}}}").into_bytes(), deep(126), deep(127)];
    let (mut events, mut records) = (0, 0);
    let mut judge = |body: Vec<u8>| {
        events += 1;
        records += usize::from(translate(&body).is_ok());
    };
    for value in ODD_VALUES.iter().copied().chain(more.iter().map(Vec::as_slice)) {
        for (feed, name) in [
            ("journey", "is_ghost_customer"),
            ("journey", "queued_ms"),
            ("journey", "queued_ts"),
            ("journey", "intent_code"),
            ("journey", "last_flow_action_called_inputs"),
            ("journey", "survey_responses"),
            ("queue", "estimated_wait_time_seconds"),
            ("queue", "unknown"),
        ] {
            judge(event(feed, b"", b"", &with(name, value), b"\"1\"", b""));
            // As one of several, out of order, and a second time.
            let between =
                [&with("customer_utterance_ct", b"1"), &b","[..], &with(name, value), b",", &with("zz", value)];
            judge(event(feed, b"", b"", &between.concat(), b"\"1\"", b""));
            judge(event(feed, b"", b"", &[&with(name, value), &b","[..], &with(name, b"null")].concat(), b"1", b""));
        }
        judge(event("queue", b"", &with("queue_id", value), b"", b"\"1\"", b""));
        judge(event("queue", b"", &with("business_hours_start_minutes", value), b"", b"\"1\"", b""));
        judge(event("activity", &with("event_time", value), b"", b"", b"\"1\"", b""));
        judge(event("activity", &with("company_segments", value), b"", b"", b"\"1\"", b""));
        judge(event("activity", b"", b"", b"", value, b""));
        judge(event("activity", b"", b"", b"", b"\"1\"", value));
        judge([value, &event("activity", b"", b"", b"", b"\"1\"", b" \n")].concat());
    }
    judge(event("activity", b"", b"", b"", b"\"1\"", b"\0"));
    judge([&b"\xef\xbb\xbf"[..], &event("activity", b"", b"", b"", b"\"1\"", b"")].concat());
    assert!(records > 500 && events - records > 500, "{records} of {events} are events: both kinds are judged");
}

/// Key and time are where the document has them, with a field or without.
#[test]
fn a_key_or_a_time_that_the_schema_does_not_name_is_found_all_the_same() {
    let mut feed = feed::built_in().into_iter().find(|feed| feed.label == "queue").unwrap();
    let SchemaSource::BuiltIn(queue) = feed.schema else { unreachable!("a built-in schema") };
    let fields = ["api_version", "name", "event_id", "event_type"]
        .map(|name| format!(r#"{{"name":"{name}","type":"string"}},"#));
    let fields =
        fields.concat() + r#"{"name":"data","type":["null",{"type":"map","values":"string"}],"default":null},"#;
    let extras = r#"{"name":"extras","type":{"type":"map","values":"string"},"default":{}}"#;
    let bare = format!(r#"{{"type":"record","name":"Bare","fields":[{fields}{extras}]}}"#);
    let body = br#"{"api_version":"v1","name":"n","event_id":"1","event_type":"T","meta_data":{"event_time":"2022-06-21T20:10:24.411Z"},"data":{"queue_id":"q","nobody":"k"}}"#;
    for (schema, keys, key) in [
        (queue, ["/data/nobody", "/data/queue_id"], "k"),
        (queue, ["/data/queue_id", "/data/nobody"], "q"),
        (queue, ["/nobody", "/data/queue_id"], "q"),
        (&*bare, ["/data/nobody", "/data/queue_id"], "k"),
        (&*bare, ["/meta_data/nobody", "/event_id"], "1"),
    ] {
        feed.key = keys.map(str::to_owned).to_vec();
        let route = Route::new(&feed, Schema::parse(schema).unwrap());
        let mut record = Record::default();
        Parser::new(128)
            .read(body, |event| fill(&route, &mut record, &event.unwrap(), body, &mut Transcoder::default()))
            .unwrap();
        assert_eq!(record.key(), Some(key.as_bytes()), "{keys:?}");
        assert!(record.headers().any(|header| header == ("ce_time", b"2022-06-21T20:10:24.411Z")), "{keys:?}");
    }
}

/// Every path of the plan's fields, `*` for an array's items or a map's values.
fn paths(plan: &Plan, prefix: &str, all: &mut BTreeSet<String>) {
    fn kind_paths(kind: &Kind, path: &str, all: &mut BTreeSet<String>) {
        match kind {
            Kind::Record(plan) => paths(plan, path, all),
            Kind::Array(items) => kind_paths(items, &format!("{path}/*"), all),
            Kind::Map(values) => kind_paths(values, &format!("{path}/*"), all),
            _ => drop(all.insert(path.to_owned())),
        }
    }
    for field in &plan.fields {
        kind_paths(&field.kind, &format!("{prefix}/{}", field.name()), all);
    }
}

#[test]
fn every_field_of_the_samples_has_its_place_in_the_schema() {
    for (label, files) in [
        ("activity", ["activity.sample.json"].as_slice()),
        ("journey", &["journey.sample.json", "journey.newer.json"]),
        ("queue", &["queue.sample.typed.json", "queue.newer.json"]),
    ] {
        for file in files {
            let body = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/events").join(file)).unwrap();
            let (route, record) = translate(&body).unwrap();
            assert_eq!(route.label, label);
            let value = plain(&read_avro(value_of(&record, &route.schema), &route.schema).unwrap());
            assert_eq!(value["extras"], json!({}), "{file}");
        }
        let mut all = BTreeSet::new();
        paths(&schema_of(label).plan, "", &mut all);
        assert!(all.len() > 30, "{label} has {} fields", all.len());
    }
}

/// A value that fits `kind`, or (mostly not) anything else.
fn value_for(kind: &Kind) -> BoxedStrategy<Json> {
    let fits = match kind {
        Kind::Boolean => any::<bool>().prop_map(Json::from).boxed(),
        Kind::Int => any::<i32>().prop_map(Json::from).boxed(),
        Kind::Long => number(),
        Kind::Float | Kind::Double => number(),
        Kind::String => text().prop_map(Json::from).boxed(),
        Kind::JsonText => anything(),
        Kind::TimestampMillis => timestamp().prop_map(Json::from).boxed(),
        Kind::Record(plan) => document(plan, 0.5),
        Kind::Array(items) => prop::collection::vec(value_for(items), 0..4).prop_map(Json::from).boxed(),
        Kind::Map(values) => prop::collection::vec((text(), value_for(values)), 0..4)
            .prop_map(|entries| Json::Object(entries.into_iter().collect()))
            .boxed(),
        Kind::Extras => unreachable!("no member leads there"),
    };
    prop_oneof![8 => fits, 1 => anything(), 1 => Just(Json::Null)].boxed()
}

/// Members for some of the plan's fields, and some that it does not know.
fn document(plan: &Plan, share: f64) -> BoxedStrategy<Json> {
    let fields: Vec<_> = plan
        .fields
        .iter()
        .filter(|field| !matches!(field.kind, Kind::Extras) && field.nullable)
        .map(|field| (Just(field.name().to_owned()), prop::option::weighted(share, value_for(&field.kind))))
        .collect();
    let unknown = prop::collection::vec(
        (prop_oneof![text(), Just("extras".to_owned()), Just("a/b~c".to_owned())], anything()),
        0..3,
    );
    (fields, unknown)
        .prop_map(|(fields, unknown)| {
            let known = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
            unknown.into_iter().chain(known).collect::<Map<_, _>>().into()
        })
        .boxed()
}

/// A whole event of one feed; the identity is what makes it one.
fn event(label: &'static str) -> BoxedStrategy<Json> {
    let schema = schema_of(label);
    let name =
        if label == "other" { "com.asapp.event.coaching".to_owned() } else { format!("com.asapp.event.{label}") };
    (document(&schema.plan, 0.9), "[a-z0-9-]{1,36}")
        .prop_map(move |(mut document, id)| {
            for (member, value) in [("api_version", "v1.3.0"), ("name", &name), ("event_id", &id), ("event_type", "T")]
            {
                document[member] = json!(value);
            }
            document
        })
        .boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        4 => "[a-z_]{0,12}",
        2 => any::<String>(),
        1 => prop::sample::select(vec!["", "\0", "\"\\/\u{8}\u{c}\n\r\t", "\u{2028}\u{1F600}", "é", "~0~1/"]).prop_map(str::to_owned),
        1 => "[a-z]{100,300}",
    ]
    .boxed()
}

fn number() -> BoxedStrategy<Json> {
    prop_oneof![
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        (-100_i64..100).prop_map(Json::from),
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(Json::from),
        (-1_000_000_i64..1_000_000).prop_map(|number| Json::from(number as f64)),
        prop::sample::select(vec![0.0, -0.0, 5e-324, 1.7e308, 9_007_199_254_740_993.0, 1e18, 1e19, 1e22])
            .prop_map(Json::from),
        prop::sample::select(vec![i64::MIN, i64::MAX, 9_007_199_254_740_993]).prop_map(Json::from),
    ]
    .boxed()
}

fn timestamp() -> BoxedStrategy<String> {
    prop_oneof![
        6 => (-62_135_596_800_000_i64..=253_402_300_799_999).prop_map(|millis| print_millis(millis).unwrap()),
        1 => "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?([Zz]|[+-][0-2][0-9]:[0-5][0-9])",
        1 => text(),
    ]
    .boxed()
}

fn anything() -> BoxedStrategy<Json> {
    let leaf = prop_oneof![Just(Json::Null), any::<bool>().prop_map(Json::from), number(), text().prop_map(Json::from)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((text(), inner), 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
    .boxed()
}

/// The document's text, with its member number `twice` standing in its object once more, as its last.
fn text_with_a_duplicate(document: &Json, twice: &mut usize, text: &mut String) {
    match document {
        Json::Object(members) => {
            let mut again = None;
            text.push('{');
            for (position, (key, value)) in members.iter().enumerate() {
                again = if *twice == 0 { Some((key, value)) } else { again };
                *twice = twice.wrapping_sub(1);
                text.push_str(&format!("{}{}:", if position > 0 { "," } else { "" }, json!(key)));
                text_with_a_duplicate(value, twice, text);
            }
            if let Some((key, value)) = again {
                text.push_str(&format!(",{}:{value}", json!(key)));
            }
            text.push('}');
        }
        Json::Array(elements) => {
            text.push('[');
            for (position, element) in elements.iter().enumerate() {
                text.push_str(if position > 0 { "," } else { "" });
                text_with_a_duplicate(element, twice, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// How many members its objects have, at all depths.
fn count_members(document: &Json) -> usize {
    match document {
        Json::Object(members) => members.len() + members.values().map(count_members).sum::<usize>(),
        Json::Array(elements) => elements.iter().map(count_members).sum(),
        _ => 0,
    }
}

fn any_event() -> impl Strategy<Value = Json> {
    prop_oneof![
        event("activity"),
        event("journey"),
        event("queue"),
        event("other"),
        usual_event("activity"),
        usual_event("journey"),
        usual_event("queue")
    ]
}

/// An event as senders write it: each value fits its field, and what the schema does not name is plain.
fn usual_event(label: &'static str) -> BoxedStrategy<Json> {
    let name = format!("com.asapp.event.{label}");
    (usual_document(&schema_of(label).plan), ["[a-z0-9é-]{1,36}"; 3])
        .prop_map(move |(mut document, [api_version, id, event_type])| {
            for (member, value) in
                [("api_version", &api_version), ("name", &name), ("event_id", &id), ("event_type", &event_type)]
            {
                document[member] = json!(value);
            }
            document
        })
        .boxed()
}

fn usual_document(plan: &Plan) -> BoxedStrategy<Json> {
    let fields: Vec<_> = plan
        .fields
        .iter()
        .filter(|field| !matches!(field.kind, Kind::Extras))
        .map(|field| {
            let value = prop_oneof![12 => usual_value(&field.kind), 1 => Just(Json::Null)];
            (Just(field.name().to_owned()), prop::option::weighted(0.6, value))
        })
        .collect();
    let unknown =
        prop::collection::vec((prop_oneof!["x-[a-zé~/]{0,9}", Just("extras".to_owned())], plain_json()), 0..3);
    (fields, unknown)
        .prop_map(|(fields, unknown)| {
            let known = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
            known.chain(unknown).collect::<Vec<_>>()
        })
        .prop_flat_map(|members| prop_oneof![Just(members.clone()), Just(members).prop_shuffle()])
        .prop_map(|members| Json::Object(members.into_iter().collect()))
        .boxed()
}

fn usual_value(kind: &Kind) -> BoxedStrategy<Json> {
    match kind {
        Kind::Boolean => any::<bool>().prop_map(Json::from).boxed(),
        Kind::Int => any::<i32>().prop_map(Json::from).boxed(),
        Kind::Long => usual_long().boxed(),
        Kind::Float | Kind::Double => usual_double().boxed(),
        Kind::String => prop_oneof![20 => "[ -!#-\\[\\]-~é]{0,40}".boxed(), 1 => text()].prop_map(Json::from).boxed(),
        Kind::TimestampMillis => {
            (-62_135_596_800_000_i64..=253_402_300_799_999).prop_map(|millis| json!(print_millis(millis))).boxed()
        }
        Kind::Record(plan) => usual_document(plan),
        Kind::Array(items) => prop_oneof![
            9 => prop::collection::vec(usual_value(items), 0..4),
            1 => usual_value(items).prop_map(|item| vec![item; 200])
        ]
        .prop_map(Json::from)
        .boxed(),
        Kind::Map(values) => prop::collection::vec(("[a-z~/é]{0,9}", usual_value(values)), 0..4)
            .prop_map(|entries| Json::Object(entries.into_iter().collect()))
            .boxed(),
        Kind::JsonText | Kind::Extras => unreachable!("no feed of these has it, and no member leads there"),
    }
}

fn usual_long() -> impl Strategy<Value = Json> {
    prop_oneof![-100_i64..100, -999_999_999_999_999_999_i64..=999_999_999_999_999_999].prop_map(Json::from)
}

fn usual_double() -> impl Strategy<Value = Json> {
    prop_oneof![
        (-1_000_000_i64..1_000_000).prop_map(|quarters| if quarters == 0 { 0.0 } else { quarters as f64 / 4.0 }.into()),
        (0.001..1_000_000.0).prop_map(|double: f64| double.into()),
        (-999_999_999_999_999_i64..=999_999_999_999_999).prop_map(Json::from),
    ]
}

fn plain_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        usual_long(),
        usual_double(),
        "[ -!#-\\[\\]-~é\u{1F600}]{0,30}".prop_map(Json::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec(("[a-z]{0,5}", inner), 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_in_translation(document in any_event(), pretty in any::<bool>()) {
        let body = if pretty { serde_json::to_vec_pretty(&document) } else { serde_json::to_vec(&document) }.unwrap();
        let (route, record) = translate(&body).map_err(|why| TestCaseError::fail(why.to_string()))?;
        gives_back(&record, &route.schema, &document).map_err(TestCaseError::fail)?;
    }

    /// What makes the tape a way for the unusual alone. That both ways agree is judged for every document here.
    #[test]
    fn an_event_as_senders_write_it_needs_no_tape(
        document in prop_oneof![usual_event("activity"), usual_event("journey"), usual_event("queue")],
        pretty in any::<bool>(),
    ) {
        let body = if pretty { serde_json::to_vec_pretty(&document) } else { serde_json::to_vec(&document) }.unwrap();
        let (route, _) = translate(&body).map_err(|why| TestCaseError::fail(why.to_string()))?;
        // A key or an identity with escapes does.
        let may_need_it = body.contains(&b'\\');
        match directly(route, &body) {
            Some((record, _)) => gives_back(&record, &route.schema, &document).map_err(TestCaseError::fail)?,
            None => prop_assert!(may_need_it, "it needed the tape"),
        }
    }

    #[test]
    fn a_member_that_stands_twice_is_seen_wherever_it_stands(document in any_event(), at in any::<prop::sample::Index>()) {
        let mut text = String::new();
        text_with_a_duplicate(&document, &mut at.index(count_members(&document)), &mut text);
        prop_assert_eq!(translate(text.as_bytes()).map(drop), Err(Unreadable::Duplicate), "{}", text);
    }

    #[test]
    fn any_bytes_are_an_event_or_a_reason(body in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = translate(&body);
    }

    #[test]
    fn a_broken_event_is_an_event_or_a_reason(document in any_event(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = serde_json::to_vec(&document).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok((route, record)) = translate(&body) {
            let document = parse(&body).map_err(|error| TestCaseError::fail(format!("simd-json read what serde_json does not: {error}")))?;
            gives_back(&record, &route.schema, &document).map_err(TestCaseError::fail)?;
        }
    }
}
