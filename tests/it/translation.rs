//! Bytes -> Avro -> JSON without a broker: the table of cases, and the property that nothing is lost.

use std::{collections::BTreeSet, fs, path::Path};

use causeway::{
    event::Unreadable,
    restore::restore,
    schema::{Kind, Plan},
    transcode::print_millis,
};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use crate::judgement::{gives_back, parse, read_avro, translate, value_of};
pub use crate::judgement::{same, schema_of, without_nulls};

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
        kind_paths(&field.kind, &format!("{prefix}/{}", field.name), all);
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
        .map(|field| (Just(field.name.clone()), prop::option::weighted(share, value_for(&field.kind))))
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
    prop_oneof![event("activity"), event("journey"), event("queue"), event("other")]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_in_translation(document in any_event(), pretty in any::<bool>()) {
        let body = if pretty { serde_json::to_vec_pretty(&document) } else { serde_json::to_vec(&document) }.unwrap();
        let (route, record) = translate(&body).map_err(|why| TestCaseError::fail(why.to_string()))?;
        gives_back(&record, &route.schema, &document).map_err(TestCaseError::fail)?;
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
