//! Request -> answer: the flow. The one table of what is answered is in `ingress/refusal.rs`.

mod counts;
mod head;
mod host;
mod log_limit;
mod peer;
mod refusal;

use std::{
    convert::Infallible,
    future::ready,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderValue},
    http::request::Parts,
};
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use self::{counts::Counts, refusal::Refusal};
pub use self::{log_limit::LogLimit, peer::Peer};
use crate::{
    bridge::{Binding, Bridge, Identity, InFlight},
    config::Budget,
    kafka::{Accepted, Receipt, Undelivered},
    metrics::Metrics,
    quota::Share,
    record::{Origin, Refused},
};

/// What every request needs.
pub struct Ingress {
    bridge: Bridge,
    budget: Budget,
    body_bytes_max: usize,
    /// Bodies that are not complete are waited for no longer; nor are receipts ([`Producers::dismiss`](crate::kafka::Producers::dismiss)).
    cut_off: CancellationToken,
    counts: Counts,
    log_limit: LogLimit,
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
        Self { bridge, budget, body_bytes_max, cut_off, counts, log_limit: LogLimit::new("refusals") }
    }

    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// Answers one request, and lets go of `busy` then. What its head decides is decided before the first wait, so that a held
    /// request keeps little of it.
    pub fn answer<Busy: Send + 'static>(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: &Arc<Peer>,
        busy: Busy,
    ) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + use<Busy> {
        let head_at = Instant::now();
        self.counts.received();
        let started = self.clock(peer, head_at);
        let number = peer.requests.fetch_add(1, Ordering::Relaxed);
        let (head, mut body) = request.into_parts();
        let admitted = self.admit(&head, &body, peer);
        // Over HTTP/2 hyper would send its body, and the client would take that for a broken connection.
        let head_only = head.method == Method::HEAD;
        // Who asks before sending (RFC 9110, section 10.1.1) is told by the answer not to.
        let body_comes = !head.headers.contains_key(header::EXPECT);
        let (ingress, peer) = (Arc::clone(self), Arc::clone(peer));
        async move {
            let mut busy = Some(busy);
            let deadline = started + ingress.budget.answer_by;
            let mut kept = None;
            let mut is_last = false;
            let outcome = match admitted {
                Ok(admitted) => ingress.deliver(admitted, &mut body, &peer, deadline, &mut kept).await,
                Err(refusal) => {
                    // By what it still sends nobody who is not allowed keeps a place from those who are.
                    if peer.sender.is_err() {
                        busy.take();
                    }
                    if body_comes {
                        Box::pin(discard(&mut body, deadline)).await;
                    } else {
                        // hyper cannot know where the next request begins, and closes: an answer says so (RFC 9112, section 9.6).
                        is_last = !body.is_end_stream();
                    }
                    Err(refusal)
                }
            };
            let answered_at = Instant::now();
            let mut response = match outcome {
                Ok(receipt) => {
                    ingress.counts.committed(answered_at - started);
                    committed(&receipt)
                }
                Err(refusal) => {
                    ingress.log_limit.run(|| ingress.log_refusal(&refusal, &peer, number, kept));
                    let response = refused(&refusal, number);
                    ingress.counts.refused(response.status(), refusal.code());
                    response
                }
            };
            ingress.counts.answered(answered_at - head_at);
            if is_last || peer.closing.load(Ordering::Relaxed) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if head_only {
                *response.body_mut() = Full::default();
            }
            Ok(response)
        }
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
        admitted: Admitted,
        body: &mut Incoming,
        peer: &Peer,
        deadline: Instant,
        kept: &mut Option<Kept>,
    ) -> Result<Receipt, Refusal> {
        let Admitted { binding, origin, mut share } = admitted;
        let received = match self.receive(body, &mut share, deadline).await {
            // Its rest is on the way.
            Err(refusal @ Refusal::Overload(_)) => {
                drop(share);
                Box::pin(discard(body, deadline)).await;
                return Err(refusal);
            }
            received => received?,
        };
        // From here to the hand-over nothing is awaited: a client that goes away cannot take the event with it.
        let accepted = |body| Accepted { body, origin, bytes: share };
        let mut in_flight = match received {
            Received::Whole(body) => {
                *kept = Some(Kept::Body(Arc::clone(&body)));
                self.bridge.deliver(accepted(body), binding)?
            }
            Received::TooLarge { first, bytes } => {
                let stub = self.leave_stub(accepted(first), bytes, binding, peer, deadline);
                let (refusal, ()) = Box::pin(async { tokio::join!(stub, discard(body, deadline)) }).await;
                return Err(refusal);
            }
        };
        if in_flight.joined {
            *kept = kept.take().map(|kept| Kept::Identity(Box::new(self.identify(kept))));
        }
        let outcome = self.hold(&mut in_flight, peer, deadline).await;
        outcome.inspect_err(|refusal| in_flight.refused(refusal.code()))
    }

    /// What the head alone decides: where the event goes, whether its sender may, and room for its body.
    fn admit(&self, head: &Parts, body: &Incoming, peer: &Peer) -> Result<Admitted, Refusal> {
        if head::framing_is_ambiguous(&head.headers) {
            return Err(Refusal::Framing);
        }
        let binding = self.bridge.binding(head.uri.path()).ok_or(Refusal::Path)?;
        if head.method != Method::POST {
            return Err(Refusal::Method);
        }
        let sender = peer.sender.as_ref().map_err(|_| Refusal::NotAllowed)?;
        if !host::is_clear(head) {
            return Err(Refusal::Host);
        }
        let origin = head::origin(&head.headers, sender);
        let share = self.bridge.admit(self.expected(body) + head::carried_bytes(&origin))?;
        Ok(Admitted { binding, origin, share })
    }

    /// How much of a body will be kept, as far as its head tells.
    fn expected(&self, body: &Incoming) -> usize {
        match body.size_hint().exact() {
            Some(declared) if declared > self.body_bytes_max as u64 => STUB_BYTES,
            declared => declared.unwrap_or(0) as usize,
        }
    }

    /// Waits for the receipt, until D or until the drain is over.
    async fn hold(&self, in_flight: &mut InFlight, peer: &Peer, deadline: Instant) -> Result<Receipt, Refusal> {
        let mut timer = peer.timer(deadline);
        let outcome = tokio::select! {
            biased;
            outcome = &mut in_flight.pending => outcome,
            () = &mut timer => Err(Undelivered::GivenUp),
        };
        peer.keep(timer);
        outcome.map_err(|why| match why {
            // No lane of events refuses: `Bridge::lanes`.
            Undelivered::GivenUp | Undelivered::Refused => Refusal::NoCommitInTime,
            Undelivered::Stopping => Refusal::Stopping,
        })
    }

    /// Reads the body within its limit and its time, with room taken for it first.
    async fn receive(&self, body: &mut Incoming, share: &mut Share, deadline: Instant) -> Result<Received, Refusal> {
        let mut read = pin!(self.read_body(body, share));
        // Most bodies are there with their head: no timer for those.
        tokio::select! {
            biased;
            read = read.as_mut() => return read,
            () = ready(()) => {}
        }
        let by = deadline.min(Instant::now() + self.budget.body_by);
        let rest = async {
            tokio::select! {
                biased;
                read = timeout_at(by, read) => read.unwrap_or(Err(Refusal::SlowBody)),
                () = self.cut_off.cancelled() => {
                    self.bridge.count_unread(Refusal::Stopping.code());
                    Err(Refusal::Stopping)
                }
            }
        };
        Box::pin(rest).await
    }

    async fn read_body(&self, body: &mut Incoming, share: &mut Share) -> Result<Received, Refusal> {
        let declared = body.size_hint().exact();
        let too_large = declared.is_some_and(|declared| declared > self.body_bytes_max as u64);
        let expected = self.expected(body);
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            // The client went away, or broke its framing.
            let Ok(data) = frame.map_err(|_| Refusal::BrokenBody)?.into_data() else { continue };
            if bytes.is_empty() && declared == Some(data.len() as u64) && !too_large {
                // A copy of its own: a slice of hyper's buffer would keep all of that for as long as the event lives.
                return Ok(Received::Whole(Arc::from(&*data)));
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
                return Ok(Received::TooLarge { first: Arc::from(&*bytes), bytes: declared });
            }
        }
        let read = Arc::from(&*bytes);
        Ok(if too_large { Received::TooLarge { first: read, bytes: declared } } else { Received::Whole(read) })
    }

    /// A body over the limit cannot be kept: what is known of it goes to the dead letters, so that somebody can see that it came.
    async fn leave_stub(
        &self,
        first: Accepted,
        bytes: Option<u64>,
        binding: Binding,
        peer: &Peer,
        deadline: Instant,
    ) -> Refusal {
        let max = self.body_bytes_max;
        match self.bridge.deliver_stub(Refused::TooLarge { bytes, max }, first, binding) {
            // The answer is 413 whatever becomes of the stub; waiting for it makes it findable once answered.
            Ok(mut in_flight) => drop(self.hold(&mut in_flight, peer, deadline).await),
            Err(overload) => {
                self.log_limit.run(|| tracing::warn!(%overload, "no stub was kept of a body over the limit"));
            }
        }
        Refusal::TooLarge { max }
    }

    fn identify(&self, kept: Kept) -> Identity {
        match kept {
            Kept::Body(body) => self.bridge.identify(&body).unwrap_or_default(),
            Kept::Identity(identity) => *identity,
        }
    }

    fn log_refusal(&self, refusal: &Refusal, peer: &Peer, number: u64, kept: Option<Kept>) {
        let Identity { event_id, name, event_type } = kept.map(|kept| self.identify(kept)).unwrap_or_default();
        let request = format!("{}-{number}", peer.connection);
        let (status, reason) = (refusal.status().as_u16(), refusal.reason());
        let sender = match &peer.sender {
            Ok(name) => &**name,
            // As the allow-list would have it.
            Err(not_allowed) => &format!("subject:{}", not_allowed.subject),
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

/// A request that may send its body.
struct Admitted {
    binding: Binding,
    origin: Origin,
    share: Share,
}

/// What a request keeps of its event while it is held, for the log line should it be refused.
enum Kept {
    Body(Arc<[u8]>),
    Identity(Box<Identity>),
}

/// A body that was read as far as it will be.
enum Received {
    Whole(Arc<[u8]>),
    TooLarge { first: Arc<[u8]>, bytes: Option<u64> },
}

/// The only way to a 200.
fn committed(receipt: &Receipt) -> Response<Full<Bytes>> {
    // Topic names have no character that JSON would escape. Without `format!`, which costs more than the rest of an answer.
    let (mut partition, mut offset) = (itoa::Buffer::new(), itoa::Buffer::new());
    let offset = receipt.offset().map_or("null", |at| offset.format(at));
    let parts = [
        r#"{"topic":""#,
        receipt.topic(),
        r#"","partition":"#,
        partition.format(receipt.partition()),
        r#","offset":"#,
        offset,
        "}",
    ];
    respond(StatusCode::OK, parts.concat())
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
