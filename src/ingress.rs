//! Request -> answer: the flow, and the one table of what is answered.

mod counts;
mod head;
mod log_limit;

use std::{
    future::ready,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use self::{counts::Counts, log_limit::LogLimit};
use crate::{
    bridge::{Binding, Bridge, InFlight, Overload},
    config::Budget,
    kafka::{Accepted, Receipt},
    metrics::Metrics,
    quota::Share,
    record::Refused,
    tls::NotAllowed,
};

/// What every request needs.
pub struct Ingress {
    bridge: Bridge,
    budget: Budget,
    body_bytes_max: usize,
    /// Held requests are answered 503 from now on.
    cut_off: CancellationToken,
    counts: Counts,
    log_limit: LogLimit,
}

/// Who is at the other end of a connection.
pub struct Peer {
    pub connection: u64,
    /// When the connection was accepted: a sender's clock runs from there for its first request.
    pub accepted_at: Instant,
    /// The allowed name of its certificate.
    pub sender: Result<Arc<str>, NotAllowed>,
    first: AtomicBool,
    requests: AtomicU64,
}

impl Peer {
    pub fn new(connection: u64, accepted_at: Instant, sender: Result<Arc<str>, NotAllowed>) -> Self {
        Self { connection, accepted_at, sender, first: AtomicBool::new(true), requests: AtomicU64::new(0) }
    }
}

/// What can happen to a request, but for the 200: that needs a [`Receipt`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    NoCommitInTime,
    Overload(Overload),
    Stopping,
    TooLarge { max: usize },
    SlowBody,
    BrokenBody,
    Framing,
    NotAllowed,
    Method,
    Path,
}

/// Bytes of a body over the limit that its stub keeps.
const STUB_BYTES: usize = 16 * 1024;

/// How much of a refused body is read and forgotten, and how long the next part of it is waited for.
const DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;
const DISCARD_PAUSE_MAX: Duration = Duration::from_millis(250);

impl Ingress {
    pub fn new(
        bridge: Bridge,
        budget: Budget,
        body_bytes_max: usize,
        cut_off: CancellationToken,
        metrics: Arc<Metrics>,
    ) -> Self {
        let refusals = Refusal::ALL.iter().map(|refusal| (refusal.status(), refusal.code()));
        let counts = Counts::new(metrics, budget.timeout, refusals);
        Self { bridge, budget, body_bytes_max, cut_off, counts, log_limit: LogLimit::default() }
    }

    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Full<Bytes>> {
        let head_at = Instant::now();
        self.counts.received();
        let number = peer.requests.fetch_add(1, Ordering::Relaxed);
        let started = self.clock(peer, head_at);
        let deadline = started + self.budget.answer_by;
        let head_only = request.method() == Method::HEAD;
        let mut body = Bytes::new();
        let outcome = self.deliver(request, peer, deadline, &mut body).await;
        let answered_at = Instant::now();
        let mut response = match outcome {
            Ok(receipt) => {
                self.counts.committed(answered_at - started);
                committed(&receipt)
            }
            Err(refusal) => {
                self.log_limit.run(|| self.log_refusal(&refusal, peer, number, &body));
                let response = refused(&refusal, number);
                self.counts.refused(response.status(), refusal.code());
                response
            }
        };
        self.counts.answered(answered_at - head_at);
        if head_only {
            // Over HTTP/2 hyper would send it, and the client would take that for a broken connection.
            *response.body_mut() = Full::default();
        }
        response
    }

    /// From when the sender counts: it waits for the handshake too when it opened the connection for this request. One
    /// that was opened long before its first request came from a pool.
    fn clock(&self, peer: &Peer, head_at: Instant) -> Instant {
        let first = peer.first.swap(false, Ordering::Relaxed);
        let opened_for_it = head_at.duration_since(peer.accepted_at) < self.budget.answer_by / 2;
        if first && opened_for_it { peer.accepted_at } else { head_at }
    }

    /// The flow: a body becomes an event, a record, a receipt.
    async fn deliver(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        deadline: Instant,
        kept: &mut Bytes,
    ) -> Result<Receipt, Refusal> {
        let (head, mut body) = request.into_parts();
        let (binding, sender, share) = match self.admit(&head, &body, peer) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                // Who asks before sending (RFC 9110, section 10.1.1) is told by the answer not to.
                if !head.headers.contains_key(header::EXPECT) {
                    discard(&mut body, deadline).await;
                }
                return Err(refusal);
            }
        };
        let received = self.receive(&mut body, share, deadline).await?;
        // From here to the hand-over nothing is awaited: a client that goes away cannot take the event with it.
        let origin = head::origin(&head.headers, sender);
        let mut in_flight = match received {
            Received::Whole(body, bytes) => {
                kept.clone_from(&body);
                self.bridge.deliver(Accepted { body, origin, bytes }, binding)?
            }
            Received::TooLarge { first, bytes, share } => {
                let first = Accepted { body: first, origin, bytes: share };
                let (refusal, ()) =
                    tokio::join!(self.leave_stub(first, bytes, binding, deadline), discard(&mut body, deadline));
                return Err(refusal);
            }
        };
        let outcome = self.hold(&mut in_flight, deadline).await;
        outcome.inspect_err(|refusal| in_flight.refused(refusal.code()))
    }

    /// What the head alone decides: where the event goes, whether its sender may, and room for its body.
    fn admit<'a>(
        &self,
        head: &Parts,
        body: &Incoming,
        peer: &'a Peer,
    ) -> Result<(Binding, &'a Arc<str>, Share), Refusal> {
        if head::framing_is_ambiguous(&head.headers) {
            return Err(Refusal::Framing);
        }
        let binding = self.bridge.binding(head.uri.path()).ok_or(Refusal::Path)?;
        if head.method != Method::POST {
            return Err(Refusal::Method);
        }
        let sender = peer.sender.as_ref().map_err(|_| Refusal::NotAllowed)?;
        let share = self.bridge.admit(self.expected(body))?;
        Ok((binding, sender, share))
    }

    /// How much of a body will be kept, as far as its head tells.
    fn expected(&self, body: &Incoming) -> usize {
        match body.size_hint().exact() {
            Some(declared) if declared > self.body_bytes_max as u64 => STUB_BYTES,
            declared => declared.unwrap_or(0) as usize,
        }
    }

    /// Waits for the receipt, until D or until the drain is over.
    async fn hold(&self, in_flight: &mut InFlight, deadline: Instant) -> Result<Receipt, Refusal> {
        tokio::select! {
            biased;
            outcome = timeout_at(deadline, &mut in_flight.pending) => match outcome {
                Ok(Ok(receipt)) => Ok(receipt),
                Ok(Err(_)) | Err(_) => Err(Refusal::NoCommitInTime),
            },
            () = self.cut_off.cancelled() => Err(Refusal::Stopping),
        }
    }

    /// Reads the body within its limit and its time, with room taken for it first.
    async fn receive(&self, body: &mut Incoming, share: Share, deadline: Instant) -> Result<Received, Refusal> {
        let mut read = pin!(self.read_body(body, share));
        // Most bodies are there with their head: no timer for those.
        tokio::select! {
            biased;
            read = read.as_mut() => return read,
            () = ready(()) => {}
        }
        let by = deadline.min(Instant::now() + self.budget.body_by);
        tokio::select! {
            biased;
            read = timeout_at(by, read) => read.unwrap_or(Err(Refusal::SlowBody)),
            () = self.cut_off.cancelled() => Err(Refusal::Stopping),
        }
    }

    async fn read_body(&self, body: &mut Incoming, mut share: Share) -> Result<Received, Refusal> {
        let declared = body.size_hint().exact();
        let too_large = declared.is_some_and(|declared| declared > self.body_bytes_max as u64);
        let expected = self.expected(body);
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            // The client went away, or broke its framing.
            let Ok(data) = frame.map_err(|_| Refusal::BrokenBody)?.into_data() else { continue };
            if bytes.is_empty() && declared == Some(data.len() as u64) && !too_large {
                // A copy of its own: a slice of hyper's buffer would keep all of that for as long as the event lives.
                return Ok(Received::Whole(Bytes::copy_from_slice(&data), share));
            }
            if bytes.is_empty() {
                bytes.reserve(expected);
            }
            bytes.extend_from_slice(&data);
            if bytes.len() > share.amount() && !share.resize(bytes.len()) {
                return Err(self.bridge.no_room().into());
            }
            if bytes.len() > self.body_bytes_max || too_large && bytes.len() >= STUB_BYTES {
                bytes.truncate(STUB_BYTES);
                share.resize(bytes.len());
                return Ok(Received::TooLarge { first: bytes.freeze(), bytes: declared, share });
            }
        }
        let read = bytes.freeze();
        Ok(if too_large {
            Received::TooLarge { first: read, bytes: declared, share }
        } else {
            Received::Whole(read, share)
        })
    }

    /// A body over the limit cannot be kept: what is known of it goes to the dead letters, so that somebody can see that it came.
    async fn leave_stub(&self, first: Accepted, bytes: Option<u64>, binding: Binding, deadline: Instant) -> Refusal {
        let max = self.body_bytes_max;
        match self.bridge.deliver_stub(Refused::TooLarge { bytes, max }, first, binding) {
            // The answer is 413 whatever becomes of the stub; waiting for it makes it findable once answered.
            Ok(mut in_flight) => drop(self.hold(&mut in_flight, deadline).await),
            Err(overload) => tracing::warn!(%overload, "no stub was kept of a body over the limit"),
        }
        Refusal::TooLarge { max }
    }

    fn log_refusal(&self, refusal: &Refusal, peer: &Peer, number: u64, body: &[u8]) {
        let (event_id, name, event_type) = self.bridge.identify(body).unwrap_or_default();
        let request = format!("{}-{number}", peer.connection);
        let (status, reason) = (refusal.status().as_u16(), refusal.reason());
        let sender = match &peer.sender {
            Ok(name) => name,
            Err(not_allowed) => not_allowed.subject.as_str(),
        };
        tracing::warn!(request, status, code = refusal.code(), sender, event_id, name, event_type, "{reason}");
    }
}

/// Reads a refused body to its end and forgets it. Left unread it would cost the connection, and the reset that answers
/// what still comes could overtake the refusal.
async fn discard(body: &mut Incoming, deadline: Instant) {
    let mut left = DISCARD_BYTES_MAX;
    let read = async {
        while let Ok(Some(Ok(frame))) = timeout(DISCARD_PAUSE_MAX, body.frame()).await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    };
    let _ = timeout_at(deadline, read).await;
}

/// A body that was read as far as it will be.
enum Received {
    Whole(Bytes, Share),
    TooLarge { first: Bytes, bytes: Option<u64>, share: Share },
}

impl From<Overload> for Refusal {
    fn from(overload: Overload) -> Self {
        Self::Overload(overload)
    }
}

/// The only way to a 200.
fn committed(receipt: &Receipt) -> Response<Full<Bytes>> {
    // Topic names have no character that JSON would escape.
    let body = match receipt.offset() {
        Some(offset) => {
            format!(r#"{{"topic":"{}","partition":{},"offset":{offset}}}"#, receipt.topic(), receipt.partition())
        }
        None => format!(r#"{{"topic":"{}","partition":{},"offset":null}}"#, receipt.topic(), receipt.partition()),
    };
    respond(StatusCode::OK, body)
}

/// The status table: every refusal, no wildcard.
impl Refusal {
    /// One of each code: each is counted from 0.
    #[rustfmt::skip]
    const ALL: [Self; 10] = [
        Self::NoCommitInTime, Self::Overload(Overload::Bytes), Self::Stopping, Self::TooLarge { max: 0 }, Self::SlowBody,
        Self::BrokenBody, Self::Framing, Self::NotAllowed, Self::Method, Self::Path,
    ];

    fn status(&self) -> StatusCode {
        match self {
            Self::NoCommitInTime | Self::Overload(_) | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenBody | Self::Framing => StatusCode::BAD_REQUEST,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::NOT_FOUND,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoCommitInTime => "no_commit_in_time",
            Self::Overload(_) => Overload::CODE,
            Self::Stopping => "stopping",
            Self::TooLarge { .. } => "body_too_large",
            Self::SlowBody => "body_too_slow",
            Self::BrokenBody => "body_broken",
            Self::Framing => "framing_refused",
            Self::NotAllowed => "certificate_not_allowed",
            Self::Method => "method_not_allowed",
            Self::Path => "not_found",
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::NoCommitInTime => {
                "Kafka did not commit the event in time; the attempt goes on, send it again".to_owned()
            }
            Self::Overload(overload) => format!("{overload}; send it again later"),
            Self::Stopping => "this instance is stopping; send it again".to_owned(),
            Self::TooLarge { max } => format!("the body is over the limit of {max} bytes"),
            Self::SlowBody => "the body did not arrive in time".to_owned(),
            Self::BrokenBody => "the body ended before it was complete".to_owned(),
            Self::Framing => "a body comes with a content-length, or with `transfer-encoding: chunked`".to_owned(),
            Self::NotAllowed => {
                "the client certificate's name is not on the allow-list (ingress.tls.client_names)".to_owned()
            }
            Self::Method => "events are sent with POST".to_owned(),
            Self::Path => "no feed has this path; events go to / or /events".to_owned(),
        }
    }

    fn header(&self, number: u64) -> Option<(HeaderName, HeaderValue)> {
        match self {
            // Spread over three seconds, so that those who were refused do not come back as one.
            Self::Overload(_) => Some((header::RETRY_AFTER, HeaderValue::from(1 + number % 3))),
            Self::Stopping | Self::TooLarge { .. } | Self::SlowBody | Self::BrokenBody | Self::Framing => {
                Some((header::CONNECTION, HeaderValue::from_static("close")))
            }
            Self::Method => Some((header::ALLOW, HeaderValue::from_static("POST"))),
            Self::NoCommitInTime | Self::NotAllowed | Self::Path => None,
        }
    }
}

fn refused(refusal: &Refusal, number: u64) -> Response<Full<Bytes>> {
    let body = json!({ "error": refusal.reason(), "code": refusal.code() });
    let mut response = respond(refusal.status(), body.to_string());
    if let Some((name, value)) = refusal.header(number) {
        response.headers_mut().insert(name, value);
    }
    response
}

fn respond(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
