//! Avro bytes -> the JSON document, for `tail`, `dev` and the tests.

use apache_avro::{reader::datum::GenericDatumReader, types::Value as Avro};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::{
    schema::{Kind, Plan, Schema},
    transcode::print_millis,
};

/// Why no document can be made of a record.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The bytes are not a value of this schema.
    #[error("not Avro of this schema: {0}")]
    Avro(#[from] Box<apache_avro::Error>),
    /// This pointer in `extras` leads nowhere.
    #[error("`extras` names {0}, which has no place in the record")]
    Pointer(String),
    /// The text at this pointer, or of a field, is no JSON.
    #[error("`{0}` holds no JSON text")]
    Json(String),
}

/// Restores the document from `value` (Avro, without prefix). Null members are absent; `extras` wins over the fields.
///
/// # Errors
/// [`RestoreError`]: `value` was not written by `schema`, or its `extras` lead nowhere.
pub fn restore(value: &[u8], schema: &Schema) -> Result<Json, RestoreError> {
    restore_with_extras(value, schema).map(|(document, _)| document)
}

/// As [`restore`], with the sorted pointers of `extras`: in the document their values are members like any other.
///
/// # Errors
/// As [`restore`].
pub fn restore_with_extras(mut value: &[u8], schema: &Schema) -> Result<(Json, Vec<String>), RestoreError> {
    let reader = GenericDatumReader::builder(&schema.avro).build().map_err(Box::new)?;
    let record = reader.read_value(&mut value).map_err(Box::new)?;
    let mut extras = Vec::new();
    let mut document = record_to_json(record, &schema.plan, &mut extras)?;
    let mut pointers = Vec::with_capacity(extras.len());
    for (pointer, text) in extras {
        let part = parse(&text).map_err(|_| RestoreError::Json(pointer.clone()))?;
        put(&mut document, &pointer, part)?;
        pointers.push(pointer);
    }
    pointers.sort_unstable();
    Ok((document, pointers))
}

fn record_to_json(value: Avro, plan: &Plan, extras: &mut Vec<(String, String)>) -> Result<Json, RestoreError> {
    let Avro::Record(values) = value else { return Ok(Json::Null) };
    let mut object = Map::new();
    for ((name, value), field) in values.into_iter().zip(&plan.fields) {
        match (&field.kind, value) {
            (Kind::Extras, Avro::Map(entries)) => {
                extras.extend(entries.into_iter().filter_map(|(pointer, text)| match text {
                    Avro::String(text) => Some((pointer, text)),
                    _ => None,
                }));
            }
            (kind, value) => {
                let json = value_to_json(value, kind, extras)?;
                if !json.is_null() {
                    object.insert(name, json);
                }
            }
        }
    }
    Ok(Json::Object(object))
}

fn value_to_json(value: Avro, kind: &Kind, extras: &mut Vec<(String, String)>) -> Result<Json, RestoreError> {
    Ok(match (value, kind) {
        (Avro::Union(_, inner), kind) => value_to_json(*inner, kind, extras)?,
        (record @ Avro::Record(_), Kind::Record(plan)) => record_to_json(record, plan, extras)?,
        (Avro::Array(items), Kind::Array(kind)) => {
            items.into_iter().map(|item| value_to_json(item, kind, extras)).collect::<Result<_, _>>()?
        }
        (Avro::Map(entries), Kind::Map(kind)) => Json::Object(
            entries
                .into_iter()
                .map(|(key, value)| Ok((key, value_to_json(value, kind, extras)?)))
                .collect::<Result<_, RestoreError>>()?,
        ),
        (Avro::String(text), Kind::JsonText) => {
            parse(&text).map_err(|_| RestoreError::Json("a JSON text field".to_owned()))?
        }
        (Avro::String(text), _) => Json::String(text),
        (Avro::TimestampMillis(millis), _) => print_millis(millis).map_or_else(|| Json::from(millis), Json::String),
        (Avro::Boolean(boolean), _) => Json::Bool(boolean),
        (Avro::Int(number), _) => Json::from(number),
        (Avro::Long(number), _) => Json::from(number),
        (Avro::Float(number), _) => Json::from(f64::from(number)),
        (Avro::Double(number), _) => Json::from(number),
        // A plan has no other type.
        (_, _) => Json::Null,
    })
}

/// Reads JSON text that the bridge wrote. The configured `depth_max` may exceed serde_json's limit of 128 levels, so
/// that limit is off.
fn parse(text: &str) -> serde_json::Result<Json> {
    let mut text = serde_json::Deserializer::from_str(text);
    text.disable_recursion_limit();
    Json::deserialize(&mut text)
}

/// Puts `part` at an RFC 6901 pointer; the last token may name a member that is not there yet.
fn put(document: &mut Json, pointer: &str, part: Json) -> Result<(), RestoreError> {
    let lost = || RestoreError::Pointer(pointer.to_owned());
    let (parent, last) = pointer.rsplit_once('/').ok_or_else(lost)?;
    match document.pointer_mut(parent).ok_or_else(lost)? {
        Json::Object(object) => {
            object.insert(last.replace("~1", "/").replace("~0", "~"), part);
        }
        Json::Array(array) => {
            let index = last.parse::<usize>().map_err(|_| lost())?;
            *array.get_mut(index).ok_or_else(lost)? = part;
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => return Err(lost()),
    }
    Ok(())
}
