//! ASAPP's side: an open-loop rate over kept mTLS connections, `timeout_ms` for each attempt, `retries`, then the event
//! is dropped. What became of each attempt is written down.

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    event::{Event, Feed},
    support::{
        bridge::Bridge,
        client::{Answer, Http, Sender},
        proxy::runtime,
        stopwatch::{self, Stopwatch},
        wait_until,
    },
    verdict::NO_COMMIT_IN_TIME,
};

#[derive(Clone, Debug)]
pub struct Plan {
    /// Events a second, whatever becomes of them.
    pub rate: u32,
    pub timeout: Duration,
    pub retries: u32,
    /// Between a failed attempt and the next one.
    pub pause: Duration,
    /// How many keys each feed has.
    pub keys: usize,
    pub feeds: &'static [Feed],
    /// Bytes of filling in each body.
    pub padding: usize,
    /// Senders with connections of their own, every second one over HTTP/2.
    pub senders: usize,
    /// While so many events are neither acked nor dropped, no new one is sent.
    pub open_max: usize,
}

/// A debug build, two cores and three brokers bear no more with their TLS handshakes after an outage.
pub const RATE: u32 = if cfg!(debug_assertions) { 50 } else { 200 };

impl Default for Plan {
    fn default() -> Self {
        Self {
            rate: RATE,
            timeout: stopwatch::lately(Duration::from_secs(5)),
            retries: 3,
            pause: Duration::from_millis(500),
            keys: 8,
            feeds: &Feed::ALL,
            padding: 200,
            senders: 4,
            open_max: usize::MAX,
        }
    }
}

/// What came back for one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Acked(Receipt),
    /// Any other status, with the answer's `code`.
    Refused(u16, String),
    /// Nothing within `timeout`.
    TimedOut,
    /// The connection broke, or could not be had.
    Broken(String),
}

impl Reply {
    /// The bridge gave up in time, or the sender before it: a faster machine might have answered 200.
    pub fn is_late(&self) -> bool {
        match self {
            Self::Acked(_) | Self::Broken(_) => false,
            Self::Refused(status, code) => (*status, code.as_str()) == NO_COMMIT_IN_TIME,
            Self::TimedOut => true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub topic: String,
    pub partition: i32,
    pub offset: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct Attempt {
    pub sent: Instant,
    pub ended: Instant,
    pub reply: Reply,
    /// A refusal for overload says when to come again.
    pub retry_after: Option<String>,
}

/// One event and all that was tried for it; without an answered 200 at the end, the sender has dropped it.
#[derive(Clone, Debug)]
pub struct Fate {
    pub event: Event,
    pub attempts: Vec<Attempt>,
}

impl Fate {
    /// When and with what the event was answered 200.
    pub fn acked(&self) -> Option<(&Attempt, &Receipt)> {
        let last = self.attempts.last()?;
        match &last.reply {
            Reply::Acked(receipt) => Some((last, receipt)),
            Reply::Refused(..) | Reply::TimedOut | Reply::Broken(_) => None,
        }
    }
}

/// A load that runs.
pub struct Load {
    shared: Arc<Ledger>,
    ticker: tokio::task::JoinHandle<()>,
    pub plan: Plan,
}

#[derive(Default)]
struct Ledger {
    stop: AtomicBool,
    /// In the order of their first attempts, each attempt as soon as it has ended.
    fates: Mutex<Vec<Fate>>,
    acked: AtomicUsize,
    last_failure: Mutex<Option<Instant>>,
    under_way: AtomicUsize,
}

impl Ledger {
    fn write_down(&self, place: usize, attempt: Attempt) {
        if matches!(attempt.reply, Reply::Acked(_)) {
            self.acked.fetch_add(1, Ordering::Relaxed);
        } else {
            let mut last = self.last_failure.lock().unwrap();
            *last = (*last).max(Some(attempt.ended));
        }
        self.fates.lock().unwrap()[place].attempts.push(attempt);
    }
}

impl Load {
    pub fn start(bridge: &Bridge, plan: Plan) -> Self {
        let senders = (0..plan.senders).map(|number| bridge.sender([Http::One, Http::Two][number % 2])).collect();
        Self::with(senders, plan)
    }

    /// The same through senders that know their way.
    pub fn with(senders: Vec<Sender>, plan: Plan) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Ledger::default());
        let ticker = runtime().spawn(tick(run, senders, plan.clone(), Arc::clone(&shared)));
        Self { shared, ticker, plan }
    }

    /// How many events were answered 200 so far.
    pub fn acked(&self) -> usize {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Waits until as many more events were answered 200 as come in so many seconds.
    pub fn wait_seconds(&self, seconds: usize) {
        self.wait_acked(seconds * self.plan.rate as usize);
    }

    /// Waits until so many more events were answered 200.
    pub fn wait_acked(&self, more: usize) {
        let before = self.acked();
        wait_until("events are answered 200", || self.acked() >= before + more);
    }

    /// Waits until an attempt had such a reply since `since`.
    pub fn wait_reply(&self, what: &str, since: Instant, wanted: impl Fn(&Reply) -> bool) {
        wait_until(what, || {
            let fates = self.shared.fates.lock().unwrap();
            fates.iter().flat_map(|fate| &fate.attempts).any(|it| it.ended >= since && wanted(&it.reply))
        });
    }

    /// When the last attempt ended that was not answered 200.
    pub fn last_failure(&self) -> Option<Instant> {
        *self.shared.last_failure.lock().unwrap()
    }

    /// How many events are neither acked nor dropped yet.
    pub fn open(&self) -> usize {
        self.shared.under_way.load(Ordering::Relaxed)
    }

    /// Waits until all that came in `calm` since `healed` was answered 200, and soon; false when it is not so within
    /// the `usual` time.
    pub fn recovered(&self, healed: Instant, calm: Duration, usual: Duration) -> bool {
        let (asked, watch) = (Instant::now(), Stopwatch::start());
        loop {
            let limit = watch.allowed(usual);
            let last = self.last_failure().unwrap_or(healed).max(healed);
            if last - healed > limit || asked.elapsed() > limit + calm {
                return false;
            }
            // Those that are open may still fail: there must be no more of them than half a second brings.
            if last.elapsed() >= calm && self.open() <= (self.plan.rate / 2).max(4) as usize {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends no new event, lets each that was begun come to its end, and returns all of them.
    pub fn stop(mut self) -> Vec<Fate> {
        self.shared.stop.store(true, Ordering::Relaxed);
        runtime().block_on(&mut self.ticker).unwrap();
        wait_until("every event is acked or dropped", || self.open() == 0);
        std::mem::take(&mut self.shared.fates.lock().unwrap())
    }
}

async fn tick(run: u32, senders: Vec<Sender>, plan: Plan, shared: Arc<Ledger>) {
    let senders: Vec<Arc<Sender>> = senders.into_iter().map(Arc::new).collect();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / plan.rate);
    for number in 0.. {
        ticks.tick().await;
        while shared.under_way.load(Ordering::Relaxed) >= plan.open_max && !shared.stop.load(Ordering::Relaxed) {
            ticks.tick().await;
        }
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let feed = plan.feeds[number % plan.feeds.len()];
        let event = Event::new(run, number, feed, plan.keys * plan.feeds.len(), plan.padding);
        let (sender, shared, plan) = (Arc::clone(&senders[number % senders.len()]), Arc::clone(&shared), plan.clone());
        shared.under_way.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let place = {
                let mut fates = shared.fates.lock().unwrap();
                fates.push(Fate { event: event.clone(), attempts: Vec::new() });
                fates.len() - 1
            };
            let write_down = |attempt: &Attempt| shared.write_down(place, attempt.clone());
            deliver(&sender, event, &plan, write_down).await;
            shared.under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// One event, by the sender's rules.
pub async fn deliver(sender: &Sender, event: Event, plan: &Plan, mut seen: impl FnMut(&Attempt)) -> Fate {
    let mut fate = Fate { event, attempts: Vec::new() };
    for number in 0..=plan.retries {
        if number > 0 {
            tokio::time::sleep(plan.pause).await;
        }
        let attempt = attempt(sender, &fate.event, plan.timeout).await;
        let acked = matches!(attempt.reply, Reply::Acked(_));
        seen(&attempt);
        fate.attempts.push(attempt);
        if acked {
            break;
        }
    }
    fate
}

pub async fn attempt(sender: &Sender, event: &Event, timeout: Duration) -> Attempt {
    let sent = Instant::now();
    let answer = tokio::time::timeout(timeout, sender.post("/", &[], event.body.clone())).await;
    let retry_after = match &answer {
        Ok(Ok(answer)) => answer.headers.get("retry-after").map(|it| it.to_str().unwrap().to_owned()),
        Ok(Err(_)) | Err(_) => None,
    };
    let reply = match answer {
        Ok(Ok(answer)) => reply(&answer),
        Ok(Err(error)) => Reply::Broken(error.to_string()),
        Err(_) => Reply::TimedOut,
    };
    Attempt { sent, ended: Instant::now(), reply, retry_after }
}

pub fn reply(answer: &Answer) -> Reply {
    if answer.status != 200 {
        return Reply::Refused(answer.status, answer.body["code"].as_str().unwrap_or_default().to_owned());
    }
    Reply::Acked(Receipt {
        topic: answer.body["topic"].as_str().expect("a receipt names its topic").to_owned(),
        partition: i32::try_from(answer.body["partition"].as_i64().expect("a partition")).unwrap(),
        offset: answer.body["offset"].as_i64(),
    })
}

/// For cases that post by themselves.
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}
