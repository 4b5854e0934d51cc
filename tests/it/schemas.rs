//! The schemas as a contract: what readers of other versions see, and what the registry holds and enforces.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use apache_avro::{
    Schema as Avro, reader::datum::GenericDatumReader, schema_compatibility::SchemaCompatibility, types::Value,
};
use causeway::{
    event::Parser,
    feed::{self, SchemaSource},
    record::{Origin, Record, Route, single_object_prefix},
    restore::restore,
    schema::Schema,
    transcode::Transcoder,
};
use serde_json::{Value as Json, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    commands::{put, run, stdout},
    support::{
        self,
        avro::{Decoder, json as avro_json, schema_id},
        bridge::Setup,
        client::Http,
        process::Child,
        scratch,
        starting::Starting,
        wait_until,
    },
    translation::{same, without_nulls},
};

const FEEDS: [&str; 4] = ["activity", "journey", "queue", "other"];

/// An event of the feed, with most of what its schema names.
fn sample(label: &str) -> Vec<u8> {
    let file = match label {
        "queue" => "queue.sample.typed.json",
        "other" => return include_bytes!("../data/schemas/coaching.event.json").to_vec(),
        label => &format!("{label}.sample.json"),
    };
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/events").join(file)).unwrap()
}

fn text_of(label: &str) -> &'static str {
    let feed = feed::built_in().into_iter().find(|feed| feed.label == label).unwrap();
    let SchemaSource::BuiltIn(text) = feed.schema else { unreachable!("a built-in feed") };
    text
}

/// The schema without every other nullable field, and without `details` as a whole: what an earlier version may have been.
fn older(text: &str) -> String {
    fn thin(schema: &mut Json) {
        if let Some(fields) = schema.get_mut("fields").and_then(Json::as_array_mut) {
            let mut nullable = 0;
            fields.retain(|field| {
                // A record may be named again further down.
                let defines = field["type"].to_string().contains("\"record\"");
                nullable += usize::from(field["type"].is_array());
                field["name"] != "details" && (!field["type"].is_array() || defines || nullable % 2 == 1)
            });
        }
        match schema {
            Json::Object(members) => members.values_mut().for_each(thin),
            Json::Array(items) => items.iter_mut().for_each(thin),
            _ => {}
        }
    }
    let mut schema = serde_json::from_str(text).unwrap();
    thin(&mut schema);
    schema.to_string()
}

/// The Avro datum that the bridge's translation makes of `body` by this schema.
fn write(label: &str, schema: &Schema, body: &[u8]) -> Vec<u8> {
    let feed = feed::built_in().into_iter().find(|feed| feed.label == label).unwrap();
    let origin = Origin {
        received_at: 0,
        sender: Arc::from("cn:test"),
        content_type: None,
        content_encoding: None,
        traceparent: None,
        tracestate: None,
        attempts: 0,
    };
    Parser::new(128).read(body, |event| {
        let mut record = Record::default();
        let route = Route::new(&feed, schema.clone());
        route.fill(&mut record, &event.unwrap(), body, &origin, &mut Transcoder::default()).unwrap();
        record.value().strip_prefix(single_object_prefix(schema.fingerprint).as_slice()).unwrap().to_vec()
    })
}

/// Read as Avro's schema resolution says: written by one schema, read by another.
fn read(writer: &Avro, reader: &Avro, mut bytes: &[u8]) -> Value {
    let value = GenericDatumReader::builder(writer).reader_schema(reader).build().unwrap().read_value(&mut bytes);
    assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
    value.unwrap()
}

/// Every member of `part` stands in `whole` with the same value.
fn assert_within(part: &Json, whole: &Json, path: &str) {
    match (part, whole) {
        (Json::Object(part), Json::Object(whole)) => {
            for (name, part) in part {
                let whole = whole.get(name).unwrap_or_else(|| panic!("{path}/{name} is new"));
                assert_within(part, whole, &format!("{path}/{name}"));
            }
        }
        (Json::Array(part), Json::Array(whole)) => {
            assert_eq!(part.len(), whole.len(), "{path}");
            part.iter().zip(whole).for_each(|(part, whole)| assert_within(part, whole, &format!("{path}/*")));
        }
        (part, whole) => assert!(same(part, whole), "{path}: {part} is not {whole}"),
    }
}

#[test]
fn older_readers_read_newer_records_and_newer_readers_older_ones() {
    for label in FEEDS {
        let (new, old) = (Schema::parse(text_of(label)).unwrap(), Schema::parse(&older(text_of(label))).unwrap());
        assert!(old.text.len() * 4 < new.text.len() * 3, "{label}: the older schema has much less");
        SchemaCompatibility::mutual_read(&new.avro, &old.avro).unwrap();
        let body = sample(label);
        let (new_bytes, old_bytes) = (write(label, &new, &body), write(label, &old, &body));
        let (newest, oldest) = (read(&new.avro, &new.avro, &new_bytes), read(&old.avro, &old.avro, &old_bytes));

        let seen_by_old = avro_json(&read(&new.avro, &old.avro, &new_bytes));
        assert_within(&seen_by_old, &avro_json(&newest), label);
        // But for `extras`, it is what the older bridge would have written itself.
        let without_extras = |mut value: Json| {
            value.as_object_mut().unwrap().remove("extras");
            value
        };
        assert!(same(&without_extras(seen_by_old), &without_extras(avro_json(&oldest))), "{label}");

        let seen_by_new = avro_json(&read(&old.avro, &new.avro, &old_bytes));
        assert!(same(&seen_by_new, &avro_json(&oldest)), "{label}: what was not written is null");
        // What the older schema does not name is in its `extras`: the whole document comes back from both.
        let posted = without_nulls(&serde_json::from_slice(&body).unwrap());
        for (bytes, schema) in [(&new_bytes, &new), (&old_bytes, &old)] {
            assert!(same(&without_nulls(&restore(bytes, schema).unwrap()), &posted), "{label}");
        }
    }
}

/// Calls `see` with every field and where it stands. `closed` are the records that are defined to their end: only those
/// may be named, as a record that is named inside of itself is recursive.
fn walk(schema: &Json, path: &str, closed: &mut Vec<String>, see: &mut dyn FnMut(&str, &Json)) {
    match schema {
        Json::Array(branches) => {
            assert!(branches.len() <= 2, "{path}: a union of {} branches", branches.len());
            branches.iter().for_each(|branch| walk(branch, path, closed, see));
        }
        Json::Object(members) => match members["type"].as_str() {
            Some("record") => {
                for field in members["fields"].as_array().unwrap() {
                    let path = format!("{path}/{}", field["name"].as_str().unwrap());
                    see(&path, field);
                    walk(&field["type"], &path, closed, see);
                }
                closed.push(members["name"].as_str().unwrap().to_owned());
            }
            Some("array") => walk(&members["items"], &format!("{path}/*"), closed, see),
            Some("map") => walk(&members["values"], &format!("{path}/*"), closed, see),
            _ => walk(&members["type"], path, closed, see),
        },
        Json::String(name) => {
            let plain = ["null", "boolean", "int", "long", "float", "double", "string"];
            assert!(plain.contains(&name.as_str()) || closed.contains(name), "{path}: {name} is not defined yet");
        }
        other => panic!("{path}: {other} is no schema"),
    }
}

#[test]
fn every_field_is_nullable_and_documented_but_for_the_identity_and_extras() {
    for label in FEEDS {
        let schema: Json = serde_json::from_str(text_of(label)).unwrap();
        let mut fields = 0;
        walk(&schema, label, &mut Vec::new(), &mut |path, field| {
            fields += 1;
            assert!(field["doc"].as_str().is_some_and(|doc| !doc.trim().is_empty()), "{path} has no doc");
            let root = path.matches('/').count() == 1;
            match field["name"].as_str().unwrap() {
                "api_version" | "name" | "event_id" | "event_type" if root => {
                    assert_eq!(field["type"], "string", "{path}");
                    assert_eq!(field.get("default"), None, "{path}");
                }
                "extras" if root => {
                    assert_eq!(field["type"], json!({"type": "map", "values": "string"}), "{path}");
                    assert_eq!(field["default"], json!({}), "{path}");
                }
                _ => {
                    assert_eq!(field["type"].as_array().map(Vec::len), Some(2), "{path}");
                    assert_eq!(field["type"][0], "null", "{path}");
                    assert_eq!(field.get("default"), Some(&Json::Null), "{path}");
                }
            }
        });
        assert!(fields >= 8, "{label} has {fields} fields");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_holds_each_schema_and_lets_only_compatible_ones_follow() {
    let registry = support::registry();
    let bridge = Setup::new(support::kafka(), Some(registry)).start();
    let sender = bridge.sender(Http::Two);
    for label in FEEDS {
        let subject = format!("{}-value", bridge.topic(label));
        let (status, config) = registry.get(&format!("/config/{subject}"));
        assert_eq!((status, &config["compatibilityLevel"]), (200, &json!("FULL_TRANSITIVE")), "{subject}");
        assert_eq!(registry.get(&format!("/subjects/{subject}/versions")).1, json!([1]), "{subject}");

        let answer = sender.post("/", &[], sample(label)).await.unwrap();
        assert_eq!((answer.status, &answer.body["topic"]), (200, &json!(bridge.topic(label))));
        let record = support::kafka().read(&bridge.topic(label)).remove(0);
        let id = schema_id(record.value.as_deref().unwrap());
        let parsed = |text: &str| serde_json::from_str::<Json>(text).unwrap();
        assert_eq!(parsed(&registry.schema(id)), parsed(text_of(label)), "{subject}: what the record's id leads to");

        let with = |field: Json| {
            let mut schema = parsed(text_of(label));
            schema["fields"].as_array_mut().unwrap().insert(4, field);
            schema.to_string()
        };
        let added = with(json!({"name": "tenant", "type": ["null", "string"], "default": null, "doc": "New."}));
        let without_default = with(json!({"name": "tenant", "type": "string", "doc": "New."}));
        let other_type = with(json!({"name": "tenant", "type": ["null", "long"], "default": null, "doc": "New."}));
        let second = registry.register(&subject, &added).unwrap();
        assert_ne!(second, id, "{subject}");
        assert_eq!(registry.register(&subject, text_of(label)).unwrap(), id, "{subject}: the field may go again");
        for (schema, what) in [(without_default, "a field without a default"), (other_type, "a field of another type")]
        {
            let (status, body) = registry.register(&subject, &schema).unwrap_err();
            assert_eq!(status, 409, "{subject}: {what}: {body}");
        }
        SchemaCompatibility::mutual_read(&Avro::parse_str(&added).unwrap(), &Avro::parse_str(text_of(label)).unwrap())
            .unwrap();
    }
}

/// The older version's definition stood at a field that is gone, and the next field has it now: one schema refers to what the
/// other writes out.
#[test]
fn a_type_that_is_defined_at_another_field_is_compatible_for_us_as_for_the_registry() {
    let registry = support::registry();
    let setup = Setup::new(support::kafka(), Some(registry));
    let mut older: Json = serde_json::from_str(text_of("activity")).unwrap();
    let details = older["fields"].as_array_mut().unwrap().iter_mut().find(|field| field["name"] == "details").unwrap();
    let fields = details["type"][1]["fields"].as_array_mut().unwrap();
    let defines = fields.iter().position(|field| field["type"][1]["name"] == "Utilization").unwrap();
    let definition = fields.remove(defines)["type"][1].clone();
    let next = fields.iter_mut().find(|field| field["type"][1] == "Utilization").unwrap();
    next["type"][1] = definition;
    let subject = format!("{}-value", setup.topic("activity"));
    registry.register(&subject, &older.to_string()).unwrap();
    let told = run(&setup, &["schemas", "--json"]);
    let report: Json = serde_json::from_str(&stdout(&told)).unwrap();
    let ours = report["subjects"].as_array().unwrap().iter().find(|it| it["subject"] == subject.as_str()).unwrap();
    assert_eq!(ours["state"], "not registered; compatible with version 1", "{report}");
    registry.register(&subject, text_of("activity")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_schema_id_is_used_without_the_registry() {
    let closed = format!("http://127.0.0.1:{}", scratch::port());
    let mut setup = Setup::new(support::kafka(), None).set("registry.url", &closed);
    for (label, id) in FEEDS.iter().zip(["71", "72", "73", "2147483647"]) {
        setup = setup.set(&format!("feeds.{label}.schema_id"), id);
    }
    let bridge = setup.start();
    assert_eq!(bridge.get("/readyz").0, 200);
    let sender = bridge.sender(Http::One);
    for (label, id) in FEEDS.iter().zip([71, 72, 73, 2_147_483_647]) {
        assert_eq!(sender.post("/", &[], sample(label)).await.unwrap().status, 200, "{label}");
        let record = support::kafka().read(&bridge.topic(label)).remove(0);
        assert_eq!(schema_id(record.value.as_deref().unwrap()), id, "{label}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_without_our_schemas_keeps_the_bridge_unready_and_says_what_to_do() {
    let registry = support::registry();
    let setup = Setup::new(support::kafka(), Some(registry)).set("registry.auto_register", "false");
    let subjects = FEEDS.map(|label| format!("{}-value", setup.topic(label)));
    let mut starting = Starting::new(setup);
    let why = starting.waits_for("registry: ");
    assert!(why.contains(&subjects[0]), "{why}");
    assert!(why.contains("causeway schemas --apply") && why.contains("registry.auto_register"), "{why}");
    let (status, body) = registry.get(&format!("/subjects/{}/versions", subjects[0]));
    assert_eq!(status, 404, "nothing was registered: {body}");
    for (label, subject) in FEEDS.iter().zip(&subjects) {
        // Other white space, as any tool that reads and writes JSON leaves it, is the same schema.
        let text = serde_json::from_str::<Json>(text_of(label)).unwrap().to_string();
        registry.register(subject, &text).unwrap();
    }
    let bridge = starting.ready();
    assert_eq!(bridge.sender(Http::One).post("/", &[], sample("queue")).await.unwrap().status, 200);
    let record = support::kafka().read(&bridge.topic("queue")).remove(0);
    Decoder::new(registry).decode(record.value.as_deref().unwrap());
}

/// A door to the shared registry, which a test can open and shut without harm to the others.
struct Door {
    address: SocketAddr,
    passed: Arc<AtomicBool>,
    open: JoinSet<()>,
}

impl Door {
    fn shut() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], scratch::port())),
            passed: Arc::default(),
            open: JoinSet::new(),
        }
    }

    fn url(&self) -> String {
        support::registry().url().replace(&self.target(), &self.address.to_string())
    }

    fn target(&self) -> String {
        support::registry().url().trim_start_matches("http://").split('/').next().unwrap().to_owned()
    }

    async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (target, passed) = (self.target(), Arc::clone(&self.passed));
        self.open.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                passed.store(true, Ordering::Relaxed);
                let mut server = TcpStream::connect(&target).await.unwrap();
                connections.spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_comes_late_or_goes_away_turns_no_event_away() {
    let mut door = Door::shut();
    let setup = Setup::new(support::kafka(), Some(support::registry())).set("registry.url", &door.url());
    let mut starting = Starting::new(setup);
    let why = starting.waits_for("registry: ");
    assert!(why.contains(&door.address.to_string()) && why.contains("does not answer"), "{why}");
    assert!(!starting.accepts_connections(), "a sender is refused at once, not kept waiting");
    door.open().await;
    let bridge = starting.ready();
    assert!(door.passed.load(Ordering::Relaxed));
    let sender = bridge.sender(Http::One);
    assert_eq!(sender.post("/", &[], sample("journey")).await.unwrap().status, 200);

    door.open.shutdown().await;
    wait_until("the door is shut", || std::net::TcpStream::connect(door.address).is_err());
    for label in FEEDS {
        assert_eq!(sender.post("/", &[], sample(label)).await.unwrap().status, 200, "{label}: the registry is gone");
    }
    assert_eq!(bridge.get("/readyz").0, 200);
    let decoder = Decoder::new(support::registry());
    for label in FEEDS {
        for record in support::kafka().read(&bridge.topic(label)) {
            decoder.decode(record.value.as_deref().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_decodes_once_the_registry_answers_and_says_why_it_could_not() {
    let bridge = Setup::new(support::kafka(), Some(support::registry())).start();
    let mut door = Door::shut();
    let sender = bridge.sender(Http::One);
    // Another body each time: the same one would be joined.
    let post = async |number: usize| {
        let body = [sample("journey"), vec![b' '; number]].concat();
        assert_eq!(sender.post("/", &[], body).await.unwrap().status, 200);
    };
    post(0).await;
    let mut command = bridge.setup.command(&["tail", "--beginning", "--feed", "journey"]);
    let tail = Child::spawn("tail", command.env("CAUSEWAY_REGISTRY__URL", door.url()), &bridge.setup.dir);
    let lines = |words: &str| tail.stdout().lines().filter(|line| line.contains(words)).count();
    wait_until("it is shown undecoded", || lines("does not answer") == 1);
    door.open().await;
    let opened = Instant::now();
    while lines("\"event\":{") == 0 {
        let shown = lines("");
        assert!(opened.elapsed() < support::HANG, "{}", tail.tail());
        post(shown).await;
        wait_until("the next is shown", || lines("") > shown);
    }
    for _ in 0..2 {
        // No schema has this id.
        put(support::kafka(), &bridge.topic("journey"), "\0\0\u{1}\u{7}\u{8}", &[]);
    }
    wait_until("both say why", || lines("/schemas/ids/67336: HTTP 404") == 2);
}
