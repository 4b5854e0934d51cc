//! Record values back into Avro values and JSON, by apache-avro: the oracle, independent of the bridge's own code.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use serde_json::Value as Json;

use super::registry::Registry;

/// Decodes what stands in Confluent's wire format: a zero byte, the schema's id in 4 bytes big-endian, the Avro datum.
pub struct Decoder<'r> {
    registry: &'r Registry,
    schemas: Mutex<HashMap<u32, Arc<Schema>>>,
}

impl<'r> Decoder<'r> {
    pub fn new(registry: &'r Registry) -> Self {
        Self { registry, schemas: Mutex::default() }
    }

    pub fn decode(&self, wire: &[u8]) -> Value {
        let id = schema_id(wire);
        let mut schemas = self.schemas.lock().unwrap();
        let schema =
            schemas.entry(id).or_insert_with(|| Arc::new(Schema::parse_str(&self.registry.schema(id)).unwrap()));
        let schema = Arc::clone(schema);
        drop(schemas);
        datum(&schema, &wire[5..])
    }

    pub fn decode_json(&self, wire: &[u8]) -> Json {
        json(&self.decode(wire))
    }
}

/// The id in the wire format's header.
pub fn schema_id(wire: &[u8]) -> u32 {
    assert!(wire.len() >= 5 && wire[0] == 0, "not Confluent's wire format: {wire:02x?}");
    u32::from_be_bytes(wire[1..5].try_into().unwrap())
}

/// One Avro datum that fills `bytes` to the last one.
pub fn datum(schema: &Schema, mut bytes: &[u8]) -> Value {
    let reader = GenericDatumReader::builder(schema).build().unwrap();
    let value = reader.read_value(&mut bytes).expect("an Avro datum of this schema");
    assert!(bytes.is_empty(), "{} bytes after the datum", bytes.len());
    value
}

/// The value as JSON: fields that are null are left out, times are whole numbers in the unit of their type, bytes an
/// array of numbers. It does not apply `extras`; they are a member like any other.
pub fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Boolean(it) => (*it).into(),
        Value::Int(it) | Value::Date(it) | Value::TimeMillis(it) => (*it).into(),
        Value::Long(it)
        | Value::TimeMicros(it)
        | Value::TimestampMillis(it)
        | Value::TimestampMicros(it)
        | Value::TimestampNanos(it)
        | Value::LocalTimestampMillis(it)
        | Value::LocalTimestampMicros(it)
        | Value::LocalTimestampNanos(it) => (*it).into(),
        Value::Float(it) => (*it).into(),
        Value::Double(it) => (*it).into(),
        Value::String(it) | Value::Enum(_, it) => it.as_str().into(),
        Value::Bytes(it) | Value::Fixed(_, it) => it.as_slice().into(),
        Value::Union(_, it) => json(it),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
        Value::Record(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), json(value)))
            .filter(|(_, value)| !value.is_null())
            .collect(),
        other => panic!("no schema of ours has a {other:?}"),
    }
}
