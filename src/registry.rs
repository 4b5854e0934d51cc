//! Schema -> id: a Confluent-compatible schema registry, asked at start and never again.

mod proxy;

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use proxy::Through;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value as Json, json};
use ureq::{
    Agent,
    http::{Request, Response, Uri},
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::{config, files::read_pem};

/// What the subjects' schemas must be to each other, so that old and new readers read old and new records.
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// Bodies of answers are cut off here: a schema is a few ten kilobytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What a registry says with its 404: no such subject (40401), version, schema, compatibility of a subject's own. Any
/// other server answers 404 too.
const NOT_THERE: RangeInclusive<u64> = 40400..=40499;

/// A client of one registry. Its calls block, each for at most 10 s.
pub struct Registry {
    agent: Agent,
    url: String,
    authorization: Option<String>,
    through: Option<Through>,
}

/// Why the registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the registry's CA file {file}: {reason}")]
    Ca { file: String, reason: String },
    #[error("the proxy to the registry: {reason}")]
    Proxy { reason: String },
    #[error("the registry at {url} does not answer{through}: {source}")]
    Unreachable { url: String, through: String, source: Box<ureq::Error> },
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
    /// When the CA file cannot be read, or a variable names a proxy that is none.
    pub fn new(config: &config::Registry) -> Result<Self, RegistryError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        if let Some(file) = &config.ca {
            let fault = |reason: String| RegistryError::Ca { file: file.display().to_string(), reason };
            let certificates = read_pem(file)
                .and_then(|text| CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>())
                .map_err(|error| fault(error.to_string()))?;
            let roots: Vec<_> = certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
            if roots.is_empty() {
                return Err(fault("holds no certificate".to_owned()));
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&roots));
        }
        let through = proxy::of(&config.url, &environment).map_err(|reason| RegistryError::Proxy { reason })?;
        let agent = Agent::config_builder()
            .proxy(through.as_ref().map(|through| through.proxy.clone()))
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(tls.build())
            .build()
            .new_agent();
        let authorization = config.user.as_ref().map(|user| {
            let password = config.password.as_ref().map_or("", |password| password.0.as_str());
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        });
        Ok(Self { agent, url: config.url.trim_end_matches('/').to_owned(), authorization, through })
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

    fn call(&self, method: &'static str, path: &str, body: Option<&Json>) -> Result<Json, RegistryError> {
        let through = || self.through.as_ref().map(ToString::to_string).unwrap_or_default();
        let away = |source: ureq::Error| RegistryError::Unreachable {
            url: self.url.clone(),
            through: through(),
            source: Box::new(source),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let answer = match body {
            Some(body) => self.agent.run(request.body(body.to_string()).map_err(|error| away(error.into()))?),
            None => self.agent.run(request.body(()).map_err(|error| away(error.into()))?),
        };
        self.read(answer.map_err(away)?, method, path)
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

#[allow(clippy::disallowed_methods, reason = "not of the configuration: variables that many programs share")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
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
