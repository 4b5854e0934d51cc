//! Build in order, stop in reverse. `topics` looks whether there is what the bridge writes to.

mod routes;
mod topics;

use std::{
    mem::ManuallyDrop,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, Weak},
    time::Duration,
};

use routes::{fetch_ids, number_locally, pinned};
pub use routes::{routes, routes_with_ids};
use tokio::{
    net::TcpSocket,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
pub use topics::not_created;
use topics::{Found, Topics};

use crate::{
    admin,
    bridge::Bridge,
    config::{Budget, Config},
    ingress::{self, Ingress},
    kafka::{self, Connection, Producers, Warmed, durability},
    metrics::Metrics,
    readiness::{Latch, Readiness},
    record::Route,
    registry::Registry,
    server::{BACKLOG, Server},
    tls::Reload,
};

/// Which command runs the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Schema ids come from the configured registry; without one, values are in single-object encoding.
    Serve,
    /// Schemas are numbered here and served on the admin port.
    Dev { embedded: bool },
}

impl Run {
    /// The flags that set the two ports.
    fn port_flags(self) -> (&'static str, &'static str) {
        match self {
            Self::Serve => ("--listen", "--admin-listen"),
            Self::Dev { .. } => ("--port", "--admin-port"),
        }
    }
}

/// A bridge whose files are read and whose ports are bound: only Kafka or the registry can still fail it.
pub struct Bound {
    config: Config,
    run: Run,
    routes: Vec<Route>,
    certificates: Reload,
    ingress: TcpSocket,
    addresses: Addresses,
    readiness: Arc<Readiness>,
    /// A start that fails never makes ready: only what has started lets go of it.
    starting: ManuallyDrop<Latch>,
    metrics: Arc<Metrics>,
    /// The look at the topics, once they are there.
    durability: Option<durability::Watching>,
}

/// Where the bridge listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The address of the events' port.
    pub ingress: SocketAddr,
    /// The address of the admin port.
    pub admin: SocketAddr,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Records that were accepted and not committed at the end of the drain. None of them was answered 200.
    pub given_up: usize,
}

/// Why the bridge did not start: every reason, each with its remedy.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct StartError(pub Vec<String>);

impl From<String> for StartError {
    fn from(reason: String) -> Self {
        Self(vec![reason])
    }
}

/// The pause between two looks at topics or a registry that are not there yet.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The pause between two looks at topics that were just created.
const LOOK_AT_NEW: Duration = Duration::from_millis(100);

/// The time that the producers have to end, once every record is committed or given up.
const CLOSE_MAX: Duration = Duration::from_secs(2);

impl Bound {
    /// Reads certificates and schemas, binds both ports, starts the admin port.
    ///
    /// # Errors
    /// Every file and port that cannot be used.
    pub fn new(config: Config, run: Run) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new().map_err(|error| error.to_string())?);
        metrics.show_limits(&config);
        let readiness = Readiness::new(metrics.ready.clone());
        let starting = ManuallyDrop::new(readiness.wait_for("start", "the bridge is starting"));
        let (port_flag, admin_flag) = run.port_flags();
        let mut faults = Vec::new();
        let certificates = Reload::new(ingress::tls(&config), &metrics)
            .map_err(|found| faults.extend(found.iter().map(ToString::to_string)));
        let routes = routes(&config).map_err(|found| faults.extend(found));
        let ingress = bind(config.ingress.listen)
            .map_err(|error| faults.push(port_fault("ingress.listen", port_flag, config.ingress.listen, &error)));
        let admin = StdListener::bind(config.admin.listen)
            .map_err(|error| faults.push(port_fault("admin.listen", admin_flag, config.admin.listen, &error)));
        let (Ok(certificates), Ok(mut routes), Ok(ingress), Ok(admin)) = (certificates, routes, ingress, admin) else {
            return Err(StartError(faults));
        };
        let schemas = match run {
            Run::Serve => Vec::new(),
            Run::Dev { .. } => number_locally(&mut routes),
        };
        let io = |error: std::io::Error| StartError(vec![error.to_string()]);
        let served = admin::Admin { readiness: Arc::clone(&readiness), metrics: Arc::clone(&metrics), schemas };
        let addresses =
            Addresses { ingress: ingress.local_addr().map_err(io)?, admin: admin::start(served, admin).map_err(io)? };
        Ok(Self {
            config,
            run,
            routes,
            certificates,
            ingress,
            addresses,
            readiness,
            starting,
            metrics,
            durability: None,
        })
    }

    /// Runs until `stop`, then drains. `ready` is called once requests are accepted.
    ///
    /// # Errors
    /// Faults that cannot heal by themselves. The bridge waits for topics and schemas that are missing.
    pub async fn run(mut self, stop: CancellationToken, ready: impl FnOnce(&Addresses)) -> Result<Drained, StartError> {
        let connection = Connection::new(&self.config);
        let resolved = tokio::select! {
            resolved = self.resolve(&connection) => resolved,
            () = stop.cancelled() => return Ok(Drained { given_up: 0 }),
        };
        resolved?;
        let budget = self.config.sender.budget();
        let lanes = Bridge::lanes(&self.config);
        let producers =
            Producers::start(&connection, &lanes, budget.message_timeout, self.config.dedupe.bytes_max, &self.metrics)
                .map_err(|error| error.to_string())?;
        if self.config.dedupe.warm {
            self.warm(&producers, &connection, &stop);
        }
        let bridge = Bridge::new(
            &self.config,
            std::mem::take(&mut self.routes),
            Arc::clone(&producers),
            Arc::clone(&self.metrics),
        );
        let (draining, cut_off) = (CancellationToken::new(), CancellationToken::new());
        let ingress = Arc::new(Ingress::new(
            bridge,
            budget,
            self.config.ingress.body_bytes_max,
            cut_off.clone(),
            Arc::clone(&self.metrics),
        ));
        let limits = ingress::limits(&self.config);
        let server = Server::new(self.certificates.current(), ingress, limits, &self.metrics, &draining);
        // Bound before, but on Linux another one may have begun to listen there meanwhile.
        let (port_flag, _) = self.run.port_flags();
        let address = self.config.ingress.listen;
        let listener =
            self.ingress.listen(BACKLOG).map_err(|error| port_fault("ingress.listen", port_flag, address, &error))?;
        let mut serving = tokio::spawn(server.run(listener));
        let mut reloading = tokio::spawn(self.certificates.watch());
        let telling = tokio::spawn(tell_own_faults(Arc::downgrade(&producers), Arc::clone(&self.readiness)));
        drop(ManuallyDrop::into_inner(self.starting));
        tracing::info!(ingress = %self.addresses.ingress, admin = %self.addresses.admin, brokers = connection.brokers(), "ready");
        ready(&self.addresses);

        tokio::select! {
            () = stop.cancelled() => {}
            // Neither ends before unless it panics.
            _ = &mut serving => kafka::end("nobody accepts connections any more"),
            _ = &mut reloading => kafka::end("nobody looks at the certificates any more"),
        }
        let end = Instant::now() + self.config.ingress.drain_max;
        // Until the process ends.
        let _drain = ManuallyDrop::new(self.readiness.wait_for("drain", "the bridge is stopping"));
        tracing::info!(outstanding = producers.outstanding(), "draining");
        #[cfg(feature = "sabotage")]
        let end = kafka::sabotage::drain(&producers, end);
        draining.cancel();
        reloading.abort();
        telling.abort();
        if let Ok(connections) = serving.await
            && timeout_at(end - Budget::CUT_OFF_BEFORE_DRAIN_END, connections.ended()).await.is_err()
        {
            cut_off.cancel();
            producers.dismiss();
            let _ = timeout_at(end, connections.ended()).await;
            connections.cut();
        }
        let durability = self.durability.take();
        Ok(tokio::task::block_in_place(|| drain(producers, durability, end.into_std())))
    }

    /// Without this, a retry of an event that an earlier run committed is committed again: no reason not to start.
    fn warm(&mut self, producers: &Producers, connection: &Connection, stop: &CancellationToken) {
        *self.starting = self.readiness.wait_for("start", "reading back what was committed of late (dedupe.warm)");
        match tokio::task::block_in_place(|| producers.warm(connection, || stop.is_cancelled())) {
            Ok(Warmed { events, whole: true }) => tracing::info!(events, "events of an earlier run are remembered"),
            Ok(Warmed { events, whole: false }) => {
                tracing::warn!(events, "not all events of an earlier run could be read back in time (dedupe.warm)");
            }
            Err(error) => tracing::warn!(
                %error,
                "events of an earlier run could not be read back (dedupe.warm): may this user Read the topics and Describe the group causeway-warm?"
            ),
        }
    }

    /// Waits until topics and schemas are there and right.
    async fn resolve(&mut self, connection: &Connection) -> Result<(), StartError> {
        let topics = Topics::of(&self.config);
        let mut latch = None;
        loop {
            // Somebody may correct a wrong password meanwhile.
            connection.read_secrets();
            match topics.look(connection, &self.config, self.run).await? {
                Found::AllRight => break,
                Found::NotYet(why) => {
                    latch = Some(self.not_yet("topics", why));
                    sleep(LOOK_AGAIN).await;
                }
                Found::Created => {
                    latch = Some(self.readiness.wait_for("topics", "created; not every broker knows them yet"));
                    sleep(LOOK_AT_NEW).await;
                }
            }
        }
        drop(latch);
        if self.run != (Run::Dev { embedded: true }) {
            let watching = durability::watch(connection, topics.names, &self.metrics, durability::EVERY);
            self.durability = Some(watching);
        }
        let Some(registry) = self.config.registry.as_ref().filter(|_| self.run == Run::Serve) else {
            return Ok(());
        };
        let registry = registry.clone();
        let mut client = Registry::new(&registry).map_err(|error| error.to_string())?;
        let pinned = pinned(&self.config);
        let mut latch = None;
        loop {
            let resolved =
                tokio::task::block_in_place(|| fetch_ids(&mut self.routes, &client, &pinned, registry.auto_register));
            match resolved {
                Ok(()) => break,
                Err(why) => {
                    latch = Some(self.not_yet("registry", why));
                    sleep(LOOK_AGAIN).await;
                }
            }
            // Our certificate may have been renewed meanwhile; half of a pair is left for the next time.
            match Registry::new(&registry) {
                Ok(renewed) => client = renewed,
                Err(error) => tracing::warn!(%error, "the files for the registry cannot be used"),
            }
        }
        drop(latch);
        Ok(())
    }

    fn not_yet(&self, part: &'static str, why: String) -> Latch {
        tracing::warn!(part, "not ready: {why}");
        self.readiness.wait_for(part, why)
    }
}

/// The pause between two looks for faults of this instance alone.
const OWN_FAULTS_EVERY: Duration = Duration::from_secs(1);

/// Another instance may commit where this one cannot, so a load balancer should know.
async fn tell_own_faults(producers: Weak<Producers>, readiness: Arc<Readiness>) {
    let mut _latch = None;
    while let Some(lanes) = producers.upgrade().map(|producers| producers.at_fault().join(", ")) {
        let why = || format!("{lanes}: records are not sent though every leader can be reached");
        _latch = (!lanes.is_empty()).then(|| readiness.wait_for("producers", why()));
        sleep(OWN_FAULTS_EVERY).await;
    }
}

/// Waits for the last commits, then ends the producers and the threads. Blocks.
fn drain(producers: Arc<Producers>, durability: Option<durability::Watching>, end: std::time::Instant) -> Drained {
    let given_up = producers.drain(end);
    if given_up > 0 {
        tracing::error!(given_up, "records were not committed by the end of the drain; none of them was answered 200");
    } else {
        tracing::info!("drained: every accepted event is committed");
    }
    let closed_by = std::time::Instant::now() + CLOSE_MAX;
    producers.close(closed_by);
    durability.into_iter().for_each(|watching| watching.end(closed_by));
    Drained { given_up }
}

/// Bound, not yet listening: until it is ready, a client is refused at once instead of left waiting.
fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn port_fault(key: &str, flag: &str, address: SocketAddr, error: &std::io::Error) -> String {
    format!("{key} = \"{address}\": {error}; choose another address with {flag} (port 0 takes a free one)")
}
