//! One open connection, seen from outside its task: how long it has been without a request, and how it is told to end.

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

/// A connection whose client has not shown for longer who it is goes first when room is needed: a handshake costs the one who opens it
/// nothing.
pub(super) const AUTHENTICATED_WITHIN: Duration = Duration::from_secs(2);

/// A connection that has waited longer for its first request goes before those of senders that rest. One that is younger may
/// have its request on the way.
pub(super) const FIRST_REQUEST_USUAL: Duration = Duration::from_secs(1);

/// How much longer than its idle time an idle connection may take to close, once it was told to.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// How long a connection is left open for its last request while the bridge drains: one may be on the wire. As long again it may
/// take to close.
const LAST_REQUEST_MAX: Duration = Duration::from_secs(1);

/// What is known of one connection from outside its task.
pub struct Connection {
    pub number: u64,
    pub accepted_at: Instant,
    /// The client's certificate and those that it sent with it, once the handshake is over; empty without one.
    pub chain: OnceLock<Vec<CertificateDer<'static>>>,
    /// What it lives in.
    pub task: OnceLock<AbortHandle>,
    /// What it speaks, once the handshake is over.
    pub http: OnceLock<Http>,
    /// Its next answer is to be its last one, as it shall not be kept any longer. Over HTTP/1.1 the answer says so.
    pub closing: AtomicBool,
    /// Its client has shown who it is: by its certificate, or by a request ([`Busy::authenticate`]).
    authenticated: AtomicBool,
    close: Mutex<Option<oneshot::Sender<()>>>,
    /// Why we end it, if we do: a metric's fixed word.
    pub ended_for: OnceLock<&'static str>,
    requests: AtomicUsize,
    /// Milliseconds from `accepted_at` to the end of its last request; 0 before the first one.
    idle_since: AtomicU64,
    /// The same, to the first byte that came while it had no request; 0 where none has come.
    head_since: AtomicU64,
}

/// What a connection has had its time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    Idle,
    /// Idle, and told so in vain.
    StillIdle,
    SlowHead,
}

/// What a connection that shall not be kept any longer is due for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It can be told to close without the loss of a request, or has had its time for one.
    Close,
    /// It was told so in vain.
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

    /// Its next answer is to be its last one: over HTTP/1.1 a server cannot take back that it reads requests, only say with an
    /// answer that it reads no more (RFC 9112, section 9.6).
    pub fn answer_last(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Its client has shown who it is.
    pub fn authenticate(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }

    /// Its client is told to open another one for what comes after the requests under way: nothing that it sends until then is lost.
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

    /// It is to take no more requests, and to end when those under way are answered. Over HTTP/1.1 one without a request ends at
    /// once, whatever is on the wire; over HTTP/2 the client learns which of its requests were taken.
    pub fn close(&self) {
        if let Some(close) = self.close.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = close.send(());
        }
    }

    /// It is to end at once.
    pub fn cut(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Bytes have come. Without a request under way they begin the head of one.
    pub fn received(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.age().max(1), Ordering::Relaxed);
        }
    }

    /// A head is complete.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// It has a request, or its last answer was given less than `going_out` ago.
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
        // Its head is under way: that is watched over HTTP/1.1 alone.
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

    /// Eviction begins with the least: clients that have not shown who they are, then connections that never had a request, then
    /// idle senders.
    pub(super) fn worth(&self) -> (bool, bool) {
        (!self.is_unknown(), !self.unused())
    }

    fn unused(&self) -> bool {
        !self.is_used() && self.accepted_at.elapsed() > FIRST_REQUEST_USUAL
    }

    /// It has had a request.
    fn is_used(&self) -> bool {
        self.idle_since.load(Ordering::Relaxed) > 0
    }

    /// It had the usual time to show who its client is.
    fn is_unknown(&self) -> bool {
        !self.authenticated.load(Ordering::Relaxed) && self.accepted_at.elapsed() > AUTHENTICATED_WITHIN
    }

    /// Since when it has been without a request; none while it has one.
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
    /// The request has shown who its client is, where no certificate did.
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
