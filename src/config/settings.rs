//! Typed reading of the flat map, key by key. A wrong value is noted as a fault, and its default is used instead, so
//! that one run finds every mistake.

use std::{
    fmt::Display,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Secret,
    fault::{Fault, Faults, Wrong},
    keys,
    source::{self, Entries, Entry, Origin, Sources, Value},
};

/// The given values, and the faults found so far.
pub(super) struct Settings {
    given: Entries,
    /// The folder at which relative paths in the file start.
    folder: PathBuf,
    faults: Vec<Fault>,
}

impl Settings {
    /// Gathers the sources, and notes every unknown key.
    ///
    /// # Errors
    /// The file is not TOML.
    pub fn gather(sources: &Sources<'_>) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let given = source::gather(sources, &mut faults)?;
        let folder = sources.file.and_then(|(path, _)| path.parent()).map(Path::to_owned).unwrap_or_default();
        let mut settings = Self { given, folder, faults };
        settings.refuse_unknown();
        Ok(settings)
    }

    /// Gives `value` back if no fault was noted.
    ///
    /// # Errors
    /// All faults noted so far.
    pub fn finish<T>(self, value: T) -> Result<T, Faults> {
        if self.faults.is_empty() { Ok(value) } else { Err(Faults::new(self.faults)) }
    }

    /// A whole number within the key's range, in the caller's type.
    pub fn integer<T: TryFrom<i64> + Default>(&mut self, key: &str) -> T {
        self.optional_integer(key).unwrap_or_default()
    }

    /// A whole number within the key's range; `None` if there is neither a value nor a default.
    pub fn optional_integer<T: TryFrom<i64>>(&mut self, key: &str) -> Option<T> {
        let range = keys::range(key);
        self.read(key, |value| integer(value, &range))
    }

    /// A whole number of milliseconds.
    pub fn millis(&mut self, key: &str) -> Duration {
        Duration::from_millis(self.integer(key))
    }

    pub fn boolean(&mut self, key: &str) -> bool {
        let parse = |value: &Value| match value {
            Value::Boolean(truth) => Ok(*truth),
            Value::Raw(text) if text == "true" => Ok(true),
            Value::Raw(text) if text == "false" => Ok(false),
            other => Err(Wrong::new(format!("is {}", shown(other)), "write true or false")),
        };
        self.read(key, parse).unwrap_or_default()
    }

    /// The result of `parse` on the key's text.
    pub fn parsed<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        self.read(key, |value| parse(text(value)?))
    }

    pub fn text(&mut self, key: &str) -> Option<String> {
        self.parsed(key, |text| Ok(text.to_owned()))
    }

    /// A list of strings. In the environment and in flags, commas separate the items.
    pub fn list(&mut self, key: &str) -> Option<Vec<String>> {
        self.read(key, list)
    }

    /// A path. A relative path starts at the file's folder if the file or a default gives it.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        Some(self.resolve(&self.origin(key), &text))
    }

    /// The secret that `key` holds, or that the file named by `key` + `_file` holds.
    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        let file_key = format!("{key}_file");
        let direct = self.text(key);
        let Some(file) = self.path(&file_key) else { return direct.map(Secret) };
        if direct.is_some() {
            self.both(key, &file_key);
            return None;
        }
        self.secret_file(&file_key, &file).map(Secret)
    }

    /// The trimmed content of `file`, which `key` names.
    pub fn secret_file(&mut self, key: &str, file: &Path) -> Option<String> {
        let what = match fs::read_to_string(file) {
            Ok(content) if !content.trim().is_empty() => return Some(content.trim().to_owned()),
            Ok(_) => format!("names {}, which is empty", file.display()),
            Err(error) => format!("names {}, which cannot be read: {error}", file.display()),
        };
        self.fault(key, Wrong::new(what, "name a readable file that holds nothing but the value"));
        None
    }

    /// Notes that `key` must not be given together with `other`.
    pub fn both(&mut self, key: &str, other: &str) {
        let what = format!("is given beside {other} ({})", self.place(other));
        self.fault(key, Wrong::new(what, "keep one of the two"));
    }

    /// Resolves the path `text`. A path from a variable or a flag is relative to the working directory, any
    /// other to the file's folder.
    pub fn resolve(&self, origin: &Origin, text: &str) -> PathBuf {
        match origin {
            Origin::File { .. } | Origin::Default => self.folder.join(text),
            Origin::Variable(_) | Origin::Flag => PathBuf::from(text),
        }
    }

    pub fn is_given(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// Every key given below `section`, without the prefix `section.`, and its entry.
    pub fn below(&self, section: &str) -> Vec<(String, Entry)> {
        let entries = self.given.iter().filter_map(|(key, entry)| {
            let rest = key.strip_prefix(section)?.strip_prefix('.')?;
            Some((rest.to_owned(), entry.clone()))
        });
        entries.collect()
    }

    /// The place where the key was given; `Default` if it was not.
    pub fn origin(&self, key: &str) -> Origin {
        self.given.get(key).map_or(Origin::Default, |entry| entry.origin.clone())
    }

    /// Notes a fault of the value of `key`.
    pub fn fault(&mut self, key: &str, wrong: Wrong) {
        let (origin, key) = (self.origin(key), key.to_owned());
        self.faults.push(Fault { origin, key, what: wrong.what, remedy: wrong.remedy });
    }

    /// Notes that two values contradict each other, at the first of `keys` that was given. If one of `keys` already has
    /// a fault, nothing is noted: its default was compared, which the user did not write.
    pub fn clash(&mut self, keys: &[&str], what: String, remedy: String) {
        if self.faults.iter().any(|fault| keys.contains(&fault.key.as_str())) {
            return;
        }
        let origin = keys.iter().map(|key| self.origin(key)).find(|origin| *origin != Origin::Default);
        let origin = origin.unwrap_or(Origin::Default);
        self.faults.push(Fault { origin, key: String::new(), what, remedy });
    }

    /// `key = value (where it was given)`, for a fault that names two sides.
    pub fn side(&self, key: &str, value: impl Display) -> String {
        format!("{key} = {value} ({})", self.place(key))
    }

    fn place(&self, key: &str) -> String {
        Entry::place(self.given.get(key))
    }

    fn read<T>(&mut self, key: &str, parse: impl Fn(&Value) -> Result<T, Wrong>) -> Option<T> {
        if let Some(entry) = self.given.get(key) {
            match parse(&entry.value) {
                Ok(value) => return Some(value),
                Err(wrong) => self.fault(key, wrong),
            }
        }
        keys::default(key).and_then(|value| parse(&value).ok())
    }

    fn refuse_unknown(&mut self) {
        for (key, entry) in &self.given {
            let wrong = if keys::is_known(key) {
                continue;
            } else if keys::is_section(key) {
                if entry.value == Value::EmptyTable {
                    continue;
                }
                Wrong::new("is a section, not a key", format!("write [{key}] and its keys below"))
            } else if let Some(near) = keys::nearest(key) {
                Wrong::new("is not a key", format!("did you mean {}?", source::spelled(&near, &entry.origin)))
            } else if let Some(near) = keys::nearest_section(key, entry.value == Value::EmptyTable) {
                Wrong::new("is not a key", format!("did you mean [{near}]?"))
            } else {
                Wrong::new("is not a key", format!("known here: {}", keys::siblings(key).join(", ")))
            };
            let (origin, key) = (entry.origin.clone(), key.clone());
            self.faults.push(Fault { origin, key, what: wrong.what, remedy: wrong.remedy });
        }
    }
}

fn integer<T: TryFrom<i64>>(value: &Value, range: &RangeInclusive<i64>) -> Result<T, Wrong> {
    let (least, most) = (range.start(), range.end());
    let remedy = if *most == i64::MAX { format!("write {least} or more") } else { format!("write {least} to {most}") };
    let number = match value {
        Value::Integer(number) => Some(*number),
        Value::Raw(text) => text.trim().parse().ok(),
        _ => None,
    };
    let Some(number) = number else {
        return Err(Wrong::new(format!("is {}, not a whole number", shown(value)), remedy));
    };
    let what = if number < *least {
        format!("is {number}, less than {least}")
    } else {
        format!("is {number}, more than {most}")
    };
    Some(number)
        .filter(|number| range.contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or(Wrong::new(what, remedy))
}

fn text(value: &Value) -> Result<&str, Wrong> {
    match value {
        Value::Raw(text) | Value::Text(text) if text.trim().is_empty() => {
            Err(Wrong::new("is empty", "write a value, or leave the key out"))
        }
        Value::Raw(text) | Value::Text(text) => Ok(text),
        other => Err(Wrong::new(format!("is {}, not text", other.kind()), "write it in quotes")),
    }
}

fn list(value: &Value) -> Result<Vec<String>, Wrong> {
    match value {
        Value::List(items) => Ok(items.clone()),
        // A list of subjects is written as in the file, because a subject's name contains commas itself.
        Value::Raw(text) if text.trim_start().starts_with('[') => match source::toml_value(text.trim()) {
            Some(Value::List(items)) => Ok(items),
            _ => Err(Wrong::new("begins with [ but is no list", r#"write ["one", "two"]"#)),
        },
        Value::Raw(text) => {
            Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
        }
        other => Err(Wrong::new(format!("is {}, not a list of strings", other.kind()), r#"write ["one", "two"]"#)),
    }
}

/// The value if it is short, else its type in words. No secret gets here: only keys of numbers and booleans use this.
fn shown(value: &Value) -> String {
    match value {
        Value::Raw(text) | Value::Text(text) if text.len() <= 32 => format!("{text:?}"),
        Value::Float(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        other => other.kind().to_owned(),
    }
}
