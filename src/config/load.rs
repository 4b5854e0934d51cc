//! Sources -> [`Config`], section by section.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    Admin, Budget, ClientName, Config, DeadLetter, Dedupe, Faults, Ingress, Kafka, NewTopics, Registry, Sender, Tls,
    client::{self, PropertyFault},
    fault::Wrong,
    feeds, oauth, relations,
    settings::Settings,
    source::Sources,
};

/// Reads a configuration. `property_faults` asks librdkafka for its objections to the properties of `[kafka.client]`.
///
/// # Errors
/// Every mistake at once; if the file is not TOML, only the first syntax error.
pub fn load(
    sources: &Sources<'_>,
    property_faults: &dyn Fn(&BTreeMap<String, String>) -> Vec<PropertyFault>,
) -> Result<Config, Faults> {
    let mut settings = Settings::gather(sources)?;
    let sender = sender(&mut settings);
    let dead_letter = DeadLetter { topic: settings.parsed("dead_letter.topic", feeds::topic).unwrap_or_default() };
    let config = Config {
        ingress: ingress(&mut settings, &sender.budget()),
        sender,
        admin: Admin { listen: address(&mut settings, "admin.listen") },
        kafka: kafka(&mut settings, property_faults),
        registry: registry(&mut settings),
        dedupe: Dedupe { bytes_max: settings.integer("dedupe.bytes_max"), warm: settings.boolean("dedupe.warm") },
        feeds: feeds::read(&mut settings, &dead_letter.topic),
        dead_letter,
    };
    relations::compare(&config, &mut settings);
    settings.finish(config)
}

/// Reads a configuration from a file's text alone, without asking librdkafka about its properties.
///
/// # Errors
/// See [`load`].
pub fn from_toml(text: &str) -> Result<Config, Faults> {
    load(&Sources { file: Some(("causeway.toml".as_ref(), text)), ..Sources::default() }, &|_| Vec::new())
}

fn sender(settings: &mut Settings) -> Sender {
    Sender {
        timeout: settings.millis("sender.timeout_ms"),
        retries: settings.integer("sender.retries"),
        retry_pause_max: settings.millis("sender.retry_pause_ms_max"),
    }
}

fn ingress(settings: &mut Settings, budget: &Budget) -> Ingress {
    let drain_default = budget.answer_by + Budget::DRAIN_BEYOND_ANSWER;
    Ingress {
        listen: address(settings, "ingress.listen"),
        in_flight_max: settings.integer("ingress.in_flight_max"),
        queue_bytes_max: settings.integer("ingress.queue_bytes_max"),
        body_bytes_max: settings.integer("ingress.body_bytes_max"),
        connections_max: settings.integer("ingress.connections_max"),
        idle_max: settings.millis("ingress.idle_ms_max"),
        age_max: settings.millis("ingress.age_ms_max"),
        head_max: settings.millis("ingress.head_ms_max"),
        depth_max: settings.integer("ingress.depth_max"),
        drain_max: match settings.optional_integer("ingress.drain_ms_max") {
            Some(millis) => Duration::from_millis(millis),
            None => drain_default,
        },
        tls: tls(settings),
    }
}

fn tls(settings: &mut Settings) -> Tls {
    Tls {
        certificate: settings.path("ingress.tls.certificate").unwrap_or_default(),
        private_key: settings.path("ingress.tls.private_key").unwrap_or_default(),
        client_ca: settings.path("ingress.tls.client_ca").unwrap_or_default(),
        crl: settings.path("ingress.tls.crl"),
        client_names: client_names(settings),
        tls_1_2: settings.parsed("ingress.tls.min_version", tls_1_2).unwrap_or_default(),
    }
}

fn client_names(settings: &mut Settings) -> Vec<ClientName> {
    const KEY: &str = "ingress.tls.client_names";
    if !settings.is_given(KEY) {
        settings.fault(KEY, Wrong::new("is required: it names the senders that may post", ClientName::FORMS));
        return Vec::new();
    }
    let Some(entries) = settings.list(KEY) else { return Vec::new() };
    if entries.is_empty() {
        settings.fault(KEY, Wrong::new("is empty: nobody could post", ClientName::FORMS));
    }
    let mut names = Vec::new();
    for entry in entries {
        match ClientName::parse(&entry) {
            Ok(name) => names.push(name),
            Err(wrong) => settings.fault(KEY, wrong),
        }
    }
    names
}

fn tls_1_2(version: &str) -> Result<bool, Wrong> {
    match version {
        "1.2" => Ok(true),
        "1.3" => Ok(false),
        other => Err(Wrong::new(format!("is {other:?}"), r#"write "1.2" or "1.3""#)),
    }
}

fn kafka(settings: &mut Settings, property_faults: &dyn Fn(&BTreeMap<String, String>) -> Vec<PropertyFault>) -> Kafka {
    const PARTITIONS: &str = "kafka.topics.partitions";
    const REPLICATION: &str = "kafka.topics.replication";
    let topics = NewTopics {
        partitions: settings.integer(PARTITIONS),
        replication: settings.integer(REPLICATION),
        retention_ms: settings.integer("kafka.topics.retention_ms"),
    };
    for (key, number) in [(PARTITIONS, topics.partitions), (REPLICATION, topics.replication)] {
        if number == 0 {
            settings.fault(key, Wrong::new("is 0", "write 1 or more, or -1 for the broker's default"));
        }
    }
    let (client, client_files) = client::read(settings, property_faults);
    let oauth = oauth::read(settings, &client, &client_files);
    Kafka {
        brokers: brokers(settings),
        create_topics: settings.boolean("kafka.create_topics"),
        topics,
        client,
        client_files,
        oauth,
    }
}

fn brokers(settings: &mut Settings) -> Vec<String> {
    const KEY: &str = "kafka.brokers";
    let brokers = settings.list(KEY).unwrap_or_default();
    if brokers.is_empty() {
        settings.fault(KEY, Wrong::new("is empty", "name at least one broker, as in host:9092"));
    }
    for broker in brokers.iter().filter(|broker| !is_broker(broker)) {
        settings.fault(
            KEY,
            Wrong::new(format!("holds {broker:?}, no address"), "write host:port, as in kafka-1.example:9092"),
        );
    }
    brokers
}

/// Whether librdkafka takes `text` as a broker: `host`, `host:port` or `[v6]:port`, with an optional `protocol://`.
fn is_broker(text: &str) -> bool {
    const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
    let (protocol, address) = text.split_once("://").unwrap_or(("plaintext", text));
    if !PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(protocol)) {
        return false;
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !address.ends_with(']') => (host, port.parse().unwrap_or(0)),
        _ => (address, 9092_u16),
    };
    !host.is_empty() && port > 0 && !host.contains(|c: char| c.is_whitespace() || matches!(c, ',' | '/'))
}

fn registry(settings: &mut Settings) -> Option<Registry> {
    if !settings.is_given("registry.url") {
        refuse_without_url(settings);
        return None;
    }
    let urls = settings.parsed("registry.url", registry_urls).unwrap_or_default();
    let registry = Registry {
        urls,
        user: settings.text("registry.user"),
        password: settings.secret("registry.password"),
        token: settings.secret("registry.token"),
        token_file: settings.path("registry.token_file"),
        ca: settings.path("registry.ca"),
        identity: registry_identity(settings),
        auto_register: settings.boolean("registry.auto_register"),
    };
    for key in ["registry.password", "registry.password_file"] {
        if settings.is_given(key) && !settings.is_given("registry.user") {
            settings.fault(key, Wrong::new("is given without registry.user", "set both, or neither"));
        }
    }
    for key in ["registry.token", "registry.token_file"] {
        if settings.is_given(key) && settings.is_given("registry.user") {
            settings.both(key, "registry.user");
        }
    }
    if registry.token.as_ref().is_some_and(|token| token.0.contains(|c: char| !c.is_ascii_graphic())) {
        let key = if registry.token_file.is_some() { "registry.token_file" } else { "registry.token" };
        settings.fault(
            key,
            Wrong::new("does not hold one token alone", "give the token as it is, without Bearer before it"),
        );
    }
    Some(registry)
}

/// Our certificate for the registry and its key, which must be given together.
fn registry_identity(settings: &mut Settings) -> Option<(PathBuf, PathBuf)> {
    const CERTIFICATE: &str = "registry.certificate";
    const KEY: &str = "registry.private_key";
    match (settings.path(CERTIFICATE), settings.path(KEY)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => {
            settings.fault(CERTIFICATE, Wrong::new("is given without registry.private_key", "set both, or neither"));
            None
        }
        (None, Some(_)) => {
            settings.fault(KEY, Wrong::new("is given without registry.certificate", "set both, or neither"));
            None
        }
        (None, None) => None,
    }
}

fn refuse_without_url(settings: &mut Settings) {
    for (name, _) in settings.below("registry") {
        settings.fault(
            &format!("registry.{name}"),
            Wrong::new("has no registry to say it of", "set registry.url, or leave it out"),
        );
    }
}

/// The addresses of one registry, separated by commas as for Confluent's clients.
fn registry_urls(text: &str) -> Result<Vec<String>, Wrong> {
    text.split(',').map(|url| registry_url(url.trim())).collect()
}

/// Checks an address of the registry. Its errors do not show the address, which may hold a password.
fn registry_url(text: &str) -> Result<String, Wrong> {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return Err(Wrong::new(
            "begins with neither http:// nor https://",
            "write it as in https://registry.example:8081",
        ));
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if rest.contains('@') {
        return Err(Wrong::new("holds a user or a password", "set registry.user and registry.password_file instead"));
    }
    if authority.is_empty() || rest.contains(|c: char| c.is_whitespace() || matches!(c, '?' | '#')) {
        return Err(Wrong::new("is no base address", "write it as in https://registry.example:8081"));
    }
    Ok(text.to_owned())
}

fn address(settings: &mut Settings, key: &str) -> SocketAddr {
    let parse = |text: &str| {
        let remedy = "write an IP address and a port, as in 0.0.0.0:8443 or [::]:8443; port 0 takes a free one";
        text.parse().map_err(|_| Wrong::new(format!("is {text:?}, no address to listen on"), remedy))
    };
    settings.parsed(key, parse).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
}

#[cfg(test)]
pub(super) mod tests;
