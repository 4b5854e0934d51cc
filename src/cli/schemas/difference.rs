//! The first difference between two texts of a schema. Blanks and the order of members do not count.

use serde_json::Value as Json;

/// A JSON pointer (RFC 6901) to the first place where the texts differ; `None` if they are equal.
pub fn first(ours: &str, theirs: &str) -> Option<String> {
    match (serde_json::from_str(ours), serde_json::from_str(theirs)) {
        (Ok(ours), Ok(theirs)) => below(&ours, &theirs),
        _ => Some(String::new()),
    }
}

fn below(ours: &Json, theirs: &Json) -> Option<String> {
    let at = |step: String, rest: Option<String>| rest.map(|rest| format!("/{step}{rest}"));
    match (ours, theirs) {
        (Json::Object(ours), Json::Object(theirs)) => {
            let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
            names.into_iter().find_map(|name| at(name.clone(), either(ours.get(name), theirs.get(name))))
        }
        (Json::Array(ours), Json::Array(theirs)) => (0..ours.len().max(theirs.len()))
            .find_map(|index| at(index.to_string(), either(ours.get(index), theirs.get(index)))),
        _ => (ours != theirs).then(String::new),
    }
}

fn either(ours: Option<&Json>, theirs: Option<&Json>) -> Option<String> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => below(ours, theirs),
        _ => Some(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_differs_is_told() {
        let ours = r#"{"name": "E", "fields": [{"name": "a", "doc": "one"}, {"name": "b", "default": null}]}"#;
        for (theirs, expected) in [
            (ours, None),
            (r#"{"fields":[{"doc":"one","name":"a"},{"name":"b","default":null}],"name":"E"}"#, None),
            (r#"{"name":"E","fields":[{"name":"a","doc":"two"},{"name":"b","default":null}]}"#, Some("/fields/0/doc")),
            (r#"{"name":"E","fields":[{"name":"a","doc":"one"},{"name":"b"}]}"#, Some("/fields/1/default")),
            (r#"{"name":"E","fields":[{"name":"a","doc":"one"}]}"#, Some("/fields/1")),
            (r#"{"name":"E","fields":[{"name":"a","doc":"one"},{"name":"b","default":null}],"x":1}"#, Some("/x")),
            ("no JSON", Some("")),
        ] {
            assert_eq!(first(ours, theirs).as_deref(), expected, "{theirs}");
        }
    }
}
