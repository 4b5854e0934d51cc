//! Schema -> id: a Confluent-compatible schema registry, asked at start and never again.

use std::{
    ops::RangeInclusive,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value as Json, json};
use ureq::http::{Request, Response, Uri};

use crate::{
    config,
    http_client::{Client, Trust, Unusable},
};

/// The compatibility of each subject: old and new readers read old and new records.
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// The most bytes that are read of an answer's body: a schema has some ten kilobytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The codes of a registry's 404: no such subject (40401), version, schema, or compatibility of the subject's own. The
/// code tells a registry's 404 from any other server's.
const NOT_THERE: RangeInclusive<u64> = 40400..=40499;

/// The longest time of one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one registry. Its calls block, each for at most 10 s at each of the registry's addresses.
pub struct Registry {
    /// Each address of the same registry, in the order of the configuration.
    sites: Vec<Site>,
    /// The address that answered last, which is asked first.
    kept: AtomicUsize,
    authorization: Authorization,
}

struct Site {
    url: String,
    client: Client,
}

/// The bridge's credentials for the registry.
enum Authorization {
    Nobody,
    Fixed(String),
    /// The file of a token is read for each request: the token is renewed there.
    TokenFile(PathBuf),
}

/// The reason why a request to the registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the registry's file {0}")]
    File(Unusable),
    #[error("the proxy to the registry: {0}")]
    Proxy(Unusable),
    #[error("registry.token_file names {}, {reason}", .file.display())]
    Token { file: PathBuf, reason: String },
    /// With why, for each address; `proxied` where one of them is asked through a proxy.
    #[error("the registry at {tried}")]
    Unreachable { tried: String, proxied: bool },
    #[error("{url}{path} answers HTTP {status}, it has moved{to}: let registry.url name the registry itself")]
    Moved { url: String, path: String, status: u16, to: String },
    #[error("the registry refused {method} {path}: HTTP {status}, {message}")]
    Refused { method: &'static str, path: String, status: u16, message: String },
    #[error(
        "{url}{path} answers 404 without Confluent's error code: it is no schema registry, or registry.url lacks its path (Apicurio: /apis/ccompat/v7)"
    )]
    NoRegistry { url: String, path: String },
    #[error("the registry's answer to {path} is not what its API says: {reason}")]
    Answer { path: String, reason: String },
}

/// A subject's newest schema.
#[derive(Debug, Clone)]
pub struct Version {
    pub id: u32,
    pub version: u32,
    pub schema: String,
}

impl Registry {
    /// # Errors
    /// When a file for TLS cannot be used, or a variable names a proxy that is none.
    pub fn new(config: &config::Registry) -> Result<Self, RegistryError> {
        let identity = config.identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let trust = Trust { ca: config.ca.as_deref(), identity };
        let site = |url: &String| {
            let client = Client::new(url, trust, TIMEOUT).map_err(|error| match error {
                Unusable::File { .. } => RegistryError::File(error),
                Unusable::Proxy(_) => RegistryError::Proxy(error),
            })?;
            Ok(Site { url: url.trim_end_matches('/').to_owned(), client })
        };
        let sites = config.urls.iter().map(site).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { sites, kept: AtomicUsize::new(0), authorization: Authorization::of(config) })
    }

    /// The id under which `subject` has this schema, or `None` when it has not.
    ///
    /// # Errors
    /// When the registry is away or refuses.
    pub fn find(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        // Looked up as it is first; normalized, so that other white space or order of attributes does not hide it.
        for query in ["", "?normalize=true"] {
            let path = format!("/subjects/{}{query}", encode(subject));
            match self.call("POST", &path, Some(&json!({ "schema": schema }))) {
                Ok(found) => return number(&found, "id", &path).map(Some),
                Err(RegistryError::Refused { status: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Registers `schema` under `subject`, whose compatibility becomes [`COMPATIBILITY`]; gives its id.
    ///
    /// # Errors
    /// When the registry is away or refuses, above all a schema that is not compatible (HTTP 409).
    pub fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        self.call("PUT", &format!("/config/{}", encode(subject)), Some(&json!({ "compatibility": COMPATIBILITY })))?;
        let path = format!("/subjects/{}/versions", encode(subject));
        number(&self.call("POST", &path, Some(&json!({ "schema": schema })))?, "id", &path)
    }

    /// The newest schema of `subject`, if there is one.
    ///
    /// # Errors
    /// When the registry is away or refuses.
    pub fn latest(&self, subject: &str) -> Result<Option<Version>, RegistryError> {
        let path = format!("/subjects/{}/versions/latest", encode(subject));
        match self.call("GET", &path, None) {
            Ok(found) => Ok(Some(Version {
                id: number(&found, "id", &path)?,
                version: number(&found, "version", &path)?,
                schema: text(&found, "schema", &path)?,
            })),
            Err(RegistryError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The compatibility that is set for `subject` itself, if any.
    ///
    /// # Errors
    /// When the registry is away or refuses.
    pub fn compatibility(&self, subject: &str) -> Result<Option<String>, RegistryError> {
        match self.call("GET", &format!("/config/{}", encode(subject)), None) {
            Ok(found) => Ok(found.get("compatibilityLevel").and_then(Json::as_str).map(str::to_owned)),
            Err(RegistryError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The schema with this id.
    ///
    /// # Errors
    /// When the registry is away, refuses, or does not know the id.
    pub fn schema(&self, id: u32) -> Result<String, RegistryError> {
        let path = format!("/schemas/ids/{id}");
        text(&self.call("GET", &path, None)?, "schema", &path)
    }

    /// Asks the address that answered last and, if there is no answer, the others in turn.
    fn call(&self, method: &'static str, path: &str, body: Option<&Json>) -> Result<Json, RegistryError> {
        let authorization = self.authorization.header()?;
        let kept = self.kept.load(Ordering::Relaxed).min(self.sites.len());
        let (before, from_kept) = self.sites.split_at(kept);
        let mut tried = Vec::new();
        for (turn, site) in from_kept.iter().chain(before).enumerate() {
            let answer = site.ask(method, path, body, authorization.as_deref());
            let another = turn + 1 < self.sites.len();
            match answer {
                // A proxy before the registry may answer that the registry is away.
                Ok(answer) if another && matches!(answer.status().as_u16(), 502..=504) => {
                    tried.push(format!("{} answers HTTP {}", site.url, answer.status().as_u16()));
                }
                Ok(answer) => {
                    self.kept.store((kept + turn) % self.sites.len(), Ordering::Relaxed);
                    return site.read(answer, method, path);
                }
                Err(error) => tried.push(format!("{} does not answer{}: {error}", site.url, site.client.through)),
            }
        }
        let proxied = self.sites.iter().any(|site| !site.client.through.is_empty());
        Err(RegistryError::Unreachable { tried: tried.join("; the one at "), proxied })
    }
}

impl Authorization {
    fn of(config: &config::Registry) -> Self {
        match (&config.user, &config.token, &config.token_file) {
            (Some(user), ..) => {
                let password = config.password.as_ref().map_or("", |password| password.0.as_str());
                Self::Fixed(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            (None, _, Some(file)) => Self::TokenFile(file.clone()),
            (None, Some(token), None) => Self::Fixed(format!("Bearer {}", token.0)),
            (None, None, None) => Self::Nobody,
        }
    }

    fn header(&self) -> Result<Option<String>, RegistryError> {
        match self {
            Self::Nobody => Ok(None),
            Self::Fixed(header) => Ok(Some(header.clone())),
            Self::TokenFile(file) => {
                let fault = |reason: String| RegistryError::Token { file: file.clone(), reason };
                let text =
                    std::fs::read_to_string(file).map_err(|error| fault(format!("which cannot be read: {error}")))?;
                match text.trim() {
                    "" => Err(fault("which is empty".to_owned())),
                    token if token.contains(|c: char| !c.is_ascii_graphic()) => {
                        Err(fault("which does not hold one token alone".to_owned()))
                    }
                    token => Ok(Some(format!("Bearer {token}"))),
                }
            }
        }
    }
}

impl Site {
    fn ask(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Json>,
        authorization: Option<&str>,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        match body {
            Some(body) => self.client.agent.run(request.body(body.to_string())?),
            None => self.client.agent.run(request.body(())?),
        }
    }

    fn read(&self, mut answer: Response<ureq::Body>, method: &'static str, path: &str) -> Result<Json, RegistryError> {
        let status = answer.status().as_u16();
        if answer.status().is_redirection() {
            let to = answer.headers().get("location").and_then(|to| shown(to.to_str().ok()?)).unwrap_or_default();
            return Err(RegistryError::Moved { url: self.url.clone(), path: path.to_owned(), status, to });
        }
        let wrong = |reason: String| RegistryError::Answer { path: path.to_owned(), reason };
        let text = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|error| wrong(error.to_string()))?;
        let json: Result<Json, _> = serde_json::from_str(&text);
        if !answer.status().is_success() {
            let json = json.ok();
            let code = json.as_ref().and_then(|json| json.get("error_code")?.as_u64());
            if status == 404 && !code.is_some_and(|code| NOT_THERE.contains(&code)) {
                return Err(RegistryError::NoRegistry { url: self.url.clone(), path: path.to_owned() });
            }
            let message = json.and_then(|json| Some(json.get("message")?.as_str()?.to_owned()));
            let message = message.unwrap_or_else(|| "without a message".to_owned());
            return Err(RegistryError::Refused { method, path: path.to_owned(), status, message });
        }
        json.map_err(|error| wrong(error.to_string()))
    }
}

/// An address, as far as a log may show it: neither user nor query.
fn shown(location: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let host = uri.host().map(|host| format!("{}://{host}", uri.scheme_str().unwrap_or_default())).unwrap_or_default();
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!(" to {host}{port}{}", uri.path()))
}

fn number(json: &Json, member: &str, path: &str) -> Result<u32, RegistryError> {
    let found = json.get(member).and_then(Json::as_u64).and_then(|number| u32::try_from(number).ok());
    found.ok_or_else(|| RegistryError::Answer { path: path.to_owned(), reason: format!("no number `{member}`") })
}

fn text(json: &Json, member: &str, path: &str) -> Result<String, RegistryError> {
    let found = json.get(member).and_then(Json::as_str).map(str::to_owned);
    found.ok_or_else(|| RegistryError::Answer { path: path.to_owned(), reason: format!("no string `{member}`") })
}

/// A topic's name has no other character that a path could not hold.
fn encode(subject: &str) -> String {
    subject.replace('%', "%25").replace('/', "%2F")
}

/// The subject of a topic's values (TopicNameStrategy).
pub fn subject(topic: &str) -> String {
    format!("{topic}-value")
}
