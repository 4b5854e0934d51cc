//! The dedupe window: the events under way, and those committed of late. A retry joins its first attempt, or gets its
//! receipt.
//!
//! The key of an event is its feed, `event_id` and body hash; the key of a dead letter is the hash alone. An event is
//! remembered only once it is committed. When the memory is full the oldest event is forgotten.

mod remembered;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hashbrown::HashTable;
use smallvec::{SmallVec, smallvec};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::remembered::{Committed, ENTRY_BYTES, Remembered};
use super::{LaneId, Pending, Receipt, Undelivered, ids::Topics, pending::Outcome};
use crate::metrics::{Metrics, WindowMetrics};

/// The key of an event or a dead letter: equal keys are attempts of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    lane: u16,
    /// The hash of the `event_id`.
    id: u64,
    body: [u64; 2],
}

impl Key {
    /// The key of an event of this lane, by its id and the hash of its raw body.
    pub fn event(lane: LaneId, event_id: &str, body_hash: u128) -> Self {
        let lane = lane.number();
        Self { lane, id: xxh3_64_with_seed(event_id.as_bytes(), lane.into()), body: halves(body_hash) }
    }

    pub(super) fn dead_letter(lane: LaneId, body_hash: u128) -> Self {
        let body = halves(body_hash);
        Self { lane: lane.number(), id: body[0], body }
    }

    fn same_id(&self, other: &Self) -> bool {
        self.id == other.id && self.lane == other.lane
    }

    /// The hash includes the body: otherwise a sender that gives all its events one id would have them all in one slot
    /// of the table.
    pub(super) fn hash(&self) -> u64 {
        self.id ^ self.body[1]
    }
}

fn halves(hash: u128) -> [u64; 2] {
    [hash as u64, (hash >> 64) as u64]
}

/// The lane number of keys that no event has.
const ALONE: u16 = LaneId::NOBODYS;

/// The events under way, and those committed within `age`.
pub(super) struct Window {
    state: Mutex<State>,
    topics: Topics,
    capacity: usize,
    age: u32,
    /// The start minus `age`, so that commits of earlier runs have a time too.
    epoch: Instant,
    metrics: WindowMetrics,
}

pub(super) struct State {
    pub(super) under_way: HashTable<UnderWay>,
    /// No request may wait any more.
    dismissed: bool,
    /// The number of the next key of [`Window::alone`].
    next_alone: u64,
    remembered: Remembered,
}

pub(super) struct UnderWay {
    pub(super) key: Key,
    /// The senders to the first attempt and to those that joined it.
    waiting: SmallVec<[oneshot::Sender<Outcome>; 1]>,
}

impl UnderWay {
    /// Adds a waiting request. Before the list grows, the requests that have ended are removed: so it never has more
    /// than twice as many entries as requests are held, however often an event comes again while Kafka is away.
    fn join(&mut self, done: oneshot::Sender<Outcome>) {
        if self.waiting.len() == self.waiting.capacity() {
            self.waiting.retain(|waiting| !waiting.is_closed());
        }
        self.waiting.push(done);
    }

    /// Gives the receipt to all waiting requests; false when none waits any more.
    pub(super) fn tell(self, receipt: Receipt) -> bool {
        let told = self.waiting.into_iter().map(|waiting| waiting.send(Ok(receipt)).is_ok());
        told.fold(false, |any, told| any | told)
    }
}

/// The result of looking an incoming event up in the dedupe window.
pub enum Entered {
    /// The event is new. Its record must be made with this ticket; the receipt will appear at the second value.
    First(Ticket, Pending),
    /// The event is under way or was committed; its receipt is here, or will be.
    Again(Pending),
}

/// An accepted event's claim on its receipt. Its drop without a commit gives the event up and tells all waiting
/// requests.
pub struct Ticket {
    pub(super) window: Arc<Window>,
    /// `None` once it is redeemed.
    pub(super) key: Option<Key>,
}

impl Window {
    /// Makes a window. `bytes_max` limits the committed events; those under way are limited by the room of their
    /// records.
    pub(super) fn new(topics: Topics, bytes_max: usize, age: Duration, metrics: &Metrics) -> Arc<Self> {
        let capacity = (bytes_max / ENTRY_BYTES).min(u32::MAX as usize / 2);
        let now = Instant::now();
        let state = State {
            under_way: HashTable::new(),
            dismissed: false,
            next_alone: 0,
            remembered: Remembered::new(capacity),
        };
        let window = Arc::new(Self {
            state: Mutex::new(state),
            topics,
            capacity,
            age: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
            epoch: now.checked_sub(age).unwrap_or(now),
            metrics: metrics.window.clone(),
        });
        metrics.show(metrics.window.remembered.clone(), &window, |window| window.lock().remembered.len());
        window
    }

    pub(super) fn enter(self: &Arc<Self>, key: Key) -> Entered {
        let (done, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.dismissed {
            return Entered::Again(Pending::Decided(Err(Undelivered::Stopping)));
        }
        if let Some(under_way) = state.under_way.find_mut(key.hash(), |it| it.key == key) {
            under_way.join(done);
            self.metrics.joined_under_way.inc();
            return Entered::Again(Pending::Waiting(answer));
        }
        let mut other_body = false;
        for known in state.remembered.with_id(&key) {
            if known.key == key && self.seconds().saturating_sub(known.at) <= self.age {
                self.metrics.joined_committed.inc();
                return Entered::Again(Pending::Decided(Ok(self.receipt(known))));
            }
            other_body |= known.key != key;
        }
        if other_body {
            self.metrics.ids_reused.inc();
        }
        state.begin(key, done);
        drop(state);
        Entered::First(Ticket { window: Arc::clone(self), key: Some(key) }, Pending::Waiting(answer))
    }

    /// Makes a ticket for a record that no other attempt can join.
    pub(super) fn alone(self: &Arc<Self>) -> Entered {
        let key = self.lock().key_alone();
        self.enter(key)
    }

    /// Ends the wait of all requests, and of all that come later. The records under way go on.
    pub(super) fn dismiss(&self) {
        let mut state = self.lock();
        state.dismissed = true;
        for waiting in state.under_way.iter_mut().flat_map(|under_way| under_way.waiting.drain(..)) {
            let _ = waiting.send(Err(Undelivered::Stopping));
        }
    }

    pub(super) fn topics(&self) -> &Topics {
        &self.topics
    }

    pub(super) fn age(&self) -> Duration {
        Duration::from_secs(self.age.into())
    }

    /// Remembers an event that an earlier run committed this long ago.
    pub(super) fn warm(&self, key: Key, receipt: &Receipt, ago: Duration) {
        let ago = u32::try_from(ago.as_secs()).unwrap_or(u32::MAX);
        let at = self.seconds().saturating_sub(ago);
        self.remember(&mut self.lock(), key, receipt, at, self.seconds());
    }

    pub(super) fn remember(&self, state: &mut State, key: Key, receipt: &Receipt, at: u32, now: u32) {
        if self.capacity == 0 || key.lane == ALONE {
            return;
        }
        let remembered = &mut state.remembered;
        while remembered.oldest().is_some_and(|oldest| now.saturating_sub(oldest.at) > self.age) {
            remembered.forget_oldest();
        }
        if remembered.len() >= self.capacity {
            remembered.forget_oldest();
            self.metrics.forgotten_early.inc();
        }
        let (partition, offset) = (receipt.partition, receipt.offset.unwrap_or(-1));
        remembered.push(Committed::new(key, receipt.topic.number(), partition, offset, at));
    }

    fn receipt(&self, known: &Committed) -> Receipt {
        let topic = self.topics.numbered(known.topic);
        Receipt { topic, partition: known.partition, offset: Some(known.offset).filter(|offset| *offset >= 0) }
    }

    pub(super) fn seconds(&self) -> u32 {
        u32::try_from(self.epoch.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A key that no other event has.
    pub(super) fn key_alone(&mut self) -> Key {
        self.next_alone += 1;
        Key { lane: ALONE, id: self.next_alone, body: [0; 2] }
    }

    fn begin(&mut self, key: Key, done: oneshot::Sender<Outcome>) {
        self.under_way.insert_unique(key.hash(), UnderWay { key, waiting: smallvec![done] }, |it| it.key.hash());
    }

    pub(super) fn end(&mut self, key: &Key) -> Option<UnderWay> {
        let entry = self.under_way.find_entry(key.hash(), |it| it.key == *key).ok()?;
        Some(entry.remove().0)
    }
}

impl Ticket {
    /// Whether a request still waits for the receipt.
    pub(super) fn is_awaited(&self) -> bool {
        let Some(key) = &self.key else { return false };
        let state = self.window.lock();
        let under_way = state.under_way.find(key.hash(), |it| it.key == *key);
        under_way.is_some_and(|it| it.waiting.iter().any(|waiting| !waiting.is_closed()))
    }

    /// Gives the receipt to all waiting requests, and remembers it. False when none waits any more.
    pub(super) fn commit(mut self, receipt: &Receipt) -> bool {
        let Some(key) = self.key.take() else { return false };
        let at = self.window.seconds();
        let mut state = self.window.lock();
        self.window.remember(&mut state, key, receipt, at, at);
        let under_way = state.end(&key);
        drop(state);
        under_way.is_some_and(|under_way| under_way.tell(*receipt))
    }
}

impl Ticket {
    /// Tells all waiting requests that the record can never be stored.
    pub(super) fn refuse(mut self) {
        let Some(key) = self.key.take() else { return };
        let under_way = self.window.lock().end(&key);
        for waiting in under_way.into_iter().flat_map(|under_way| under_way.waiting) {
            let _ = waiting.send(Err(Undelivered::Refused));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            // The drop of the senders tells the waiting requests.
            drop(self.window.lock().end(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::ids::Mint;

    fn window(events: usize, age: Duration) -> Arc<Window> {
        let mut mint = Mint::default();
        mint.topic(LaneId::FIRST, "t").unwrap();
        Window::new(mint.topics(), events * ENTRY_BYTES, age, &Metrics::new().unwrap())
    }

    fn receipt(offset: i64) -> Receipt {
        let topic = Mint::default().topic(LaneId::FIRST, "t").unwrap();
        Receipt { topic, partition: 3, offset: Some(offset) }
    }

    fn first(window: &Arc<Window>, key: Key) -> (Ticket, Pending) {
        match window.enter(key) {
            Entered::First(ticket, pending) => (ticket, pending),
            Entered::Again(_) => panic!("it was here before"),
        }
    }

    fn again(window: &Arc<Window>, key: Key) -> Pending {
        match window.enter(key) {
            Entered::First(..) => panic!("it was not here before"),
            Entered::Again(pending) => pending,
        }
    }

    fn outcome(pending: Pending) -> Option<Outcome> {
        match pending {
            Pending::Waiting(mut answer) => match answer.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(oneshot::error::TryRecvError::Closed) => Some(Err(Undelivered::GivenUp)),
                Err(oneshot::error::TryRecvError::Empty) => None,
            },
            Pending::Decided(outcome) => Some(outcome),
        }
    }

    #[test]
    fn all_attempts_get_the_first_ones_receipt_or_none() {
        let window = window(8, Duration::from_secs(60));
        let [good, bad] = ["good", "bad"].map(|id| Key::event(LaneId::FIRST, id, 7));
        let ((ticket, one), two) = (first(&window, good), again(&window, good));
        assert!(ticket.commit(&receipt(5)));
        for pending in [one, two, again(&window, good)] {
            assert_eq!(outcome(pending), Some(Ok(receipt(5))));
        }
        let ((ticket, one), two) = (first(&window, bad), again(&window, bad));
        drop(ticket);
        assert_eq!([outcome(one), outcome(two)], [Some(Err(Undelivered::GivenUp)), Some(Err(Undelivered::GivenUp))]);
        drop(first(&window, bad));
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_what_is_too_old_is_not_known() {
        let window = window(3, Duration::from_secs(60));
        let key = |number: u128| Key::event(LaneId::FIRST, &number.to_string(), number);
        for number in 0..1000 {
            first(&window, key(number)).0.commit(&receipt(number as i64));
            assert_eq!(outcome(again(&window, key(number))), Some(Ok(receipt(number as i64))));
        }
        assert_eq!(window.metrics.forgotten_early.get(), 997);
        assert_eq!(window.lock().remembered.len(), 3);
        drop(first(&window, key(996)));
        drop(again(&window, key(997)));
        window.warm(key(5000), &receipt(1), Duration::from_secs(59));
        drop(again(&window, key(5000)));
        let aged = super::tests::window(3, Duration::ZERO);
        first(&aged, key(0)).0.commit(&receipt(0));
        std::thread::sleep(Duration::from_millis(1100));
        drop(first(&aged, key(0)));
    }

    #[test]
    fn who_has_gone_does_not_wait() {
        let window = window(8, Duration::from_secs(60));
        let key = Key::event(LaneId::FIRST, "id", 7);
        let (ticket, _pending) = first(&window, key);
        let held = again(&window, key);
        (0..10_000).for_each(|_| drop(again(&window, key)));
        let waiting = window.lock().under_way.find(key.hash(), |it| it.key == key).unwrap().waiting.len();
        assert!(waiting <= 8, "{waiting} wait");
        ticket.commit(&receipt(1));
        assert_eq!(outcome(held), Some(Ok(receipt(1))));
    }
}
