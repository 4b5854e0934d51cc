//! File, environment and flags -> one flat map: dotted key -> value and origin.

use std::{collections::BTreeMap, fmt, ops::Range, path::Path};

use toml::de::{DeTable, DeValue};

use super::{
    fault::{Fault, Faults},
    keys,
};

/// The sources of a configuration, weakest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// The file's path and its text. Errors show the path, and relative paths in the file start at its folder.
    pub file: Option<(&'a Path, &'a str)>,
    /// The environment's variables; names without the prefix `CAUSEWAY_` are ignored.
    pub env: &'a [(String, String)],
    /// Dotted keys and their values, from the command line.
    pub flags: &'a [(String, String)],
}

/// The place that a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration file.
    File {
        /// The file's path, as it was given.
        path: String,
        /// The line in it, from 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Variable(String),
    /// The command line.
    Flag,
    /// No source: the value is the key's default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(out, "{path}:{line}"),
            Self::Variable(name) => out.write_str(name),
            Self::Flag => out.write_str("command line"),
            Self::Default => out.write_str("configuration"),
        }
    }
}

/// A value as its source wrote it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Untyped text from the environment or a flag: the key decides its type.
    Raw(String),
    Text(String),
    Integer(i64),
    /// A fraction, as it was written.
    Float(String),
    Boolean(bool),
    List(Vec<String>),
    /// A value that no key takes, described in words.
    Other(&'static str),
    /// A table without keys; tables with keys are flattened.
    EmptyTable,
}

/// A value and its origin.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub value: Value,
    pub origin: Origin,
}

/// Dotted key -> the entry of the strongest source that gives it.
pub(super) type Entries = BTreeMap<String, Entry>;

/// Merges the sources into one map, and adds mistakes to `faults`.
///
/// # Errors
/// The file is not TOML: nothing else can then be judged.
pub(super) fn gather(sources: &Sources<'_>, faults: &mut Vec<Fault>) -> Result<Entries, Faults> {
    let mut entries = Entries::new();
    if let Some((path, text)) = sources.file {
        let mut file = File { path, text, entries: &mut entries, faults };
        file.read()?;
    }
    for (name, value) in sources.env {
        if let Some(key) = key_of_variable(name) {
            entries.insert(key, Entry { value: Value::Raw(value.clone()), origin: Origin::Variable(name.clone()) });
        }
    }
    for (key, value) in sources.flags {
        entries.insert(key.clone(), Entry { value: Value::Raw(value.clone()), origin: Origin::Flag });
    }
    Ok(entries)
}

/// Reads one TOML value: a default, or a list in an environment variable.
pub(super) fn toml_value(text: &str) -> Option<Value> {
    DeValue::parse(text).ok().map(|value| read(value.get_ref()))
}

/// The TOML file while it is read into the map.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
    entries: &'a mut Entries,
    faults: &'a mut Vec<Fault>,
}

impl File<'_> {
    fn read(&mut self) -> Result<(), Faults> {
        match DeTable::parse(self.text) {
            Ok(table) => {
                self.flatten("", table.get_ref());
                Ok(())
            }
            Err(error) => Err(Faults::new(vec![self.syntax_fault(&error)])),
        }
    }

    fn flatten(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key =
                if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
            match value.get_ref() {
                DeValue::Table(table) if !table.is_empty() => self.flatten(&key, table),
                value => self.insert(key, read(value), name.span()),
            }
        }
    }

    fn insert(&mut self, key: String, value: Value, span: Range<usize>) {
        let origin = self.origin(span.start);
        // TOML itself refuses a key given twice, but not `"compression.type"` beside `compression.type`.
        if let Some(first) = self.entries.get(&key) {
            let what = format!("is given twice, the other time at {}", first.origin);
            self.faults.push(Fault { origin, key, what, remedy: "keep one of the two".to_owned() });
            return;
        }
        self.entries.insert(key, Entry { value, origin });
    }

    fn origin(&self, offset: usize) -> Origin {
        let (line, _) = self.position(offset);
        Origin::File { path: self.path.display().to_string(), line }
    }

    /// Line and column of a byte offset, both from 1; the column counts characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    // The error's own `Display` is not used, because it shows the line, which may hold a secret.
    fn syntax_fault(&self, error: &toml::de::Error) -> Fault {
        let offset = error.span().map_or(0, |span| span.start);
        let (_, column) = self.position(offset);
        Fault {
            origin: self.origin(offset),
            key: String::new(),
            what: format!("column {column}: not TOML: {}", error.message()),
            remedy: "correct this first; the rest of the configuration was not looked at".to_owned(),
        }
    }
}

fn read(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number beyond 64 bits"), Value::Integer),
        DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            });
            texts.collect::<Option<_>>().map_or(Value::Other("a list of something else than strings"), Value::List)
        }
        DeValue::Table(table) if table.is_empty() => Value::EmptyTable,
        DeValue::Table(_) => Value::Other("a table"),
    }
}

/// The key of a variable: `CAUSEWAY_INGRESS__TLS__CRL` -> `ingress.tls.crl`. Below `kafka.client` a single
/// underscore is a dot: `SASL_PASSWORD` -> `sasl.password`.
fn key_of_variable(name: &str) -> Option<String> {
    let rest = name.strip_prefix("CAUSEWAY_")?;
    if matches!(rest, "LOG" | "LOG_FORMAT" | "CONFIG") || is_service_link(name) {
        return None;
    }
    let key = rest.to_lowercase().replace("__", ".");
    let Some(property) = key.strip_prefix("kafka.client.") else { return Some(key) };
    let property = property.replace('_', ".");
    Some(match property.strip_suffix(".file") {
        Some(secret) => format!("kafka.client.{secret}_file"),
        None => format!("kafka.client.{property}"),
    })
}

/// Whether Kubernetes set the variable. For a service called `causeway` or `causeway-...` it gives every container
/// `CAUSEWAY_SERVICE_HOST`, `CAUSEWAY_PORT_8443_TCP_ADDR` and so on. Keys of ours have a double underscore.
fn is_service_link(name: &str) -> bool {
    let marks = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"];
    !name.contains("__") && (name.ends_with("_PORT") || marks.iter().any(|mark| name.contains(mark)))
}

impl Entry {
    /// The origin in words, for a fault that compares two values.
    pub fn place(entry: Option<&Self>) -> String {
        entry.map_or_else(|| "the default".to_owned(), |entry| entry.origin.to_string())
    }
}

impl Value {
    /// The value's type in words. The value itself may be a secret and is not shown.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Raw(_) | Self::Text(_) => "text",
            Self::Integer(_) => "a number without quotes",
            Self::Float(_) => "a fraction without quotes",
            Self::Boolean(_) => "true or false without quotes",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
            Self::EmptyTable => "a table",
        }
    }
}

/// The name of `key` in the notation of `origin`: a variable's name or the dotted key.
pub(super) fn spelled(key: &str, origin: &Origin) -> String {
    match origin {
        Origin::Variable(_) => keys::variable(key),
        Origin::File { .. } | Origin::Flag | Origin::Default => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_keys() {
        for (name, key) in [
            ("CAUSEWAY_KAFKA__BROKERS", Some("kafka.brokers")),
            ("CAUSEWAY_INGRESS__TLS__CLIENT_NAMES", Some("ingress.tls.client_names")),
            ("CAUSEWAY_FEEDS__ACTIVITY__EVENT_TYPES__RATED", Some("feeds.activity.event_types.rated")),
            ("CAUSEWAY_KAFKA__CLIENT__SASL_PASSWORD", Some("kafka.client.sasl.password")),
            ("CAUSEWAY_KAFKA__CLIENT__SASL_PASSWORD_FILE", Some("kafka.client.sasl.password_file")),
            ("CAUSEWAY_KAFKA__CLIENT__SASL_OAUTHBEARER_TOKEN_FILE", Some("kafka.client.sasl.oauthbearer.token_file")),
            ("CAUSEWAY_REGISTRY__PASSWORD_FILE", Some("registry.password_file")),
            ("CAUSEWAY_KAFKA_BROKERS", Some("kafka_brokers")),
            ("CAUSEWAY_LOG", None),
            ("CAUSEWAY_LOG_FORMAT", None),
            ("CAUSEWAY_CONFIG", None),
            ("CAUSEWAY_SERVICE_HOST", None),
            ("CAUSEWAY_PORT", None),
            ("CAUSEWAY_PORT_8443_TCP_ADDR", None),
            ("CAUSEWAY_ADMIN_SERVICE_PORT_HTTP", None),
            ("HOME", None),
        ] {
            assert_eq!(key_of_variable(name).as_deref(), key, "{name}");
        }
    }

    #[test]
    fn properties_are_the_same_quoted_or_not() {
        let text = "[kafka.client]\n\"linger.ms\" = 1\nlinger.ms = 2\ncompression.type = 'lz4'\n";
        let mut faults = Vec::new();
        let file = Some((Path::new("a.toml"), text));
        let entries = gather(&Sources { file, ..Sources::default() }, &mut faults).unwrap();
        let keys: Vec<_> = entries.keys().collect();
        assert_eq!(keys, ["kafka.client.compression.type", "kafka.client.linger.ms"]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().contains("kafka.client.linger.ms is given twice, the other time at a.toml:"));
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let text = "[kafka]\nbrokers = [\n\"a\" \"b\"]\n";
        let file = Some((Path::new("a.toml"), text));
        let faults = gather(&Sources { file, ..Sources::default() }, &mut Vec::new()).unwrap_err();
        assert!(faults.to_string().starts_with("a.toml:3: column 5: not TOML: "), "{faults}");
    }
}
