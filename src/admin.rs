//! Health and metrics, on a port and a thread of their own: they answer while the data path is saturated.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::task::AbortHandle;

use crate::{
    http::{Answer, Content, Hint, Read, Refusal, RefusalStatus},
    metrics::Metrics,
    readiness::Readiness,
};

/// A schema as the registry's read endpoints of `dev` show it.
#[derive(Debug, Clone)]
pub struct LocalSchema {
    pub id: u32,
    pub subject: String,
    pub text: String,
}

/// The most connections to the admin port: probes and scrapes need a few. At the limit the oldest connection is closed,
/// so that a probe gets through even if somebody holds all of them.
const CONNECTIONS_MAX: usize = 64;

/// The sources of the admin port's answers.
pub struct Admin {
    pub readiness: Arc<Readiness>,
    pub metrics: Arc<Metrics>,
    /// Served as a registry would serve them; empty but in `dev`.
    pub schemas: Vec<LocalSchema>,
}

/// Starts the admin thread on a bound listener; it ends with the process.
///
/// # Errors
/// The system gives no thread or runtime.
pub fn start(admin: Admin, listener: TcpListener) -> std::io::Result<SocketAddr> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(serve(Arc::new(admin), listener)))?;
    Ok(address)
}

async fn serve(admin: Arc<Admin>, listener: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin port cannot be served"),
    };
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let admin = Arc::clone(&admin);
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = Answer::from(admin.answer(request.method(), request.uri().path()));
            async move { Ok::<_, Infallible>(Response::from(answer)) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(http.serve_connection(TokioIo::new(socket), service)).abort_handle());
    }
}

impl Admin {
    fn answer(&self, method: &Method, path: &str) -> Read {
        if method != Method::GET && method != Method::HEAD {
            let refusal = refusal(RefusalStatus::METHOD_NOT_ALLOWED, &json!({ "error": "only GET is answered here" }));
            return Err(Refusal { hint: Some(Hint::Allow("GET, HEAD")), ..refusal });
        }
        match path {
            "/livez" => Ok(json_content(&json!({ "alive": true }))),
            "/readyz" => {
                let waits = self.readiness.reasons();
                let said = json!({ "ready": waits.is_empty(), "waiting_for": waits });
                if waits.is_empty() {
                    Ok(json_content(&said))
                } else {
                    Err(refusal(RefusalStatus::SERVICE_UNAVAILABLE, &said))
                }
            }
            "/metrics" => Ok(Content { media_type: "text/plain; version=0.0.4", bytes: self.metrics.text().into() }),
            other => self.registry(other).ok_or_else(|| self.not_found(other)),
        }
    }

    fn not_found(&self, path: &str) -> Refusal {
        // A registry's clients understand no other kind of 404.
        let code = match path.split('/').nth(1).filter(|_| !self.schemas.is_empty()) {
            Some("subjects") => 40401,
            Some("schemas") => 40403,
            Some("config") => 40408,
            _ => 404,
        };
        refusal(
            RefusalStatus::NOT_FOUND,
            &json!({ "error_code": code, "message": "not found; there are /livez, /readyz and /metrics" }),
        )
    }

    /// The read endpoints of a Confluent-compatible registry.
    fn registry(&self, path: &str) -> Option<Content> {
        if self.schemas.is_empty() {
            return None;
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let json = match parts.as_slice() {
            ["subjects"] => json!(self.schemas.iter().map(|schema| schema.subject.as_str()).collect::<Vec<_>>()),
            ["schemas", "types"] => json!(["AVRO"]),
            ["config"] => json!({ "compatibilityLevel": crate::registry::COMPATIBILITY }),
            ["schemas", "ids", id] => json!({ "schema": self.find(|schema| schema.id.to_string() == *id)?.text }),
            ["schemas", "ids", id, "versions"] => {
                json!([{ "subject": self.find(|schema| schema.id.to_string() == *id)?.subject, "version": 1 }])
            }
            ["subjects", subject, "versions"] => {
                self.find(|schema| schema.subject == *subject)?;
                json!([1])
            }
            ["subjects", subject, "versions", "1" | "latest"] => {
                let schema = self.find(|schema| schema.subject == *subject)?;
                json!({ "subject": schema.subject, "version": 1, "id": schema.id, "schemaType": "AVRO", "schema": schema.text })
            }
            _ => return None,
        };
        Some(Content { media_type: "application/vnd.schemaregistry.v1+json", bytes: json.to_string().into() })
    }

    fn find(&self, wanted: impl Fn(&LocalSchema) -> bool) -> Option<&LocalSchema> {
        self.schemas.iter().find(|schema| wanted(schema))
    }
}

fn json_content(json: &serde_json::Value) -> Content {
    Content::json(json.to_string())
}

fn refusal(status: RefusalStatus, json: &serde_json::Value) -> Refusal {
    Refusal { status, content: json_content(json), hint: None, is_last: false }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    #[test]
    fn who_holds_every_connection_does_not_keep_a_probe_out() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let admin = Admin { readiness: Readiness::new(metrics.ready.clone()), metrics, schemas: Vec::new() };
        let address = start(admin, TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let open = || {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        };
        let mut held: Vec<TcpStream> = (0..CONNECTIONS_MAX + 10).map(|_| open()).collect();
        let mut probe = open();
        probe.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        probe.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // The ten that were too many, and the one that made room for the probe.
        for oldest in &mut held[..11] {
            assert_eq!(oldest.read(&mut [0; 1]).unwrap(), 0);
        }
        held[11].set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(held[11].read(&mut [0; 1]).is_err(), "it is open");
    }
}
