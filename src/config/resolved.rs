//! The configuration as the bridge understood it, for `causeway check`.

use std::{path::Path, time::Duration};

use toml::Value;

use super::{Config, KEYS, client};
use crate::feed::{Feed, SchemaSource};

impl Config {
    /// Every key with its value and description as TOML. Secrets, and keys without a value, become comments.
    ///
    /// Except for secrets the result is itself a configuration. Relative paths in it start at the working directory.
    pub fn resolved(&self) -> String {
        let mut page = Page { lines: Vec::new(), section: String::new() };
        self.write_sender_and_ingress(&mut page);
        page.put("admin.listen", self.admin.listen.to_string());
        self.write_kafka(&mut page);
        page.put("dedupe.bytes_max", number(self.dedupe.bytes_max));
        page.put("dedupe.warm", self.dedupe.warm);
        self.write_registry(&mut page);
        page.put("dead_letter.topic", self.dead_letter.topic.as_str());
        for feed in &self.feeds {
            write_feed(&mut page, feed);
        }
        page.lines.join("\n") + "\n"
    }

    fn write_sender_and_ingress(&self, page: &mut Page) {
        let (sender, ingress, tls) = (&self.sender, &self.ingress, &self.ingress.tls);
        page.put("sender.timeout_ms", millis(sender.timeout));
        page.put("sender.retries", i64::from(sender.retries));
        page.put("sender.retry_pause_ms_max", millis(sender.retry_pause_max));
        page.put("ingress.listen", ingress.listen.to_string());
        page.put("ingress.in_flight_max", number(ingress.in_flight_max));
        page.put("ingress.queue_bytes_max", number(ingress.queue_bytes_max));
        page.put("ingress.body_bytes_max", number(ingress.body_bytes_max));
        page.put("ingress.connections_max", number(ingress.connections_max));
        page.put("ingress.idle_ms_max", millis(ingress.idle_max));
        page.put("ingress.age_ms_max", millis(ingress.age_max));
        page.put("ingress.head_ms_max", millis(ingress.head_max));
        page.put("ingress.depth_max", number(ingress.depth_max));
        page.put("ingress.drain_ms_max", millis(ingress.drain_max));
        page.put("ingress.tls.certificate", path(&tls.certificate));
        page.put("ingress.tls.private_key", path(&tls.private_key));
        page.put("ingress.tls.client_ca", path(&tls.client_ca));
        page.put_or("ingress.tls.crl", tls.crl.as_deref().map(path), "not set");
        page.put("ingress.tls.client_names", tls.client_names.iter().map(ToString::to_string).collect::<Vec<_>>());
        page.put("ingress.tls.min_version", if tls.tls_1_2 { "1.2" } else { "1.3" });
    }

    fn write_kafka(&self, page: &mut Page) {
        let kafka = &self.kafka;
        page.put("kafka.brokers", kafka.brokers.clone());
        page.put("kafka.create_topics", kafka.create_topics);
        page.put("kafka.topics.partitions", i64::from(kafka.topics.partitions));
        page.put("kafka.topics.replication", i64::from(kafka.topics.replication));
        page.put("kafka.topics.retention_ms", kafka.topics.retention_ms);
        page.open("kafka.client");
        page.describe("kafka.client.PROPERTY");
        for (name, value) in &kafka.client {
            let shown = (!client::is_secret(name)).then(|| Value::from(value.as_str()));
            page.line(&format!("\"{name}\""), shown, "hidden");
        }
    }

    fn write_registry(&self, page: &mut Page) {
        let Some(registry) = &self.registry else {
            page.put_or("registry.url", None::<Value>, "not set");
            return;
        };
        page.put("registry.url", registry.urls.join(","));
        page.put_or("registry.user", registry.user.as_deref(), "not set");
        page.put_or("registry.password", None::<Value>, if registry.password.is_some() { "hidden" } else { "not set" });
        let file = registry.token_file.as_deref().map(path);
        let token = if registry.token.is_some() && file.is_none() { "hidden" } else { "not set" };
        page.put_or("registry.token", None::<Value>, token);
        page.put_or("registry.token_file", file, "not set");
        page.put_or("registry.ca", registry.ca.as_deref().map(path), "not set");
        let (certificate, key) =
            registry.identity.as_ref().map(|(certificate, key)| (path(certificate), path(key))).unzip();
        page.put_or("registry.certificate", certificate, "not set");
        page.put_or("registry.private_key", key, "not set");
        page.put("registry.auto_register", registry.auto_register);
    }
}

fn write_feed(page: &mut Page, feed: &Feed) {
    page.open(&format!("feeds.{}", feed.label));
    page.line("name", feed.name.as_deref().map(Value::from), "any that no other feed has");
    page.line("topic", Some(feed.topic.as_str().into()), "");
    if !feed.event_types.is_empty() {
        page.line("event_types", Some(Value::from(feed.event_types.clone())), "");
    }
    page.line("key", Some(feed.key.clone().into()), "");
    page.line("path", feed.path.as_deref().map(Value::from), "not set");
    let schema = match &feed.schema {
        SchemaSource::File(file) => Some(path(file).into()),
        SchemaSource::BuiltIn(_) => None,
    };
    page.line("schema", schema, "built in");
    page.line("schema_id", feed.schema_id.map(|id| i64::from(id).into()), "not set");
}

/// The lines so far, and the section that the last of them belongs to.
struct Page {
    lines: Vec<String>,
    section: String,
}

impl Page {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.put_or(key, Some(value), "");
    }

    /// Writes `key` with its description. Without a value the line becomes a comment that says `why_not`.
    fn put_or(&mut self, key: &str, value: Option<impl Into<Value>>, why_not: &str) {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        self.open(section);
        self.describe(key);
        self.line(name, value.map(Into::into), why_not);
    }

    fn open(&mut self, section: &str) {
        if self.section != section {
            if !self.lines.is_empty() {
                self.lines.push(String::new());
            }
            self.lines.push(format!("[{section}]"));
            section.clone_into(&mut self.section);
        }
    }

    fn describe(&mut self, key: &str) {
        if let Some(key) = KEYS.iter().find(|known| known.name == key) {
            self.lines.push(format!("# {}.", key.doc));
        }
    }

    fn line(&mut self, name: &str, value: Option<Value>, why_not: &str) {
        self.lines.push(match value {
            Some(value) => format!("{name} = {value}"),
            None => format!("# {name}: {why_not}"),
        });
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::{
        from_toml, keys,
        load::tests::{EXAMPLE, MINIMAL},
    };

    #[test]
    fn loads_again_as_the_same() {
        for text in [MINIMAL, EXAMPLE] {
            let config = from_toml(text).unwrap();
            let resolved = config.resolved();
            let again = from_toml(&resolved).unwrap_or_else(|faults| panic!("{faults}\n{resolved}"));
            assert_eq!(format!("{again:?}"), format!("{config:?}"), "{resolved}");
            assert_eq!(again.resolved(), resolved);
        }
    }

    #[test]
    fn describes_every_key() {
        let resolved = from_toml(EXAMPLE).unwrap().resolved();
        let undescribed = |key: &&keys::Key| !key.name.starts_with("feeds.") && key.name != "registry.password_file";
        for key in keys::KEYS.iter().filter(undescribed) {
            assert!(resolved.contains(key.doc), "{}\n{resolved}", key.name);
        }
    }

    #[test]
    fn hides_secrets() {
        let text = format!(
            "{MINIMAL}[registry]\nurl = 'http://a'\nuser = 'me'\npassword = 'sesame'\n\
             [kafka.client]\nsasl.username = 'you'\nsasl.password = 'sesame'\nssl.key.pem = 'sesame'\n"
        );
        let config = from_toml(&text).unwrap();
        let resolved = config.resolved();
        assert!(!resolved.contains("sesame") && !format!("{config:?}").contains("sesame"), "{resolved}");
        assert!(resolved.contains("\"sasl.username\" = \"you\"\n# \"ssl.key.pem\": hidden\n"), "{resolved}");
        assert!(resolved.contains("# password: hidden\n"), "{resolved}");
    }
}
