//! `.avsc` -> [`Plan`]: the translation follows the plan, which is compiled once at start.

use std::{collections::HashMap, sync::Arc};

use apache_avro::{
    Schema as Avro,
    rabin::Rabin,
    schema::{RecordSchema, ResolvedSchema},
};
use serde_json::Value as Json;

/// A field with this attribute is a string that holds the text of a JSON value.
const JSON_TEXT: &str = "causeway.json";

/// The root field for values that no other field can hold.
const EXTRAS: &str = "extras";

/// The four root members that every event has.
const IDENTITY: [&str; 4] = ["api_version", "name", "event_id", "event_type"];

/// One feed's schema, ready for translation and registration.
#[derive(Debug, Clone)]
pub struct Schema {
    /// The schema's text as in its file, with its `doc`s: the registry gets this.
    pub text: String,
    /// The parsed schema, for reading records back.
    pub avro: Arc<Avro>,
    /// CRC-64-AVRO of the Parsing Canonical Form, little-endian (Avro specification, single-object encoding).
    pub fingerprint: [u8; 8],
    /// The plan of the root record.
    pub plan: Plan,
}

/// A compiled schema of one record: its fields in the schema's order, and how to find one by its name.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The fields in the schema's order.
    pub fields: Vec<Field>,
    by_name: HashMap<String, usize, foldhash::fast::RandomState>,
}

/// One field of a record.
#[derive(Debug, Clone)]
pub struct Field {
    /// The name as it stands in JSON, with its quotes and the colon.
    pub member: Box<str>,
    /// Its marks; empty for most fields.
    pub marks: Marks,
    /// Whether it is the union `["null", kind]`.
    pub nullable: bool,
    /// Its type.
    pub kind: Kind,
}

impl Field {
    fn new(name: &str, nullable: bool, kind: Kind) -> Self {
        Self { member: format!("\"{name}\":").into(), marks: Marks::default(), nullable, kind }
    }

    /// The name.
    #[inline]
    pub fn name(&self) -> &str {
        self.member.get(1..self.member.len() - 2).unwrap_or_default()
    }
}

/// A field whose text the record's key or headers need; it may stand in a nested record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

/// The marks of one field: a bit for each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Marks(u16);

/// A value, or nothing, for each mark of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Marked<T>([Option<T>; Mark::MAX]);

impl Marks {
    /// Whether the field has no mark.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl<T: Copy> Marked<T> {
    /// Nothing for any mark.
    pub const NOTHING: Self = Self([None; Mark::MAX]);

    /// The value for this mark.
    pub fn get(&self, mark: Mark) -> Option<T> {
        self.0.get(mark.0).copied().flatten()
    }

    /// Sets the value for each of these marks.
    pub fn set(&mut self, marks: Marks, value: T) {
        for (position, marked) in self.0.iter_mut().enumerate() {
            if marks.0 & 1 << position != 0 {
                *marked = Some(value);
            }
        }
    }
}

impl Mark {
    /// The marks of an event's identity.
    pub const IDENTITY: [Self; 4] = [Self::API_VERSION, Self::NAME, Self::EVENT_ID, Self::EVENT_TYPE];
    /// The field `api_version`.
    pub const API_VERSION: Self = Self(0);
    /// The field `name`.
    pub const NAME: Self = Self(1);
    /// The field `event_id`.
    pub const EVENT_ID: Self = Self(2);
    /// The field `event_type`.
    pub const EVENT_TYPE: Self = Self(3);
    /// The field `/meta_data/event_time`.
    pub const EVENT_TIME: Self = Self(4);

    /// The mark of the feed's key pointer at this position; `None` when [`Self::MAX`] marks are in use.
    pub fn key(position: usize) -> Option<Self> {
        Some(Self(position + 5)).filter(|mark| mark.0 < Self::MAX)
    }

    const MAX: usize = 16;
}

/// The type of a field, of an array's items or of a map's values.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// A number of 32 bits, which must equal the number in the JSON exactly.
    Float,
    /// A number of 64 bits, which must equal the number in the JSON exactly.
    Double,
    /// Text of any length.
    String,
    /// A string that holds the text of any JSON value.
    JsonText,
    /// A time in milliseconds since 1970; in the JSON it is text (RFC 3339).
    TimestampMillis,
    /// An object with the members of this plan.
    Record(Box<Plan>),
    /// An array whose items are all of this kind.
    Array(Box<Kind>),
    /// An object with any members, whose values are all of this kind.
    Map(Box<Kind>),
    /// The root's last field: JSON pointer -> JSON text.
    Extras,
}

/// Why no plan can be made of a schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The text is no Avro schema.
    #[error("not an Avro schema: {0}")]
    Parse(#[from] Box<apache_avro::Error>),
    /// The text is no JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The root is no record.
    #[error("the root must be a record")]
    Root,
    /// The root lacks this member of the identity.
    #[error("the root record needs the field `{0}` of type \"string\"")]
    Identity(&'static str),
    /// The root does not end with `extras`.
    #[error(
        "the root record's last field must be {{\"name\": \"extras\", \"type\": {{\"type\": \"map\", \"values\": \"string\"}}, \"default\": {{}}}}"
    )]
    Extras,
    /// This field cannot be absent.
    #[error("field `{0}`: must be [\"null\", T] with default null, as any member may be missing")]
    NotNullable(String),
    /// This field's type is not supported.
    #[error(
        "field `{field}`: {found} is not supported; use boolean, int, long, float, double, string, timestamp-millis, a record, or an array or map of one of these"
    )]
    Unsupported { field: String, found: String },
    /// This field's record contains itself.
    #[error("field `{0}`: the record contains itself; a recursive schema is not supported")]
    Recursive(String),
}

impl Schema {
    /// Parses `text` and compiles its plan.
    ///
    /// # Errors
    /// `text` is no Avro schema, or one that could not take every event. The message names the field and the remedy.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        let avro = Avro::parse_str(text).map_err(Box::new)?;
        let Avro::Record(root) = &avro else { return Err(SchemaError::Root) };
        let resolved = ResolvedSchema::try_from(&avro).map_err(Box::new)?;
        let mut compiler = Compiler { resolved: &resolved, open: Vec::new() };
        let mut plan = compiler.record(root, "")?;
        seal_root(&mut plan, root)?;
        Ok(Self { text: text.to_owned(), fingerprint: fingerprint(text)?, plan, avro: Arc::new(avro) })
    }
}

/// Checks the root's own rules: four strings that must be there, and `extras` as the last field. No member's name leads
/// to `extras`.
fn seal_root(plan: &mut Plan, root: &RecordSchema) -> Result<(), SchemaError> {
    for name in IDENTITY {
        let field = plan.find(name).and_then(|at| plan.fields.get(at));
        if !field.is_some_and(|field| !field.nullable && matches!(field.kind, Kind::String)) {
            return Err(SchemaError::Identity(name));
        }
    }
    if let Some(field) =
        plan.fields.iter().find(|field| !field.nullable && !IDENTITY.contains(&field.name()) && field.name() != EXTRAS)
    {
        return Err(SchemaError::NotNullable(field.name().to_owned()));
    }
    let has_default =
        root.fields.last().is_some_and(|field| field.default == Some(Json::Object(serde_json::Map::new())));
    match plan.fields.last_mut() {
        Some(last) if last.name() == EXTRAS && !last.nullable && has_default => match &last.kind {
            Kind::Map(values) if matches!(**values, Kind::String) => last.kind = Kind::Extras,
            _ => return Err(SchemaError::Extras),
        },
        _ => return Err(SchemaError::Extras),
    }
    plan.by_name.remove(EXTRAS);
    for (name, mark) in IDENTITY.into_iter().zip(Mark::IDENTITY) {
        plan.mark(&[name.to_owned()], mark);
    }
    Ok(())
}

impl Plan {
    /// The position of the field called `name`.
    #[inline]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Marks the field at an RFC 6901 pointer, given as its tokens. False when the pointer may lead to a place that is
    /// no field: to a member that the schema does not name, or into an array, a map or a JSON text.
    pub fn mark(&mut self, tokens: &[String], mark: Mark) -> bool {
        let Some((name, rest)) = tokens.split_first() else { return false };
        let Some(field) = self.find(name).and_then(|at| self.fields.get_mut(at)) else { return false };
        match &mut field.kind {
            Kind::Record(plan) if !rest.is_empty() => plan.mark(rest, mark),
            Kind::Array(_) | Kind::Map(_) | Kind::JsonText | Kind::Extras => rest.is_empty(),
            // A record has no text.
            Kind::Record(_) => true,
            Kind::Boolean
            | Kind::Int
            | Kind::Long
            | Kind::Float
            | Kind::Double
            | Kind::String
            | Kind::TimestampMillis => {
                if rest.is_empty() {
                    field.marks.0 |= 1 << mark.0;
                }
                true
            }
        }
    }

    /// Whether a field holds the text of any JSON value.
    pub fn has_json_text(&self) -> bool {
        fn is_json_text(kind: &Kind) -> bool {
            match kind {
                Kind::JsonText => true,
                Kind::Record(plan) => plan.has_json_text(),
                Kind::Array(kind) | Kind::Map(kind) => is_json_text(kind),
                _ => false,
            }
        }
        self.fields.iter().any(|field| is_json_text(&field.kind))
    }
}

struct Compiler<'a> {
    resolved: &'a ResolvedSchema<'a>,
    /// The full names of the records that enclose the current field.
    open: Vec<String>,
}

impl Compiler<'_> {
    fn record(&mut self, record: &RecordSchema, path: &str) -> Result<Plan, SchemaError> {
        let name = record.name.fullname(None);
        if self.open.contains(&name) {
            return Err(SchemaError::Recursive(path.to_owned()));
        }
        self.open.push(name);
        let fields = record
            .fields
            .iter()
            .map(|field| {
                let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
                let json_text = field.custom_attributes.get(JSON_TEXT) == Some(&Json::Bool(true));
                let has_default = field.default == Some(Json::Null);
                let field = self.field(&field.name, &field.schema, json_text, &path)?;
                if field.nullable && !has_default {
                    return Err(SchemaError::NotNullable(path));
                }
                // Only the root has members that are always there; `seal_root` checks those.
                if !field.nullable && self.open.len() > 1 {
                    return Err(SchemaError::NotNullable(path));
                }
                Ok(field)
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.open.pop();
        let by_name = fields.iter().enumerate().map(|(at, field)| (field.name().to_owned(), at)).collect();
        Ok(Plan { fields, by_name })
    }

    fn field(&mut self, name: &str, schema: &Avro, json_text: bool, path: &str) -> Result<Field, SchemaError> {
        let (nullable, schema) = match schema {
            Avro::Union(union) => match union.variants() {
                [Avro::Null, kind] => (true, kind),
                _ => return Err(SchemaError::NotNullable(path.to_owned())),
            },
            plain => (false, plain),
        };
        let kind = match self.kind(schema, path)? {
            Kind::String if json_text => Kind::JsonText,
            kind => kind,
        };
        Ok(Field::new(name, nullable, kind))
    }

    fn kind(&mut self, schema: &Avro, path: &str) -> Result<Kind, SchemaError> {
        Ok(match schema {
            Avro::Boolean => Kind::Boolean,
            Avro::Int => Kind::Int,
            Avro::Long => Kind::Long,
            Avro::Float => Kind::Float,
            Avro::Double => Kind::Double,
            Avro::String => Kind::String,
            Avro::TimestampMillis => Kind::TimestampMillis,
            Avro::Record(record) => Kind::Record(self.record(record, path)?.into()),
            Avro::Array(array) => Kind::Array(Box::new(self.kind(&array.items, path)?)),
            Avro::Map(map) => Kind::Map(Box::new(self.kind(&map.types, path)?)),
            Avro::Ref { name } => match self.resolved.get_names().get(name) {
                Some(Avro::Record(record)) => Kind::Record(self.record(record, path)?.into()),
                _ => return Err(SchemaError::Unsupported { field: path.to_owned(), found: name.to_string() }),
            },
            other => {
                let found = apache_avro::schema::SchemaKind::from(other);
                return Err(SchemaError::Unsupported { field: path.to_owned(), found: format!("{found:?}") });
            }
        })
    }
}

/// The fingerprint that every reader computes. apache-avro's (0.22) canonical form wrongly keeps the attributes of
/// logical types and a field's `order`, so they are removed first.
fn fingerprint(text: &str) -> Result<[u8; 8], SchemaError> {
    let mut bare: Json = serde_json::from_str(text)?;
    strip(&mut bare);
    let schema = Avro::parse(&bare).map_err(Box::new)?;
    let bytes = schema.fingerprint::<Rabin>().bytes;
    Ok(bytes.try_into().unwrap_or_default())
}

fn strip(schema: &mut Json) {
    match schema {
        Json::Object(object) => {
            for attribute in ["logicalType", "precision", "scale", "order"] {
                object.remove(attribute);
            }
            object.values_mut().for_each(strip);
        }
        Json::Array(array) => array.iter_mut().for_each(strip),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(fields: &str, extras: &str) -> String {
        let identity = IDENTITY.map(|name| format!(r#"{{"name":"{name}","type":"string"}},"#)).concat();
        format!(r#"{{"type":"record","name":"R","fields":[{identity}{fields}{extras}]}}"#)
    }

    const EXTRAS_FIELD: &str = r#"{"name":"extras","type":{"type":"map","values":"string"},"default":{}}"#;

    #[test]
    fn a_schema_that_could_not_take_every_event_is_refused_by_field() {
        let nullable = |kind: &str| format!(r#"{{"name":"x","type":["null",{kind}],"default":null}},"#);
        for (text, expected) in [
            (root("", EXTRAS_FIELD), ""),
            (root(&nullable(r#"{"type":"array","items":"int"}"#), EXTRAS_FIELD), ""),
            (root("", r#"{"name":"e","type":["null","string"],"default":null}"#), "extras"),
            (root(&nullable("\"bytes\""), EXTRAS_FIELD), "field `x`: Bytes"),
            (root(r#"{"name":"x","type":"string"},"#, EXTRAS_FIELD), "field `x`: must be"),
            (
                root(&nullable(r#"{"type":"record","name":"N","fields":[{"name":"y","type":"long"}]}"#), EXTRAS_FIELD),
                "field `x.y`: must be",
            ),
            (
                root(
                    &nullable(
                        r#"{"type":"record","name":"N","fields":[{"name":"y","type":["null","N"],"default":null}]}"#,
                    ),
                    EXTRAS_FIELD,
                ),
                "contains itself",
            ),
            (root(r#"{"name":"x","type":["null","long"]},"#, EXTRAS_FIELD), "field `x`: must be"),
            (root(r#"{"name":"x","type":["null","string"],"default":"a"},"#, EXTRAS_FIELD), "field `x`: must be"),
            ("\"string\"".to_owned(), "root must be a record"),
            ("{".to_owned(), "not an Avro schema"),
            (r#"{"type":"record","name":"R","fields":[]}"#.to_owned(), "`api_version`"),
        ] {
            match Schema::parse(&text) {
                Ok(_) => assert_eq!(expected, "", "{text}"),
                Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{text}: {error}"),
            }
        }
    }

    #[test]
    fn a_member_called_extras_does_not_meet_the_extras_field() {
        let schema = Schema::parse(&root("", EXTRAS_FIELD)).unwrap();
        assert_eq!(schema.plan.find("extras"), None);
        assert_eq!(schema.plan.find("event_id"), Some(2));
    }
}
