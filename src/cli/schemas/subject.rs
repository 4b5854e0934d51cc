//! The registry's state of each schema, and what the state means for the bridge.

use console::style;
use serde_json::{Value as Json, json};

use super::{compatibility, difference, open};
use crate::{
    cli::{
        Failure,
        findings::{Findings, Level},
        target::Target,
    },
    record::Route,
    registry::{COMPATIBILITY, Registry, RegistryError, Version, subject},
    schema::Schema,
    serve::routes,
};

/// The schema of one topic's values, and its state in the registry.
pub struct Subject {
    /// The feed's label.
    pub feed: String,
    topic: String,
    /// The subject's name in the registry.
    pub subject: String,
    /// The schema that the bridge writes with.
    pub schema: Schema,
    /// Its state in the registry.
    pub state: State,
    /// The compatibility level that is set for the subject itself.
    pub compatibility: Option<String>,
    /// The first difference between our text and the registry's under the same id. Some registries take texts that
    /// differ only in docs for one schema, and keep the first.
    kept_otherwise: Option<String>,
}

/// The state of a schema in the registry.
pub enum State {
    /// No registry is configured: values are in single-object encoding.
    NoRegistry,
    /// This schema is registered. `version` is known only if it is the newest.
    Registered { id: u32, version: Option<u32>, newest: Version },
    /// The configuration fixes the id; `wrong` tells why that is wrong, if it is.
    Pinned { id: u32, wrong: Option<String> },
    /// The subject has no schema.
    Empty,
    /// Only other schemas are registered; `incompatible` tells why the newest does not fit ours, if it does not.
    Others { newest: Version, incompatible: Option<String> },
}

/// Looks at every subject that the configuration needs.
///
/// # Errors
/// A schema cannot be used, or the registry does not answer.
pub fn survey(target: &Target) -> Result<Vec<Subject>, Failure> {
    let routes = routes(&target.config).map_err(|faults| Failure::findings(faults.join("\n")))?;
    let registry = open(&target.config)?;
    let mut subjects = Vec::new();
    for (route, feed) in routes.iter().zip(&target.config.feeds) {
        for topic in &route.topics {
            let subject = subject(&topic.topic);
            let (state, compatibility) = match (&registry, feed.schema_id) {
                (None, _) => (State::NoRegistry, None),
                (Some(registry), Some(id)) => (pinned(registry, id, &route.schema), None),
                (Some(registry), None) => look(registry, &subject, route, target.dev.is_some()).map_err(unanswered)?,
            };
            let kept = match (&registry, &state) {
                (Some(registry), State::Registered { id, .. }) => Some(registry.schema(*id).map_err(unanswered)?),
                _ => None,
            };
            subjects.push(Subject {
                kept_otherwise: kept.and_then(|kept| difference::first(&route.schema.text, &kept)),
                feed: route.label.clone(),
                topic: topic.topic.clone(),
                subject,
                schema: route.schema.clone(),
                state,
                compatibility,
            });
        }
    }
    Ok(subjects)
}

/// A registry's error as a failure with its remedy.
pub fn unanswered(error: RegistryError) -> Failure {
    let remedy = match &error {
        RegistryError::Unreachable { proxied: true, .. } => {
            "is that proxy up, and may it connect there? Unset the variable, or name the registry's host in no_proxy"
        }
        RegistryError::Unreachable { .. } => "is registry.url right, and the registry up?",
        RegistryError::Refused { status: 401 | 403, .. } => {
            "are registry.user and registry.password_file, or registry.token_file, right, and may that user do it?"
        }
        RegistryError::Refused { .. } | RegistryError::Answer { .. } => {
            "is registry.url the base of a Confluent-compatible API? (Apicurio's ends with /apis/ccompat/v7)"
        }
        RegistryError::NoRegistry { .. } | RegistryError::Moved { .. } => "correct registry.url",
        RegistryError::Proxy(_) => "write http://HOST:PORT",
        RegistryError::File(_) => {
            "give registry.ca, registry.certificate and registry.private_key as readable files in PEM, the last two of one pair"
        }
        RegistryError::Token { .. } => "name a readable file that holds nothing but the token",
    };
    let message = format!("{error}\n  {remedy}");
    // Such a file is a fault of the configuration, not of the registry.
    if matches!(error, RegistryError::File(_) | RegistryError::Proxy(_) | RegistryError::Token { .. }) {
        Failure::findings(message)
    } else {
        Failure::new(message)
    }
}

fn pinned(registry: &Registry, id: u32, ours: &Schema) -> State {
    let wrong = match registry.schema(id).map(|text| Schema::parse(&text)) {
        Ok(Ok(theirs)) if theirs.fingerprint == ours.fingerprint => None,
        Ok(Ok(_) | Err(_)) => Some("the registry has another schema under this id".to_owned()),
        Err(error @ RegistryError::Refused { status: 404, .. }) => Some(error.to_string()),
        // An id is pinned so that nobody needs the registry: its silence is no fault.
        Err(_) => None,
    };
    State::Pinned { id, wrong }
}

fn look(
    registry: &Registry,
    subject: &str,
    route: &Route,
    dev: bool,
) -> Result<(State, Option<String>), RegistryError> {
    let Some(newest) = registry.latest(subject)? else { return Ok((State::Empty, None)) };
    let text = &route.schema.text;
    // `dev` serves our texts as they are, and answers only GET, so they are compared here.
    let id = if dev { Some(newest.id).filter(|_| newest.schema == *text) } else { registry.find(subject, text)? };
    let compatibility = registry.compatibility(subject)?;
    let state = match id {
        Some(id) => State::Registered { id, version: Some(newest.version).filter(|_| newest.id == id), newest },
        None => {
            let incompatible = compatibility::why_not(&newest.schema, &route.schema.avro);
            State::Others { newest, incompatible }
        }
    };
    Ok((state, compatibility))
}

/// The command that registers the missing schemas.
const APPLY: &str = "schemas --apply";

/// The remedy for a schema that is not compatible.
pub const EVOLVE: &str = "a schema may only gain or lose fields of type [\"null\", T] with default null: put the fields back as they were,\nor give the feed another topic, and so another subject";

/// The titles of [`Subject::row`].
pub const TITLES: [&str; 8] = ["FEED", "TOPIC", "SUBJECT", "FINGERPRINT", "ID", "VERSION", "COMPATIBILITY", "STATE"];

impl Subject {
    /// Findings about the state.
    pub fn judge(&self, target: &Target) -> Findings {
        let mut findings = Findings::default();
        let about = format!("schema {}", self.subject);
        let auto_register = target.config.registry.as_ref().is_some_and(|registry| registry.auto_register);
        match &self.state {
            State::NoRegistry => return findings,
            State::Pinned { id, wrong: None } => {
                findings.ok(&about, format!("id {id}, fixed by feeds.{}.schema_id", self.feed));
            }
            State::Pinned { id, wrong: Some(why) } => {
                findings.add(
                    Level::Error,
                    &about,
                    format!("feeds.{}.schema_id = {id}: {why}", self.feed),
                    "correct the id, or leave the key out: the bridge asks for it then",
                );
            }
            State::Registered { id, version: Some(version), .. } => {
                findings.ok(&about, format!("id {id}, version {version}"));
            }
            State::Registered { id, version: None, newest } => {
                findings.note(
                    &about,
                    format!(
                        "id {id}; version {} (id {}) is newer and another schema: fine during an upgrade",
                        newest.version, newest.id
                    ),
                );
            }
            State::Others { newest, incompatible: Some(why) } => {
                findings.add(
                    Level::Error,
                    &about,
                    format!("not registered, and not compatible with version {}: {why}", newest.version),
                    EVOLVE,
                );
            }
            State::Empty | State::Others { .. } if auto_register => findings
                .note(&about, "not registered; the bridge registers it at start (registry.auto_register = true)"),
            State::Empty | State::Others { .. } => {
                let what = "not registered: the bridge does not become ready";
                findings.add(
                    Level::Error,
                    &about,
                    what,
                    format!("run `{}`, or set registry.auto_register = true", target.command(APPLY)),
                );
            }
        }
        if let Some(place) = &self.kept_otherwise {
            findings.note(
                &about,
                format!(
                    "the registry keeps another text of this schema, which differs at {place}: a consumer that reads the schema there finds its docs and defaults, not ours"
                ),
            );
        }
        let has_versions = matches!(self.state, State::Registered { .. } | State::Others { .. });
        if has_versions && target.dev.is_none() && self.compatibility.as_deref() != Some(COMPATIBILITY) {
            let level = self.compatibility.as_deref().unwrap_or("none of its own");
            let what = format!(
                "compatibility is {level}, not {COMPATIBILITY}: somebody may register a schema that some reader cannot use"
            );
            findings.add(Level::Warning, &about, what, format!("run `{}`", target.command(APPLY)));
        }
        findings
    }

    fn fingerprint(&self) -> String {
        self.schema.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn state(&self) -> String {
        match &self.state {
            State::NoRegistry => "single-object encoding".to_owned(),
            State::Registered { version: Some(_), .. } => "registered".to_owned(),
            State::Registered { version: None, newest, .. } => {
                format!("registered; version {} is newer", newest.version)
            }
            State::Pinned { wrong: None, .. } => "id fixed".to_owned(),
            State::Pinned { wrong: Some(_), .. } => "id fixed, wrong".to_owned(),
            State::Empty => "not registered".to_owned(),
            State::Others { newest, incompatible: None } => {
                format!("not registered; compatible with version {}", newest.version)
            }
            State::Others { newest, incompatible: Some(_) } => {
                format!("not registered; NOT compatible with version {}", newest.version)
            }
        }
    }

    fn id_and_version(&self) -> (Option<u32>, Option<u32>) {
        match &self.state {
            State::Registered { id, version, .. } => (Some(*id), *version),
            State::Pinned { id, .. } => (Some(*id), None),
            State::NoRegistry | State::Empty | State::Others { .. } => (None, None),
        }
    }

    /// The cells under [`TITLES`].
    pub fn row(&self) -> Vec<String> {
        let (id, version) = self.id_and_version();
        let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let state = match &self.state {
            State::Registered { .. } | State::Pinned { wrong: None, .. } | State::NoRegistry => {
                style(self.state()).green()
            }
            State::Empty | State::Others { incompatible: None, .. } => style(self.state()).yellow(),
            State::Pinned { wrong: Some(_), .. } | State::Others { incompatible: Some(_), .. } => {
                style(self.state()).red().bold()
            }
        };
        let compatibility = self.compatibility.as_deref().unwrap_or("-").to_owned();
        vec![
            self.feed.clone(),
            self.topic.clone(),
            self.subject.clone(),
            self.fingerprint(),
            number(id),
            number(version),
            compatibility,
            state.to_string(),
        ]
    }

    /// The state as one object, for `--json`.
    pub fn json(&self) -> Json {
        let (id, version) = self.id_and_version();
        let newest = match &self.state {
            State::Registered { newest, .. } | State::Others { newest, .. } => {
                Some(json!({ "id": newest.id, "version": newest.version }))
            }
            State::NoRegistry | State::Pinned { .. } | State::Empty => None,
        };
        let incompatible = match &self.state {
            State::Others { incompatible, .. } => incompatible.as_deref(),
            State::NoRegistry | State::Registered { .. } | State::Pinned { .. } | State::Empty => None,
        };
        json!({
            "feed": self.feed,
            "topic": self.topic,
            "subject": self.subject,
            "fingerprint": self.fingerprint(),
            "state": self.state(),
            "id": id,
            "version": version,
            "newest": newest,
            "incompatible": incompatible,
            "compatibility": self.compatibility,
        })
    }
}
