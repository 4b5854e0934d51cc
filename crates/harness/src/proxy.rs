//! A TCP proxy that can be a bad network: cut, silent, slow, narrow, or gone in the middle of a request.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::kafka_wire::{Part, Requests, Responses, Shared};

/// Senders run here: not in a test's own thread, which blocks.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| workers(2))
}

/// Wires run here, apart from the senders: handshakes of a load after an outage, on a slow machine, would keep them from
/// carrying anything, and the outage would last for ever.
fn wires() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| workers(1))
}

fn workers(threads: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("a runtime")
}

/// One direction of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// What is written waits, as packets do that get lost until the network heals. A reset while it waits loses it.
    pub silent: bool,
    pub latency: Duration,
    /// Up to so much is added to the latency; bytes stay in their order.
    pub jitter: Duration,
    pub bytes_per_second: Option<u32>,
}

/// The whole wire.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wire {
    /// No connection: those that are open are reset, new ones are reset at once.
    pub cut: bool,
    /// From the client to the server.
    pub up: Link,
    pub down: Link,
    /// Responses to metadata requests name no broker.
    pub nameless: bool,
    /// A connection over which nothing went for so long is forgotten, as a NAT or a firewall does: what is written to it then
    /// goes nowhere, and nobody is told.
    pub forgets_after: Option<Duration>,
    /// Counts the resets: a connection ends when it changes.
    resets: u32,
}

/// Listens for as long as it lives.
pub struct Proxy {
    pub address: SocketAddr,
    inside: Arc<Inside>,
}

struct Inside {
    /// A connection goes to the next one that takes it.
    targets: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
    /// When each direction has room again, if it is narrow.
    room: [Mutex<Instant>; 2],
    wire: watch::Sender<Wire>,
    /// So many produce requests are cut through from now on.
    broken_requests: AtomicU32,
    /// So many produce responses say this error from now on, whatever the broker said.
    wrong_responses: Arc<Shared>,
    /// So many produce requests do not reach their topic and are answered with this error.
    refused_requests: Arc<Shared>,
}

impl Proxy {
    /// Connects whoever comes to `target`.
    pub fn start(target: SocketAddr) -> Self {
        Self::balance(vec![target])
    }

    /// Several behind one address.
    pub fn balance(targets: Vec<SocketAddr>) -> Self {
        let listener = wires().block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let inside = Arc::new(Inside {
            targets: Mutex::new(targets),
            turn: AtomicUsize::new(0),
            room: [Mutex::new(Instant::now()), Mutex::new(Instant::now())],
            wire: watch::Sender::new(Wire::default()),
            broken_requests: AtomicU32::new(0),
            wrong_responses: Arc::default(),
            refused_requests: Arc::default(),
        });
        wires().spawn(accept(listener, Arc::downgrade(&inside)));
        Self { address, inside }
    }

    /// Connects those who come from now on to these; open connections stay.
    pub fn send_to(&self, targets: Vec<SocketAddr>) {
        *self.inside.targets.lock().unwrap() = targets;
    }

    /// Changes the wire from now on, for connections that are open too.
    pub fn change(&self, change: impl FnOnce(&mut Wire)) {
        self.inside.wire.send_modify(change);
    }

    /// Resets every open connection; what is under way on it is lost.
    pub fn reset(&self) {
        self.change(|wire| wire.resets += 1);
    }

    /// As new; open connections stay.
    pub fn heal(&self) {
        self.change(|wire| *wire = Wire { resets: wire.resets, ..Wire::default() });
        self.inside.broken_requests.store(0, Ordering::Relaxed);
        self.inside.wrong_responses.set(0, 0);
        self.inside.refused_requests.set(0, 0);
    }

    /// Each of the next `count` produce requests ends in its middle: half of it reaches the broker, then comes a reset.
    pub fn break_requests(&self, count: u32) {
        self.inside.broken_requests.store(count, Ordering::Relaxed);
    }

    /// How many of these are still to come.
    pub fn requests_to_break(&self) -> u32 {
        self.inside.broken_requests.load(Ordering::Relaxed)
    }

    /// The broker commits what the next `count` produce requests bring, but the client reads `error`, a Kafka error code.
    pub fn answer_wrongly(&self, count: u32, error: i16) {
        self.inside.wrong_responses.set(count, error);
    }

    /// The broker stores nothing of what the next `count` produce requests bring, and the client reads `error`: on its way to
    /// the broker each names a topic that is not there.
    pub fn refuse(&self, count: u32, error: i16) {
        self.inside.refused_requests.set(count, error);
    }

    /// How many of these are still to come.
    pub fn refusals_left(&self) -> u32 {
        self.inside.refused_requests.left()
    }

    /// How many of these are still to come.
    pub fn wrong_answers_left(&self) -> u32 {
        self.inside.wrong_responses.left()
    }
}

impl Inside {
    async fn connect(&self) -> io::Result<TcpStream> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut refused = io::ErrorKind::NotConnected.into();
        let targets = self.targets.lock().unwrap().clone();
        for number in 0..targets.len() {
            match TcpStream::connect(targets[(first + number) % targets.len()]).await {
                Ok(server) => return Ok(server),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Waits until a narrow wire has carried so many bytes; all connections share it.
    async fn carried(&self, direction: usize, bytes: usize, per_second: Option<u32>) {
        let Some(per_second) = per_second else { return };
        let until = {
            let mut free = self.room[direction].lock().unwrap();
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / f64::from(per_second));
            *free
        };
        sleep_until(until).await;
    }
}

/// Ends when the proxy is dropped: at the latest with the next client.
async fn accept(listener: TcpListener, inside: std::sync::Weak<Inside>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        let Some(inside) = inside.upgrade() else { return };
        tokio::spawn(async move {
            let _ = carry(client, &inside).await;
        });
    }
}

async fn carry(client: TcpStream, inside: &Inside) -> io::Result<()> {
    client.set_zero_linger()?;
    let mut wire = inside.wire.subscribe();
    let resets = wire.borrow_and_update().resets;
    if wire.borrow().cut {
        return Ok(());
    }
    // When nobody takes it, the client's connection ends at once.
    let server = inside.connect().await?;
    server.set_zero_linger()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let correlations = Responses::new(Arc::clone(&inside.wrong_responses));
    let requests = Requests::new(correlations.expected(), Arc::clone(&inside.refused_requests));
    let used = Mutex::new(Some(Instant::now()));
    let up = pump(from_client, to_server, inside, &used, Tracker::Up(requests));
    let down = pump(from_server, to_client, inside, &used, Tracker::Down(correlations));
    tokio::select! {
        // Either side's end is the end of both: Kafka knows no half-closed connection, and TLS none that matters here.
        result = up => result,
        result = down => result,
        _ = wire.wait_for(|now| now.cut || now.resets != resets) => Ok(()),
    }
}

/// What is looked at while bytes pass.
enum Tracker {
    Up(Requests),
    Down(Responses),
}

/// Carries one direction until its end; the latency is a queue's, so that it does not limit what passes.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    inside: &Inside,
    used: &Mutex<Option<Instant>>,
    mut tracker: Tracker,
) -> io::Result<()> {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(256);
    let mut wire = inside.wire.subscribe();
    let up = matches!(tracker, Tracker::Up(_));
    let of = move |wire: &Wire| if up { wire.up } else { wire.down };
    let read = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            if is_forgotten(used, inside.wire.borrow().forgets_after) {
                continue;
            }
            let link = of(&inside.wire.borrow());
            let due = Instant::now() + link.latency + link.jitter.mul_f64(random());
            if queue.send((due, buffer[..count].to_vec())).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some((due, mut bytes)) = queued.recv().await {
            sleep_until(due).await;
            if wire.wait_for(|wire| !of(wire).silent).await.is_err() {
                return Ok(());
            }
            let broken = match &mut tracker {
                Tracker::Up(requests) => requests.see(&mut bytes, &inside.broken_requests),
                Tracker::Down(responses) => {
                    responses.see(&mut bytes, inside.wire.borrow().nameless);
                    Part::Whole
                }
            };
            if let Part::Until(length) = broken {
                to.write_all(&bytes[..length]).await?;
                return Ok(());
            }
            let rate = of(&inside.wire.borrow()).bytes_per_second;
            to.write_all(&bytes).await?;
            inside.carried(usize::from(up), bytes.len(), rate).await;
        }
        Ok(())
    };
    tokio::select! {
        result = read => result,
        result = write => result,
    }
}

/// Whether a connection is forgotten now that something comes for it; none of those that are has a time of last use.
fn is_forgotten(used: &Mutex<Option<Instant>>, after: Option<Duration>) -> bool {
    let mut used = used.lock().unwrap();
    let forgotten = used.is_none_or(|at| after.is_some_and(|after| at.elapsed() >= after));
    *used = (!forgotten).then(Instant::now);
    forgotten
}

/// From 0 to 1, without a crate: jitter needs no better.
fn random() -> f64 {
    static STATE: AtomicU32 = AtomicU32::new(0x9e37_79b9);
    let next = STATE.fetch_add(0x6d2b_79f5, Ordering::Relaxed).wrapping_mul(0x85eb_ca6b);
    f64::from(next >> 8) / f64::from(1_u32 << 24)
}
