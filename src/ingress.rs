//! Request -> answer: the flow. The one table of refusals is in `ingress/refusal.rs`.

mod counts;
mod origin;
mod refusal;

use std::sync::Arc;

use hyper::{
    Method, Request,
    body::{Body, Incoming},
    header,
    http::request::Parts,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{counts::Counts, refusal::Cause};
use crate::{
    bridge::{Binding, Bridge, Delivery, Identity, InFlight},
    config::{self, Budget, Config},
    http::{
        Content, Write,
        body::{self, Received, Unread, Within},
        head, host,
    },
    kafka::{Accepted, Receipt, Undelivered},
    metrics::Metrics,
    quota::Share,
    record::{Origin, Refused},
    server::{Busy, Handler, Limits, LogLimit, Peer},
    tls::{self, Client, Clients},
};

/// The events' API.
pub struct Ingress {
    bridge: Bridge,
    budget: Budget,
    body_bytes_max: usize,
    /// Bodies that are not complete are waited for no longer; nor are receipts
    /// ([`Producers::dismiss`](crate::kafka::Producers::dismiss)).
    cut_off: CancellationToken,
    counts: Counts,
    log_limit: LogLimit,
}

/// The limits of the events' listener.
pub fn limits(config: &Config) -> Limits {
    let config::Ingress { connections_max, idle_max, age_max, head_max, .. } = config.ingress;
    Limits { section: "ingress", connections_max, idle_max, age_max, head_max, streams_max: config.streams_max() }
}

/// The TLS of the events' listener.
pub fn tls(config: &Config) -> tls::Section {
    tls::Section { name: "ingress.tls", tls: config.ingress.tls.clone(), clients: Clients::Required }
}

/// Each path that takes events takes nothing else: its answers are those of [`Write`].
impl Handler for Ingress {
    type Answer = Write;

    /// The head is judged before the first wait, so that a held request keeps little of it.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Arc<Peer>,
        busy: Busy,
    ) -> impl Future<Output = Write> + Send + 'static {
        self.counts.received();
        let call = Call::begin(peer, &self.budget);
        let (head, mut body) = request.into_parts();
        let admitted = self.admit(&head, &body, &call.peer);
        // A client that sent `Expect: 100-continue` sends no body once it sees a refusal (RFC 9110, section 10.1.1).
        let body_comes = !head.headers.contains_key(header::EXPECT);
        async move {
            let mut busy = Some(busy);
            let mut is_last = false;
            let outcome = match admitted {
                Ok(admitted) => self.deliver(admitted, &mut body, &call).await,
                Err(cause) => {
                    // From here the connection counts as idle: a sender that is not on the allow-list must not keep its
                    // place by trickling a body.
                    if !matches!(call.peer.client, Client::Allowed(_)) {
                        busy.take();
                    }
                    if body_comes {
                        Box::pin(body::discard(&mut body, call.deadline)).await;
                    } else {
                        // hyper cannot know where the next request begins, and closes: an answer says so (RFC 9112,
                        // section 9.6).
                        is_last = !body.is_end_stream();
                    }
                    Err(cause.into())
                }
            };
            self.conclude(outcome, &call, is_last)
        }
    }
}

impl Ingress {
    pub fn new(
        bridge: Bridge,
        budget: Budget,
        body_bytes_max: usize,
        cut_off: CancellationToken,
        metrics: Arc<Metrics>,
    ) -> Self {
        let counts = Counts::new(metrics, budget.timeout);
        Self { bridge, budget, body_bytes_max, cut_off, counts, log_limit: LogLimit::new("refusals") }
    }

    /// Judges the head: the event's binding, the sender's right to post, and room for the body.
    fn admit(&self, head: &Parts, body: &Incoming, peer: &Peer) -> Result<Admitted, Cause> {
        if head::framing_is_ambiguous(&head.headers) {
            return Err(Cause::Framing);
        }
        let binding = self.bridge.binding(head.uri.path()).ok_or(Cause::Path)?;
        if head.method != Method::POST {
            return Err(Cause::Method);
        }
        let Client::Allowed(sender) = &peer.client else { return Err(Cause::NotAllowed) };
        if !host::is_clear(head) {
            return Err(Cause::Host);
        }
        let origin = origin::origin(&head.headers, sender);
        let expected = body::expected(body, self.body_bytes_max);
        let share = self.bridge.admit(expected + origin::carried_bytes(&origin))?;
        Ok(Admitted { binding, origin, share })
    }

    /// The flow: a body becomes an event, a record, a receipt.
    async fn deliver(&self, admitted: Admitted, body: &mut Incoming, call: &Call) -> Result<Receipt, NoReceipt> {
        let Admitted { binding, origin, mut share } = admitted;
        let within = Within {
            bytes_max: self.body_bytes_max,
            time_max: self.budget.body_by,
            deadline: call.deadline,
            cut_off: &self.cut_off,
        };
        let received = match body::read(body, &mut share, &within).await {
            Ok(received) => received,
            Err(why) => {
                drop(share);
                return Err(Box::pin(self.unread(why, body, call)).await.into());
            }
        };
        // From here to the hand-over nothing is awaited: a client that goes away cannot take the event with it.
        let delivery = |body| Delivery { accepted: Accepted { body, origin, bytes: share }, binding };
        let (mut in_flight, event) = match received {
            Received::Whole(body) => self.hand_over(delivery(body))?,
            Received::TooLarge { first, bytes } => {
                let stub = self.leave_stub(delivery(first), bytes, call);
                let (cause, ()) = Box::pin(async { tokio::join!(stub, body::discard(body, call.deadline)) }).await;
                return Err(cause.into());
            }
        };
        self.hold(&mut in_flight, call).await.map_err(|cause| {
            in_flight.refused(cause.code());
            NoReceipt { cause, event: Some(event) }
        })
    }

    /// Gives a body to the bridge. The second value tells its event, should the log need it.
    #[inline]
    fn hand_over(&self, delivery: Delivery) -> Result<(InFlight, Kept), NoReceipt> {
        let body = Arc::clone(&delivery.accepted.body);
        match self.bridge.deliver(delivery) {
            // The body that will be committed is an earlier attempt's: this one takes no more room.
            Ok(in_flight) if in_flight.joined => {
                let identity = Box::new(self.identify(Kept::Body(body)));
                Ok((in_flight, Kept::Identity(identity)))
            }
            Ok(in_flight) => Ok((in_flight, Kept::Body(body))),
            Err(overload) => Err(NoReceipt { cause: overload.into(), event: Some(Kept::Body(body)) }),
        }
    }

    /// Ends a request whose body was not read to its end.
    async fn unread(&self, why: Unread, body: &mut Incoming, call: &Call) -> Cause {
        match why {
            Unread::Broken => Cause::BrokenBody,
            Unread::Slow => Cause::SlowBody,
            Unread::NoRoom => {
                let overload = self.bridge.no_room();
                body::discard(body, call.deadline).await;
                overload.into()
            }
            Unread::CutOff => {
                self.bridge.count_unread(Cause::Stopping.code());
                Cause::Stopping
            }
        }
    }

    /// Waits for the receipt, until D or until the drain is over.
    async fn hold(&self, in_flight: &mut InFlight, call: &Call) -> Result<Receipt, Cause> {
        let mut timer = call.peer.timer(call.deadline);
        let outcome = tokio::select! {
            biased;
            outcome = &mut in_flight.pending => outcome,
            () = &mut timer => Err(Undelivered::GivenUp),
        };
        call.peer.keep(timer);
        outcome.map_err(|why| match why {
            // No lane of events refuses: `Bridge::lanes`.
            Undelivered::GivenUp | Undelivered::Refused => Cause::NoCommitInTime,
            Undelivered::Stopping => Cause::Stopping,
        })
    }

    /// Keeps a stub of a body over the limit as a dead letter, so that somebody can see that the body came.
    async fn leave_stub(&self, first: Delivery, bytes: Option<u64>, call: &Call) -> Cause {
        let max = self.body_bytes_max;
        match self.bridge.deliver_stub(Refused::TooLarge { bytes, max }, first) {
            // The answer is 413 whatever becomes of the stub; waiting for it makes it findable once answered.
            Ok(mut in_flight) => drop(self.hold(&mut in_flight, call).await),
            Err(overload) => {
                self.log_limit.run(|| tracing::warn!(%overload, "no stub was kept of a body over the limit"));
            }
        }
        Cause::TooLarge { max }
    }

    /// Counts and logs how a request ended, and builds its answer.
    #[inline]
    fn conclude(&self, outcome: Result<Receipt, NoReceipt>, call: &Call, is_last: bool) -> Write {
        let answered_at = Instant::now();
        self.counts.answered(answered_at - call.head_at);
        match outcome {
            Ok(receipt) => {
                self.counts.committed(answered_at - call.started);
                Ok((receipt, place(&receipt)))
            }
            Err(NoReceipt { cause, event }) => {
                self.log_limit.run(|| self.log_refusal(&cause, call, event));
                self.counts.refused(&cause);
                Err(cause.answer(call.number, is_last))
            }
        }
    }

    fn identify(&self, kept: Kept) -> Identity {
        match kept {
            Kept::Body(body) => self.bridge.identify(&body).unwrap_or_default(),
            Kept::Identity(identity) => *identity,
        }
    }

    fn log_refusal(&self, cause: &Cause, call: &Call, event: Option<Kept>) {
        let Identity { event_id, name, event_type } = event.map(|event| self.identify(event)).unwrap_or_default();
        let request = format!("{}-{}", call.peer.connection, call.number);
        let (status, reason) = (cause.status().code().as_u16(), cause.reason());
        let sender = match &call.peer.client {
            Client::Allowed(name) => &**name,
            // The subject is written as the allow-list would have it.
            Client::NotAllowed(not_allowed) => &format!("subject:{}", not_allowed.subject),
            Client::Unknown => "",
        };
        tracing::warn!(request, status, code = cause.code(), sender, event_id, name, event_type, "{reason}");
    }
}

/// One request, from its head to its answer.
struct Call {
    peer: Arc<Peer>,
    /// The request's number among those of its connection, from 0.
    number: u64,
    head_at: Instant,
    /// The time when the sender's clock began to run.
    started: Instant,
    /// D: the request is answered by then.
    deadline: Instant,
}

impl Call {
    fn begin(peer: Arc<Peer>, budget: &Budget) -> Self {
        let (head_at, number) = (Instant::now(), peer.count_request());
        // The sender waits for the handshake too when it opened the connection for this request. A connection that was
        // opened long before its first request came from a pool.
        let opened_for_it = number == 0 && head_at.duration_since(peer.accepted_at) < budget.answer_by / 2;
        let started = if opened_for_it { peer.accepted_at } else { head_at };
        Self { peer, number, head_at, started, deadline: started + budget.answer_by }
    }
}

/// A request that may send its body.
struct Admitted {
    binding: Binding,
    origin: Origin,
    share: Share,
}

/// A request that ends without a receipt, and what is known of its event by then.
struct NoReceipt {
    cause: Cause,
    event: Option<Kept>,
}

impl From<Cause> for NoReceipt {
    fn from(cause: Cause) -> Self {
        Self { cause, event: None }
    }
}

/// The part of an event that a held request keeps, for the log line should it be refused.
enum Kept {
    Body(Arc<[u8]>),
    Identity(Box<Identity>),
}

/// The place of a committed record, as JSON.
#[inline]
fn place(receipt: &Receipt) -> Content {
    // Topic names have no character that JSON would escape. `format!` would cost more than the rest of an answer.
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
    Content::json(parts.concat())
}
