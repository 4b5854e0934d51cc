//! Two schemas: can each read what the other wrote? Proven here before the registry is asked, so that the fields can be named.

use apache_avro::{
    Schema as Avro,
    schema_compatibility::{Compatibility, SchemaCompatibility},
};

/// Why records of one schema cannot always be read by the other, in either direction; `None` where they can.
pub fn why_not(theirs: &str, ours: &Avro) -> Option<String> {
    let theirs = match Avro::parse_str(theirs) {
        Ok(theirs) => theirs,
        Err(error) => return Some(format!("the registered schema cannot be read: {error}")),
    };
    let why = match SchemaCompatibility::mutual_read(&theirs, ours) {
        Ok(Compatibility::Full) => return None,
        Ok(Compatibility::Partial) => "some values of one cannot be read by the other".to_owned(),
        Err(error) => error.to_string(),
    };
    let mut fields = Vec::new();
    changed_fields(&theirs, ours, "", &mut fields);
    Some(if fields.is_empty() { why } else { format!("{}: {why}", fields.join("; ")) })
}

/// The smallest fields at which two records do not fit.
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
