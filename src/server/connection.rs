//! One open connection, seen from outside its task: the time without a request, and the ways to end it.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{sync::oneshot, task::AbortHandle, time::Instant};

use super::Http;

/// A connection whose client stays unauthenticated for longer is evicted first: to begin a handshake costs an attacker
/// nothing.
pub(super) const AUTHENTICATED_WITHIN: Duration = Duration::from_secs(2);

/// A connection that waits longer for its first request is evicted before idle senders. The first request of a younger
/// one may be on the way.
pub(super) const FIRST_REQUEST_USUAL: Duration = Duration::from_secs(1);

/// The time that an idle connection has to close, once it was told to.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// The time that a drain leaves a connection open for a last request, which may be on the wire. The connection then has
/// as long again to close.
const LAST_REQUEST_MAX: Duration = Duration::from_secs(1);

/// One open connection, as the rest of the server sees it.
pub struct Connection {
    /// The connection's number, from 0, in the order of acceptance.
    pub number: u64,
    /// The time when the connection was accepted.
    pub accepted_at: Instant,
    /// The client's certificate and those that it sent with it, once the handshake is over; empty without one.
    pub chain: OnceLock<Vec<CertificateDer<'static>>>,
    /// The handle that aborts the connection's task.
    pub task: OnceLock<AbortHandle>,
    /// The connection's protocol, once the handshake is over.
    pub http: OnceLock<Http>,
    /// The next answer is the connection's last. Over HTTP/1.1 the answer says so.
    pub closing: AtomicBool,
    /// The client has authenticated: by its certificate, or by a request ([`Busy::authenticate`]).
    authenticated: AtomicBool,
    close: Mutex<Option<oneshot::Sender<()>>>,
    /// The reason why the server ended the connection, as a metric's fixed word.
    pub ended_for: OnceLock<&'static str>,
    requests: AtomicUsize,
    /// Milliseconds from `accepted_at` to the end of its last request; 0 before the first one.
    idle_since: AtomicU64,
    /// Milliseconds from `accepted_at` to the first byte that came without a request under way; 0 if none has come.
    head_since: AtomicU64,
}

/// The time limit that a connection has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    Idle,
    /// The connection was told to close as idle, and did not.
    StillIdle,
    SlowHead,
}

/// The next step to end a connection during a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// The connection can be told to close: no request would be lost, or the time for a last one is over.
    Close,
    /// The connection was told to close, and did not.
    Cut,
}

impl Connection {
    pub(super) fn new(number: u64, close: oneshot::Sender<()>) -> Self {
        Self {
            number,
            accepted_at: Instant::now(),
            chain: OnceLock::new(),
            task: OnceLock::new(),
            http: OnceLock::new(),
            closing: AtomicBool::new(false),
            authenticated: AtomicBool::new(false),
            close: Mutex::new(Some(close)),
            ended_for: OnceLock::new(),
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
        }
    }

    /// Makes the next answer the last: over HTTP/1.1 only an answer can tell the client that no further request is read
    /// (RFC 9112, section 9.6).
    pub fn answer_last(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Marks the client as authenticated.
    pub fn authenticate(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }

    /// Its client is told to open another one for what comes after the requests under way: nothing that it sends until
    /// then is lost.
    pub fn retire(&self) {
        self.answer_last();
        if self.http.get() == Some(&Http::Two) {
            self.close();
        }
    }

    pub(super) fn is_old(&self, age_max: Duration) -> bool {
        // Numbers that follow one another lie far apart like this.
        let share = self.number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
        let earlier = age_max.mul_f64(0.1 * share as f64 / 1024.0);
        !self.closing.load(Ordering::Relaxed)
            && self.http.get().is_some()
            && self.accepted_at.elapsed() >= age_max - earlier
    }

    /// It is to take no more requests, and to end when those under way are answered. Over HTTP/1.1 one without a
    /// request ends at once, whatever is on the wire; over HTTP/2 the client learns which of its requests were taken.
    pub fn close(&self) {
        if let Some(close) = self.close.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = close.send(());
        }
    }

    /// Ends the connection at once.
    pub fn cut(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Notes that bytes have come. Without a request under way, they begin a request's head.
    pub fn received(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.age().max(1), Ordering::Relaxed);
        }
    }

    /// Notes that a head is complete: a request is under way.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Is a request under way, or was the last answer given less than `going_out` ago?
    pub fn is_answering(&self, going_out: Duration) -> bool {
        let idle_from = self.idle_from();
        idle_from.is_none_or(|since| self.is_used() && since.elapsed() < going_out)
    }

    pub(super) fn overdue(&self, now: Instant, idle_max: Duration, head_max: Duration) -> Option<Overdue> {
        let idle = now.saturating_duration_since(self.idle_from()?);
        let head_since = self.head_since.load(Ordering::Relaxed);
        if head_since > 0 && now > self.accepted_at + Duration::from_millis(head_since) + head_max {
            return Some(Overdue::SlowHead);
        }
        (idle > idle_max).then_some(if idle > idle_max + CLOSING_MAX { Overdue::StillIdle } else { Overdue::Idle })
    }

    pub(super) fn last(&self, told: Instant, now: Instant, head_max: Duration) -> Option<Last> {
        let two = self.http.get() == Some(&Http::Two);
        let Some(idle_from) = self.idle_from() else {
            return two.then_some(Last::Close);
        };
        // A head is under way, which is watched over HTTP/1.1 alone.
        let head_since = self.head_since.load(Ordering::Relaxed);
        if head_since > 0 {
            let begun = self.accepted_at + Duration::from_millis(head_since);
            return (now.saturating_duration_since(begun.max(told)) > LAST_REQUEST_MAX.min(head_max))
                .then_some(Last::Cut);
        }
        let waited = now.saturating_duration_since(idle_from.max(told));
        let waits_max = if two && self.is_used() { Duration::ZERO } else { LAST_REQUEST_MAX };
        let may_close = waited >= waits_max;
        may_close.then_some(if waited > waits_max + LAST_REQUEST_MAX { Last::Cut } else { Last::Close })
    }

    /// Eviction begins with the least: clients that have not shown who they are, then connections that never had a
    /// request, then idle senders.
    pub(super) fn worth(&self) -> (bool, bool) {
        (!self.is_unknown(), !self.unused())
    }

    fn unused(&self) -> bool {
        !self.is_used() && self.accepted_at.elapsed() > FIRST_REQUEST_USUAL
    }

    /// Has the connection had a request?
    fn is_used(&self) -> bool {
        self.idle_since.load(Ordering::Relaxed) > 0
    }

    /// Has the client had the usual time to authenticate?
    fn is_unknown(&self) -> bool {
        !self.authenticated.load(Ordering::Relaxed) && self.accepted_at.elapsed() > AUTHENTICATED_WITHIN
    }

    /// The start of the time without a request; none while a request is under way.
    pub(super) fn idle_from(&self) -> Option<Instant> {
        let idle_since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        (self.requests.load(Ordering::Relaxed) == 0).then(|| self.accepted_at + idle_since)
    }

    /// Milliseconds.
    fn age(&self) -> u64 {
        u64::try_from(self.accepted_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A request on a connection.
pub struct Busy(Arc<Connection>);

impl Busy {
    /// Marks the client as authenticated by this request, if no certificate did so before.
    pub fn authenticate(&self) {
        self.0.authenticate();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.age().max(1), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}
