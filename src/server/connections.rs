//! All open connections: the order of eviction, and the search for those over their time limits.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::connection::{Connection, Last, Overdue};

/// The candidates that one scan for eviction keeps: an attacker could make a scan for each eviction costly.
const LONGEST_IDLE_MAX: usize = 256;

/// The time that a scan's result stays valid: a connection that was too young to go first may soon be the first.
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
    /// The last scan's candidates, all of equal worth, with the start of their idle time; the longest-idle stands last.
    /// A connection that became idle after the scan has been idle for less time.
    longest_idle: Vec<(Instant, Arc<Connection>)>,
    looked_at: Option<Instant>,
}

/// A connection that was accepted just now.
pub struct Newcomer {
    /// The connection, as the rest of the server sees it.
    pub connection: Arc<Connection>,
    /// Resolves once the connection is told to close.
    pub told_to_close: oneshot::Receiver<()>,
}

impl Connections {
    /// The number of open connections.
    pub fn count(&self) -> usize {
        self.lock().by_number.len()
    }

    /// Adds a connection that was accepted just now.
    pub fn add(&self) -> Newcomer {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (close, told_to_close) = oneshot::channel();
        let connection = Arc::new(Connection::new(number, close));
        self.lock().by_number.insert(number, Arc::clone(&connection));
        Newcomer { connection, told_to_close }
    }

    /// Forgets a connection that has ended.
    pub fn remove(&self, number: u64) {
        self.lock().by_number.remove(&number);
    }

    /// A snapshot, in no order.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().by_number.values().cloned().collect()
    }

    /// The connections that have been idle for `idle_max`, or at the head of a request for `head_max`.
    pub fn overdue(&self, idle_max: Duration, head_max: Duration) -> Vec<(Arc<Connection>, Overdue)> {
        let now = Instant::now();
        let open = self.lock();
        let overdue = open.by_number.values().filter_map(|connection| {
            let why = connection.overdue(now, idle_max, head_max)?;
            Some((Arc::clone(connection), why))
        });
        overdue.collect()
    }

    /// The connections that are to retire: `age_max` old, or up to a tenth less, so that connections that were opened
    /// together do not come back together.
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

    /// Cuts the connection that has been without a request for the longest time, of those that have waited too long for
    /// their first one if there are such; false when all have one.
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
            // The worth is read once for each connection, because time changes it even during the sort.
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

#[cfg(test)]
mod tests {
    use super::{
        super::connection::{AUTHENTICATED_WITHIN, FIRST_REQUEST_USUAL},
        *,
    };

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
                connections.add().connection
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
        let connection = connections.add().connection;
        connection.authenticate();
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
        let _new = [connections.add().connection, open(&connections)];
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
        tokio::time::advance(AUTHENTICATED_WITHIN + Duration::from_millis(800)).await;
        for _ in 0..6 {
            tokio::time::advance(Duration::from_millis(200)).await;
            assert!(connections.cut_longest_idle());
        }
        let left = numbers(&connections);
        assert!(left.len() == 14 && left.iter().all(|number| *number < 15), "{left:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_shown_who_it_is_goes_first_however_many_requests_it_had() {
        let connections = Connections::default();
        let known = connections.add().connection;
        known.begin().authenticate();
        tokio::time::advance(Duration::from_secs(60)).await;
        let unknown = connections.add().connection;
        drop(unknown.begin());
        tokio::time::advance(AUTHENTICATED_WITHIN * 2).await;
        drop(unknown.begin());
        assert!(connections.cut_longest_idle());
        assert_eq!(numbers(&connections), [known.number]);
    }
}
