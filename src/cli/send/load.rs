//! A run: senders that take events when they are due, and ASAPP's rule of attempts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::Client,
    endpoint::Endpoint,
    generate::{Event, Scratch},
    log::Log,
    outcome::{Broken, Outcome},
    report::{Fate, Summary, Tally},
    schedule::{Pace, Schedule, Turn},
    source::Source,
};
use crate::cli::Failure;

/// ASAPP's side of the contract.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "The sender's rule")]
pub struct Rule {
    /// Wait so long for the 200, a new connection's handshake included.
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    pub timeout_ms: u64,
    /// Try an event so many times more; after that it is dropped.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub retries: u32,
    /// Wait so long between attempts.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    pub retry_pause_ms: u64,
}

/// The state that the senders of a run share.
pub struct Load {
    /// The rule of attempts.
    pub rule: Rule,
    /// The events.
    pub source: Source,
    /// The order and times of the events.
    pub schedule: Schedule,
    /// The files that keep the outcome of each event.
    pub log: Log,
    /// Latencies count for events that are due later than this after the beginning.
    pub warm_up: Duration,
    /// Cancelled to stop the run.
    pub stop: CancellationToken,
    tallies: Vec<Mutex<Tally>>,
    /// Events that are due for their next attempt, each announced to the schedule.
    again: Mutex<VecDeque<Pending>>,
    pauses: TaskTracker,
    /// The failure that stopped the run.
    fatal: Mutex<Option<Failure>>,
}

/// An event between its first attempt and its end.
struct Pending {
    event: Event,
    due: Instant,
    attempts: u32,
    last: Outcome,
}

/// One client and its buffers: a connection, or one stream of it.
struct Sender {
    client: Client,
    scratch: Scratch,
    tally: usize,
}

/// The number of tallies. Histograms are large, so senders share them; few senders count at the same instant.
const TALLIES: usize = 8;

impl Load {
    /// A run that has not begun.
    ///
    /// # Errors
    /// A histogram cannot be created.
    pub fn new(
        rule: Rule,
        source: Source,
        schedule: Schedule,
        log: Log,
        warm_up: Duration,
        stop: CancellationToken,
    ) -> Result<Self, Failure> {
        let tallies = (0..TALLIES).map(|_| Tally::new().map(Mutex::new)).collect::<Result<_, _>>()?;
        let (again, pauses, fatal) = (Mutex::default(), TaskTracker::new(), Mutex::default());
        Ok(Self { rule, source, schedule, log, warm_up, stop, tallies, again, pauses, fatal })
    }

    /// Posts until all events have ended. After `stop` no event begins, and those in flight end with their current
    /// attempt.
    ///
    /// # Errors
    /// The run cannot go on: a flag is wrong, or a file cannot be written.
    pub async fn run(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        connections: usize,
        streams: usize,
    ) -> Result<Summary, Failure> {
        let clients = (0..connections).flat_map(|_| Client::of_connection(endpoint, streams));
        let mut senders = JoinSet::new();
        let begun = self.schedule.begun();
        for (number, client) in clients.enumerate() {
            let sender = Sender { client, scratch: Scratch::default(), tally: number % TALLIES };
            senders.spawn(Arc::clone(self).send(sender));
        }
        let load = Arc::clone(self);
        let pacer = tokio::task::spawn_blocking(move || load.schedule.release(&load.stop));
        while let Some(ended) = senders.join_next().await {
            ended.map_err(Failure::new)?;
        }
        let took = begun.elapsed();
        pacer.await.map_err(Failure::new)?;
        self.pauses.close();
        self.pauses.wait().await;
        self.log.flush()?;
        match lock(&self.fatal).take() {
            Some(failure) => Err(failure),
            None => Ok(Summary { tally: self.total()?, took }),
        }
    }

    /// The sum of all tallies so far.
    ///
    /// # Errors
    /// A histogram cannot be created.
    pub fn total(&self) -> Result<Tally, Failure> {
        let mut total = Tally::new()?;
        self.tallies.iter().try_for_each(|tally| total.add(&lock(tally)))?;
        Ok(total)
    }

    async fn send(self: Arc<Self>, mut sender: Sender) {
        match self.schedule.pace() {
            Pace::Closed => self.send_closed(&mut sender).await,
            Pace::Rate(_) => self.send_open(&mut sender).await,
        }
        sender.client.close().await;
    }

    /// Closed loop: the next event begins once this one has ended, pauses included.
    async fn send_closed(&self, sender: &mut Sender) {
        while !self.stop.is_cancelled()
            && let Some(turn) = self.schedule.take()
        {
            let mut pending = self.begin(turn, sender);
            while let Some(failed) = self.attempt(pending, sender).await {
                self.pause().await;
                pending = failed;
            }
        }
    }

    /// Open loop: takes the events in the order in which they are due. An event that waits for its next attempt
    /// occupies no connection.
    async fn send_open(self: &Arc<Self>, sender: &mut Sender) {
        while self.schedule.wait().await {
            let again = lock(&self.again).pop_front();
            let pending = match again {
                Some(pending) => pending,
                None => {
                    let turn = self.schedule.take_due();
                    if self.stop.is_cancelled() {
                        self.schedule.settle();
                        continue;
                    }
                    self.begin(turn, sender)
                }
            };
            match self.attempt(pending, sender).await {
                None => self.schedule.settle(),
                Some(failed) => {
                    let load = Arc::clone(self);
                    self.pauses.spawn(async move {
                        load.pause().await;
                        lock(&load.again).push_back(failed);
                        load.schedule.due_again();
                    });
                }
            }
        }
    }

    async fn pause(&self) {
        let pause = Duration::from_millis(self.rule.retry_pause_ms);
        let _ = timeout(pause, self.stop.cancelled()).await;
    }

    fn begin(&self, turn: Turn, sender: &mut Sender) -> Pending {
        let event = self.source.event(turn.index, &mut sender.scratch);
        if let Err(failure) = self.log.posted(&event) {
            self.give_up(failure);
        }
        Pending { event, due: turn.due, attempts: 0, last: Outcome::Closed }
    }

    /// Makes one attempt. Returns the event if another attempt is to follow.
    async fn attempt(&self, mut pending: Pending, sender: &mut Sender) -> Option<Pending> {
        if self.stop.is_cancelled() {
            self.end(&pending, Fate::Unfinished, &mut lock(self.tally(sender)?));
            return None;
        }
        let sent_at = Instant::now();
        let answer =
            timeout(Duration::from_millis(self.rule.timeout_ms), sender.client.post(pending.event.body.clone())).await;
        let answer = answer.unwrap_or_else(|_| Err(Broken::timeout()));
        let answered_at = Instant::now();
        pending.attempts = pending.attempts.saturating_add(1);
        let broken = answer.as_ref().err();
        pending.last = answer.as_ref().map_or_else(|broken| broken.outcome, |status| Outcome::Status(*status));
        if let Some(broken) = broken {
            self.give_up_if_hopeless(broken);
        }
        let mut tally = lock(self.tally(sender)?);
        tally.attempted(pending.last, broken);
        if pending.last == Outcome::Status(200) {
            let warm = pending.due >= self.schedule.begun() + self.warm_up;
            let times =
                (answered_at.saturating_duration_since(pending.due), answered_at.saturating_duration_since(sent_at));
            tally.answered(pending.event.body.len(), warm.then_some(times));
            self.end(&pending, Fate::Acked, &mut tally);
            return None;
        }
        if pending.attempts > self.rule.retries {
            self.end(&pending, Fate::Dropped, &mut tally);
            return None;
        }
        Some(pending)
    }

    fn tally(&self, sender: &Sender) -> Option<&Mutex<Tally>> {
        self.tallies.get(sender.tally)
    }

    fn end(&self, pending: &Pending, fate: Fate, tally: &mut Tally) {
        tally.ended(fate, pending.attempts);
        if let Err(failure) = self.log.ended(&pending.event, pending.last, pending.attempts) {
            self.give_up(failure);
        }
    }

    /// Ends the run if the error suggests a wrong flag. Once the bridge has answered any attempt the flags are right,
    /// and the error is a fault to live through.
    fn give_up_if_hopeless(&self, broken: &Broken) {
        let Some(remedy) = broken.remedy else { return };
        if !self.tallies.iter().any(|tally| lock(tally).has_answers()) {
            self.give_up(Failure::new(format!("{}; {remedy}", broken.reason)));
        }
    }

    fn give_up(&self, failure: Failure) {
        lock(&self.fatal).get_or_insert(failure);
        self.stop.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
