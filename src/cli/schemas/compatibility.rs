//! The compatibility of two schemas: can each read the other's records? The answer is found here, before the registry
//! is asked, so that a refusal can name the fields.

use apache_avro::{
    Schema as Avro,
    schema::{Name, ResolvedSchema, UnionSchema},
    schema_compatibility::{Compatibility, SchemaCompatibility},
};

/// Why one schema cannot always read records of the other, in either direction; `None` if both can.
pub fn why_not(theirs: &str, ours: &Avro) -> Option<String> {
    let theirs = match Avro::parse_str(theirs) {
        Ok(theirs) => theirs,
        Err(error) => return Some(format!("the registered schema cannot be read: {error}")),
    };
    let (theirs, ours) = (&written_out(&theirs), &written_out(ours));
    let why = match SchemaCompatibility::mutual_read(theirs, ours) {
        Ok(Compatibility::Full) => return None,
        Ok(Compatibility::Partial) => "some values of one cannot be read by the other".to_owned(),
        Err(error) => error.to_string(),
    };
    let mut fields = Vec::new();
    changed_fields(theirs, ours, "", &mut fields);
    Some(if fields.is_empty() { why } else { format!("{}: {why}", fields.join("; ")) })
}

/// The schema with each named type written out wherever it is used. Avro allows a definition at the first use and
/// references later (specification, Names), but apache-avro's comparison takes a reference for another type.
fn written_out(schema: &Avro) -> Avro {
    let Ok(resolved) = ResolvedSchema::try_from(schema) else { return schema.clone() };
    let mut writer = Writer { resolved: &resolved, open: Vec::new(), left: NODES_MAX };
    writer.write(schema)
}

/// The most nodes written: a schema that doubles with each of its types keeps its references beyond this.
const NODES_MAX: usize = 100_000;

struct Writer<'a> {
    resolved: &'a ResolvedSchema<'a>,
    /// The records that enclose the current node. Their names stay references, because a recursive type has no end.
    open: Vec<&'a Name>,
    left: usize,
}

impl<'a> Writer<'a> {
    fn write(&mut self, schema: &Avro) -> Avro {
        self.left = self.left.saturating_sub(1);
        let mut written = schema.clone();
        match &mut written {
            Avro::Ref { name } => return self.named(name),
            Avro::Record(record) => {
                let known = self.resolved.get_names().get_key_value(&record.name);
                self.open.extend(known.map(|(name, _)| name));
                record.fields.iter_mut().for_each(|field| field.schema = self.write(&field.schema));
                self.open.truncate(self.open.len() - usize::from(known.is_some()));
            }
            Avro::Array(array) => *array.items = self.write(&array.items),
            Avro::Map(map) => *map.types = self.write(&map.types),
            Avro::Union(union) => {
                let variants = union.variants().iter().map(|variant| self.write(variant)).collect();
                if let Ok(whole) = UnionSchema::new(variants) {
                    *union = whole;
                }
            }
            _ => {}
        }
        written
    }

    fn named(&mut self, name: &Name) -> Avro {
        let inside_itself = self.open.contains(&name);
        match self.resolved.get_names().get(name) {
            Some(definition) if !inside_itself && self.left > 0 => self.write(definition),
            _ => Avro::Ref { name: name.clone() },
        }
    }
}

/// Names the innermost fields at which two records do not fit.
fn changed_fields(theirs: &Avro, ours: &Avro, path: &str, found: &mut Vec<String>) {
    let (Avro::Record(theirs), Avro::Record(ours)) = (not_null(theirs), not_null(ours)) else {
        return found.push(format!("field `{path}` changed its type"));
    };
    let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for field in &ours.fields {
        match theirs.fields.iter().find(|known| known.name == field.name) {
            None if field.default.is_none() => {
                found.push(format!("field `{}` is new and has no default", inside(&field.name)));
            }
            Some(known)
                if SchemaCompatibility::mutual_read(&known.schema, &field.schema) != Ok(Compatibility::Full) =>
            {
                changed_fields(&known.schema, &field.schema, &inside(&field.name), found);
            }
            None | Some(_) => {}
        }
    }
    let gone = theirs
        .fields
        .iter()
        .filter(|field| field.default.is_none() && !ours.fields.iter().any(|known| known.name == field.name));
    found.extend(gone.map(|field| format!("field `{}` is gone and had no default", inside(&field.name))));
}

/// `T` of `["null", T]`.
fn not_null(schema: &Avro) -> &Avro {
    match schema {
        Avro::Union(union) => union.variants().iter().find(|variant| !matches!(variant, Avro::Null)).unwrap_or(schema),
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &str) -> String {
        format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"id","type":"string"}},{{"name":"data","type":["null",{{"type":"record","name":"D","fields":[{fields}]}}],"default":null}}]}}"#
        )
    }

    /// A record whose `fields` have one type, which the first of them defines.
    fn used(fields: &[&str], member: &str) -> String {
        let definition = format!(
            r#"{{"type":"record","name":"U","fields":[{{"name":"{member}","type":["null","long"],"default":null}}]}}"#
        );
        let kinds = std::iter::once(definition.as_str()).chain(std::iter::repeat("\"x.U\""));
        let fields = fields.iter().zip(kinds).map(|(name, kind)| match *name {
            "list" => format!(r#"{{"name":"list","type":["null",{{"type":"array","items":{kind}}}],"default":null}}"#),
            "by_name" => {
                format!(r#"{{"name":"by_name","type":["null",{{"type":"map","values":{kind}}}],"default":null}}"#)
            }
            name => format!(r#"{{"name":"{name}","type":["null",{kind}],"default":null}}"#),
        });
        let fields: Vec<_> = fields.collect();
        format!(r#"{{"type":"record","name":"R","namespace":"x","fields":[{}]}}"#, fields.join(","))
    }

    #[test]
    fn a_type_that_is_referred_to_is_the_same_as_one_written_out() {
        let orders = [&["a", "list", "by_name"][..], &["list", "a", "by_name"], &["by_name", "list"], &["list"]];
        for (theirs, ours) in orders.iter().flat_map(|theirs| orders.iter().map(move |ours| (theirs, ours))) {
            let (same, other) = (used(theirs, "u"), used(theirs, "other"));
            let ours = Avro::parse_str(&used(ours, "u")).unwrap();
            assert_eq!(why_not(&same, &ours), None, "{same}");
            assert_eq!(why_not(&other, &ours), None, "a nullable field may come and go");
        }
        let changed = used(&["list", "a", "by_name"], "u").replace("\"long\"", "\"string\"");
        let why = why_not(&changed, &Avro::parse_str(&used(&["a", "list", "by_name"], "u")).unwrap());
        assert!(why.as_deref().is_some_and(|why| why.contains("field `a.u` changed its type")), "{why:?}");
    }

    #[test]
    fn a_schema_without_end_is_compared_too() {
        let recursive = r#"{"type":"record","name":"R","fields":[{"name":"next","type":["null","R"],"default":null}]}"#;
        assert_eq!(why_not(recursive, &Avro::parse_str(recursive).unwrap()), None);
        let twice = |at: usize| match at {
            0 => "\"long\"".to_owned(),
            at => format!("\"R{}\"", at - 1),
        };
        let levels = (0..40).map(|at| format!(
            r#"{{"name":"r{at}","type":{{"type":"record","name":"R{at}","fields":[{{"name":"a","type":{0}}},{{"name":"b","type":{0}}}]}}}}"#,
            twice(at)
        ));
        let doubling = format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, levels.collect::<Vec<_>>().join(","));
        assert_eq!(why_not(&doubling, &Avro::parse_str(&doubling).unwrap()), None);
    }

    #[test]
    fn incompatible_fields_are_named() {
        let field = |name: &str, kind: &str| format!(r#"{{"name":"{name}","type":["null","{kind}"],"default":null}}"#);
        let ours = schema(&[field("a", "string"), field("b", "long")].join(","));
        let ours = Avro::parse_str(&ours).unwrap();
        for (theirs, expected) in [
            (schema(&[field("a", "string"), field("b", "long")].join(",")), None),
            (schema(&field("a", "string")), None),
            (schema(&[field("a", "string"), field("b", "long"), field("c", "int")].join(",")), None),
            (schema(&[field("a", "string"), field("b", "string")].join(",")), Some("field `data.b` changed its type")),
            (
                schema(&[field("a", "string"), r#"{"name":"z","type":"string"}"#.to_owned()].join(",")),
                Some("field `data.z` is gone and had no default"),
            ),
            ("5".to_owned(), Some("cannot be read")),
        ] {
            let found = why_not(&theirs, &ours);
            assert_eq!(found.is_some(), expected.is_some(), "{theirs}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{theirs}");
        }
    }
}
