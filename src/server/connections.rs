//! All open connections, seen from outside their tasks: which one makes room, and which has had its time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{sync::oneshot, task::AbortHandle, time::Instant};

use super::Http;

/// A handshake that has taken longer goes first when room is needed: it costs who opened it nothing.
const HANDSHAKE_USUAL: Duration = Duration::from_secs(2);

/// A connection that has waited longer for its first request goes before those of senders that rest. One that is younger may
/// have its request on the way.
const FIRST_REQUEST_USUAL: Duration = Duration::from_secs(1);

/// How much longer than its idle time an idle connection may take to close, once it was told to.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// How long a connection is left open for its last request while the bridge drains: one may be on the wire. As long again it may
/// take to close.
const LAST_REQUEST_MAX: Duration = Duration::from_secs(1);

/// How many connections one look finds that may go: a look at all for each would itself be an attack's work.
const LONGEST_IDLE_MAX: usize = 256;

/// How long what a look found holds: those that were too young then to go first may be the first soon after.
const LOOK_HOLDS: Duration = Duration::from_millis(250);

/// All open connections.
#[derive(Default)]
pub struct Connections {
    open: Mutex<Open>,
    next: AtomicU64,
}

#[derive(Default)]
struct Open {
    by_number: HashMap<u64, Arc<Connection>>,
    /// The longest-idle ones of the last look, all of the same worth, with the time since when; the longest last. What became
    /// idle after the look has not been so for longer.
    longest_idle: Vec<(Instant, Arc<Connection>)>,
    looked_at: Option<Instant>,
}

/// What is known of one connection from outside its task.
pub struct Connection {
    pub number: u64,
    pub accepted_at: Instant,
    /// The client's certificate and those that it sent with it, once the handshake is over.
    pub chain: OnceLock<Vec<CertificateDer<'static>>>,
    /// What it lives in.
    pub task: OnceLock<AbortHandle>,
    /// What it speaks, once the handshake is over.
    pub http: OnceLock<Http>,
    /// Its next answer is to be its last one, as it shall not be kept any longer. Over HTTP/1.1 the answer says so.
    pub closing: Arc<AtomicBool>,
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

impl Connections {
    pub fn count(&self) -> usize {
        self.lock().by_number.len()
    }

    /// One that was accepted just now, and what resolves once it is told to close.
    pub fn add(&self) -> (Arc<Connection>, oneshot::Receiver<()>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (close, told_to_close) = oneshot::channel();
        let connection = Arc::new(Connection::new(number, close));
        self.lock().by_number.insert(number, Arc::clone(&connection));
        (connection, told_to_close)
    }

    pub fn remove(&self, number: u64) {
        self.lock().by_number.remove(&number);
    }

    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().by_number.values().cloned().collect()
    }

    /// Those that have been idle for `idle_max`, or at the head of a request for `head_max`.
    pub fn overdue(&self, idle_max: Duration, head_max: Duration) -> Vec<(Arc<Connection>, Overdue)> {
        let now = Instant::now();
        let open = self.lock();
        let overdue = open.by_number.values().filter_map(|connection| {
            let why = connection.overdue(now, idle_max, head_max)?;
            Some((Arc::clone(connection), why))
        });
        overdue.collect()
    }

    /// Those that are `age_max` old, or up to a tenth less, and shall not be kept any longer: those that were opened together do
    /// not come back together.
    pub fn old(&self, age_max: Duration) -> Vec<Arc<Connection>> {
        let mut old = self.all();
        old.retain(|connection| connection.is_old(age_max));
        old
    }

    /// Those that can be told to close, or have not done so in their time, where all of them shall end since `told`.
    pub fn last(&self, told: Instant, head_max: Duration) -> Vec<(Arc<Connection>, Last)> {
        let now = Instant::now();
        let due = self.all().into_iter().filter_map(|connection| {
            let last = connection.last(told, now, head_max)?;
            Some((connection, last))
        });
        due.collect()
    }

    /// Cuts the connection that has been without a request for the longest time, of those that have waited too long for their
    /// first one if there are such; false when all have one.
    pub fn cut_longest_idle(&self) -> bool {
        let mut open = self.lock();
        let fresh = open.looked_at.is_some_and(|at| at.elapsed() < LOOK_HOLDS);
        (fresh && open.cut_longest_idle()) || {
            open.look_for_idle();
            open.cut_longest_idle()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn cut_longest_idle(&mut self) -> bool {
        while let Some((since, connection)) = self.longest_idle.pop() {
            if connection.idle_from() == Some(since) && self.by_number.remove(&connection.number).is_some() {
                connection.cut();
                return true;
            }
        }
        false
    }

    fn look_for_idle(&mut self) {
        let idle = self.by_number.values().filter_map(|connection| {
            let since = connection.idle_from()?;
            // Once for each: it changes with time, while they are sorted too.
            Some((connection.worth(), since, Arc::clone(connection)))
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable_by_key(|(worth, since, _)| (*worth, *since));
        let least = idle.first().map(|(worth, ..)| *worth);
        let longest = idle.into_iter().take_while(|(worth, ..)| Some(*worth) == least).take(LONGEST_IDLE_MAX);
        self.longest_idle = longest.map(|(_, since, connection)| (since, connection)).collect();
        self.longest_idle.reverse();
        self.looked_at = Some(Instant::now());
    }
}

impl Connection {
    fn new(number: u64, close: oneshot::Sender<()>) -> Self {
        Self {
            number,
            accepted_at: Instant::now(),
            chain: OnceLock::new(),
            task: OnceLock::new(),
            http: OnceLock::new(),
            closing: Arc::default(),
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

    /// Its client is told to open another one for what comes after the requests under way: nothing that it sends until then is lost.
    pub fn retire(&self) {
        self.answer_last();
        if self.http.get() == Some(&Http::Two) {
            self.close();
        }
    }

    fn is_old(&self, age_max: Duration) -> bool {
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

    fn overdue(&self, now: Instant, idle_max: Duration, head_max: Duration) -> Option<Overdue> {
        let idle = now.saturating_duration_since(self.idle_from()?);
        let head_since = self.head_since.load(Ordering::Relaxed);
        if head_since > 0 && now > self.accepted_at + Duration::from_millis(head_since) + head_max {
            return Some(Overdue::SlowHead);
        }
        (idle > idle_max).then_some(if idle > idle_max + CLOSING_MAX { Overdue::StillIdle } else { Overdue::Idle })
    }

    fn last(&self, told: Instant, now: Instant, head_max: Duration) -> Option<Last> {
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

    /// What has no certificate for us yet goes before any other, what never had a request before those of a sender that works.
    fn worth(&self) -> (bool, bool) {
        (!self.slow_handshake(), !self.unused())
    }

    fn unused(&self) -> bool {
        !self.is_used() && self.accepted_at.elapsed() > FIRST_REQUEST_USUAL
    }

    /// It has had a request.
    fn is_used(&self) -> bool {
        self.idle_since.load(Ordering::Relaxed) > 0
    }

    fn slow_handshake(&self) -> bool {
        self.chain.get().is_none() && self.accepted_at.elapsed() > HANDSHAKE_USUAL
    }

    /// Since when it has been without a request; none while it has one.
    fn idle_from(&self) -> Option<Instant> {
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

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.age().max(1), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(connections: &Connections) -> Vec<u64> {
        let mut numbers: Vec<u64> = connections.all().iter().map(|connection| connection.number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn the_longest_idle_one_goes_and_none_that_has_a_request() {
        let connections = Connections::default();
        let open: Vec<_> = (0..4)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(2));
                connections.add().0
            })
            .collect();
        let busy = open[0].begin();
        assert!(connections.cut_longest_idle());
        assert_eq!(numbers(&connections), [0, 2, 3]);
        // Found idle by the look before, and no longer so, or not for as long.
        let other = open[2].begin();
        std::thread::sleep(Duration::from_millis(2));
        drop(busy);
        assert!(connections.cut_longest_idle());
        assert_eq!(numbers(&connections), [0, 2]);
        assert!(connections.cut_longest_idle());
        assert_eq!(numbers(&connections), [2]);
        assert!(!connections.cut_longest_idle());
        drop(other);
        assert!(connections.cut_longest_idle());
        assert_eq!(connections.count(), 0);
    }

    fn open(connections: &Connections) -> Arc<Connection> {
        let connection = connections.add().0;
        connection.chain.set(Vec::new()).unwrap();
        connection
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_long_for_its_first_request_goes_before_a_sender_that_rests() {
        let connections = Connections::default();
        drop(open(&connections).begin());
        tokio::time::advance(Duration::from_secs(1)).await;
        let _unused = [open(&connections), open(&connections)];
        tokio::time::advance(FIRST_REQUEST_USUAL * 2).await;
        assert!(connections.cut_longest_idle() && connections.cut_longest_idle());
        assert_eq!(numbers(&connections), [0]);
        assert!(connections.cut_longest_idle());
        assert_eq!(connections.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_just_opened_does_not_make_room_for_what_comes_after_it() {
        let connections = Connections::default();
        let senders = [open(&connections), open(&connections)];
        senders.iter().for_each(|sender| drop(sender.begin()));
        tokio::time::advance(Duration::from_secs(60)).await;
        // One in its handshake, and one whose first request is on the way.
        let _new = [connections.add().0, open(&connections)];
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(connections.cut_longest_idle() && connections.cut_longest_idle());
        assert_eq!(numbers(&connections), [2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_new_at_a_look_and_stays_silent_goes_before_the_senders_that_rested_then() {
        let connections = Connections::default();
        (0..15).for_each(|_| drop(open(&connections).begin()));
        tokio::time::advance(Duration::from_secs(2)).await;
        (0..6).for_each(|_| drop(connections.add()));
        // A look, at which the six may still be at their handshakes.
        assert!(connections.cut_longest_idle());
        tokio::time::advance(HANDSHAKE_USUAL + Duration::from_millis(800)).await;
        for _ in 0..6 {
            tokio::time::advance(Duration::from_millis(200)).await;
            assert!(connections.cut_longest_idle());
        }
        let left = numbers(&connections);
        assert!(left.len() == 14 && left.iter().all(|number| *number < 15), "{left:?}");
    }
}
