//! File, environment and flags -> `Config`: every fault with its remedy, no secret shown, and what is understood reads back the same.

use std::collections::BTreeMap;

use causeway::config::{Config, PropertyFault, Sources, load};

/// In librdkafka's place: it knows no property with other characters in its name.
fn property_faults(properties: &BTreeMap<String, String>) -> Vec<PropertyFault> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let unknown = properties.keys().filter(|name| !name.bytes().all(is_known));
    let what = || "librdkafka does not know this property".to_owned();
    unknown.map(|name| PropertyFault { name: name.clone(), what: what(), remedy: "leave it out" }).collect()
}

/// Between the file, the variables (`NAME=VALUE` a line) and the flags (`key=value` a line).
const NEXT: &str = "\n---\n";

pub fn run(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let mut parts = input.splitn(3, NEXT);
    let file = parts.next().unwrap_or_default();
    let (env, flags) = (pairs(parts.next()), pairs(parts.next()));
    // The folder is nowhere: the files that secrets come from are never there.
    let sources = Sources { file: Some(("/nowhere/causeway.toml".as_ref(), file)), env: &env, flags: &flags };
    let secrets: Vec<String> =
        secrets(file, &env, &flags).into_iter().filter(|secret| input.matches(secret.as_str()).count() == 1).collect();
    let hidden = |shown: &str| {
        for secret in &secrets {
            assert!(!shown.contains(secret), "{secret:?} is shown\n{shown}");
        }
    };
    match load(&sources, &property_faults) {
        Ok(config) => {
            hidden(&config.resolved());
            hidden(&format!("{config:?}"));
            holds(&config);
        }
        Err(faults) => {
            assert!(faults.iter().next().is_some(), "refused without a reason");
            for fault in faults.iter() {
                assert!(!fault.what.trim().is_empty() && !fault.remedy.trim().is_empty(), "{fault:?}");
            }
            hidden(&faults.to_string());
        }
    }
}

fn pairs(lines: Option<&str>) -> Vec<(String, String)> {
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    lines.unwrap_or_default().lines().filter_map(pair).collect()
}

/// Values under the names of secrets, long enough that nothing else is like them.
fn secrets(file: &str, env: &[(String, String)], flags: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(file) = toml::from_str::<toml::Table>(file) {
        for section in ["registry", "kafka"] {
            gather(section, file.get(section), &mut found);
        }
    }
    for (name, value) in env.iter().chain(flags) {
        if is_secret(&name.to_lowercase()) {
            found.push(value.clone());
        }
    }
    found.retain(|secret| secret.trim().len() >= 8);
    found
}

fn gather(name: &str, value: Option<&toml::Value>, found: &mut Vec<String>) {
    match value {
        Some(toml::Value::Table(table)) => {
            table.iter().for_each(|(key, value)| gather(&format!("{name}.{key}"), Some(value), found));
        }
        Some(toml::Value::String(text)) if is_secret(name) => found.push(text.clone()),
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    ["registry.password", "registry__password", "sasl.password", "sasl_password", "ssl.key.password"]
        .iter()
        .any(|secret| name.ends_with(secret))
}

/// What a configuration that was taken must be.
fn holds(config: &Config) {
    let budget = config.sender.budget();
    assert!(budget.answer_by < budget.timeout && budget.timeout <= budget.message_timeout, "{budget:?}");
    assert!(config.ingress.body_bytes_max as i64 + 16_384 <= config.kafka.message_bytes_max(), "{config:?}");
    assert!(config.topics().iter().all(|topic| !topic.is_empty()), "{config:?}");
    let resolved = config.resolved();
    let sources = Sources { file: Some(("causeway.toml".as_ref(), &resolved)), ..Sources::default() };
    let again = load(&sources, &property_faults).unwrap_or_else(|faults| panic!("{faults}\n{resolved}"));
    // Secrets are comments there: a second reading has none.
    let open = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(open(&again.resolved()), open(&resolved));
}
