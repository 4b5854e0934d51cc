//! Connections and their limits: accept, handshake, HTTP/1.1 or HTTP/2, and how each comes to its end.
//!
//! A server is one listener and knows no API: a [`Handler`] answers the requests with an
//! [`Answer`](crate::http::Answer), never with a response.

mod connection;
mod connections;
mod converse;
mod door;
mod draining;
mod log_limit;
mod peer;
mod watched;

use std::{collections::HashMap, convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::connection::{Connection, Overdue};
pub use self::{
    connection::Busy,
    connections::{Connections, Newcomer},
    converse::{Conversation, Http},
    door::{Door, Handler, Limits},
    draining::Draining,
    log_limit::LogLimit,
    peer::Peer,
};
use crate::{
    metrics::Metrics,
    tls::{self, Client, CurrentTls, HANDSHAKE_MAX, ServerTls},
};

/// Connections that the kernel keeps for us until they are accepted.
pub const BACKLOG: u32 = 4096;

/// The longest wait for one more connection of the backlog when a drain begins.
const LAST_ACCEPT_MAX: Duration = Duration::from_millis(5);

/// The time between two sweeps over all open connections: a timer for each request would cost each request.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Serves connections until it is told to drain.
pub struct Server<H> {
    tls: CurrentTls,
    door: Door<H>,
    metrics: Arc<Metrics>,
    /// Accept no more, finish what is held.
    draining: CancellationToken,
    connections: Connections,
    /// A client can fail a handshake without a certificate, so these log lines need a limit.
    failures_logged: LogLimit,
    refused_logged: LogLimit,
}

/// A connection's place among the others, given back however its task ends.
struct Open<H: Handler> {
    server: Arc<Server<H>>,
    number: u64,
}

impl<H: Handler> Drop for Open<H> {
    fn drop(&mut self) {
        self.server.connections.remove(self.number);
    }
}

impl<H: Handler> Server<H> {
    /// Makes a server that accepts until `draining` is cancelled.
    pub fn new(
        tls: CurrentTls,
        handler: Arc<H>,
        limits: Limits,
        metrics: &Arc<Metrics>,
        draining: &CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            tls,
            door: Door::new(handler, limits),
            metrics: Arc::clone(metrics),
            draining: draining.clone(),
            connections: Connections::default(),
            failures_logged: LogLimit::new("failed handshakes"),
            refused_logged: LogLimit::new("refused connections"),
        })
    }

    /// Accepts until `draining`; gives back the connections that are still open.
    pub async fn run(self: Arc<Self>, listener: TcpListener) -> Draining<H> {
        self.metrics.show(self.metrics.connections.clone(), &self, |server| server.connections.count());
        let tasks = TaskTracker::new();
        let mut sweep = pin!(self.sweep());
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.draining.cancelled() => break,
                never = &mut sweep => match never {},
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, from)) => self.open(socket, from, &tasks),
                Err(error) => {
                    // The usual cause is a lack of file descriptors. Open connections go on, and free some as they
                    // close.
                    tracing::warn!(%error, "no connection could be accepted");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        self.take_those_that_wait(&listener, &tasks).await;
        Draining::begin(Arc::clone(&self), tasks)
    }

    /// Accepts the backlog: its clients already see open connections, and the listener's end would reset them.
    async fn take_those_that_wait(self: &Arc<Self>, listener: &TcpListener, tasks: &TaskTracker) {
        for _ in 0..BACKLOG {
            let Ok(Ok((socket, from))) = timeout(LAST_ACCEPT_MAX, listener.accept()).await else { return };
            self.open(socket, from, tasks);
        }
    }

    fn open(self: &Arc<Self>, socket: TcpStream, from: SocketAddr, tasks: &TaskTracker) {
        let Limits { section, connections_max: max, .. } = self.door.limits;
        if self.connections.count() >= max && self.connections.cut_longest_idle() {
            self.metrics.connections_evicted.inc();
        }
        // No idle connection could be closed, so the new one is refused.
        if self.connections.count() >= max {
            self.metrics.connections_refused.inc();
            self.refused_logged.run(|| {
                tracing::warn!(%from, "connection refused: {section}.connections_max ({max}) are open and none is idle; raise it, or run more instances");
            });
            return;
        }
        let newcomer = self.connections.add();
        let connection = Arc::clone(&newcomer.connection);
        let open = Open { server: Arc::clone(self), number: connection.number };
        let task = tasks.spawn(async move { open.server.serve(socket, from, newcomer).await });
        let _ = connection.task.set(task.abort_handle());
    }

    async fn serve(&self, socket: TcpStream, from: SocketAddr, newcomer: Newcomer) {
        let connection = newcomer.connection.number;
        // The box frees the handshake's memory once the connection is open.
        let begun = Box::pin(self.begin(socket, from, newcomer)).await;
        let Some(conversation) = begun else { return };
        if let Err(error) = conversation.await {
            tracing::debug!(connection, %from, %error, "connection ended");
        }
    }

    async fn begin(&self, socket: TcpStream, from: SocketAddr, newcomer: Newcomer) -> Option<Conversation> {
        let (stream, client) = self.shake_hands(socket, from, &newcomer.connection).await?;
        self.metrics.connections_accepted.inc();
        let http = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Http::Two,
            _ => Http::One,
        };
        Some(self.door.converse(stream, http, client, newcomer))
    }

    async fn shake_hands(
        &self,
        socket: TcpStream,
        from: SocketAddr,
        connection: &Connection,
    ) -> Option<(TlsStream<TcpStream>, Client)> {
        let _ = socket.set_nodelay(true);
        let tls = Arc::clone(&self.tls.borrow());
        let handshake = async {
            if !has_begun(&socket).await {
                return Ok(None);
            }
            TlsAcceptor::from(Arc::clone(&tls.config)).accept(socket).await.map(Some)
        };
        let failure = match timeout(HANDSHAKE_MAX, handshake).await {
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(stream))) => {
                let client = self.identify(&stream, &tls, from, connection)?;
                return Some((stream, client));
            }
            Ok(Err(error)) => (tls::failure_reason(&error), error.to_string()),
            Err(_) => (tls::TIMED_OUT, "the handshake took too long".to_owned()),
        };
        self.handshake_failed(failure.0, from, &failure.1);
        None
    }

    /// Identifies the client by its certificate. The chain is verified again if rustls skipped that (a resumed
    /// session), or if the certificates changed during the handshake.
    fn identify(
        &self,
        stream: &TlsStream<TcpStream>,
        shaken_with: &Arc<ServerTls>,
        from: SocketAddr,
        connection: &Connection,
    ) -> Option<Client> {
        let session = stream.get_ref().1;
        let chain = session.peer_certificates().unwrap_or_default();
        // The chain is set before the certificates are read: a change after that read makes `sweep` judge this chain
        // again.
        let _ = connection.chain.set(chain.iter().map(|der| der.clone().into_owned()).collect());
        let tls = Arc::clone(&self.tls.borrow());
        let unchecked = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        if (unchecked || !Arc::ptr_eq(&tls, shaken_with))
            && let Err(fault) = tls.verify_again(chain)
        {
            self.handshake_failed(tls::reason_of(&fault), from, &fault.to_string());
            return None;
        }
        let Some(leaf) = chain.first() else { return Some(Client::Unknown) };
        connection.authenticate();
        let client = tls.client(leaf);
        if let (Client::Allowed(name), Some(at)) = (&client, tls::not_after(leaf)) {
            self.metrics.certificate_expiry.with_label_values(&["sender", tls.label(name)]).set(at);
        }
        Some(client)
    }

    /// Ends the connections that have had their time, and those of senders that would not be let in any more.
    async fn sweep(&self) -> Infallible {
        let (mut tls, limits) = (self.tls.clone(), self.door.limits);
        loop {
            let changed = timeout(SWEEP_EVERY, tls.changed()).await;
            for (connection, why) in self.connections.overdue(limits.idle_max, limits.head_max) {
                match why {
                    Overdue::Idle => self.end(&connection, "idle", Connection::close),
                    Overdue::StillIdle => self.end(&connection, "idle", Connection::cut),
                    Overdue::SlowHead => self.end(&connection, "slow_head", Connection::cut),
                }
            }
            for connection in self.connections.old(limits.age_max) {
                self.end(&connection, "age", Connection::retire);
            }
            match changed {
                Ok(Ok(())) => {
                    let tls = Arc::clone(&tls.borrow_and_update());
                    self.judge_again(&tls).await;
                }
                // The sender is gone, so the certificates change no more.
                Ok(Err(_)) => sleep(SWEEP_EVERY).await,
                Err(_) => {}
            }
        }
    }

    async fn judge_again(&self, tls: &ServerTls) {
        // Most connections have the same few certificates.
        let mut judged = HashMap::<Vec<CertificateDer<'static>>, bool>::new();
        for connection in self.connections.all() {
            let Some(chain) = connection.chain.get() else { continue };
            let good = match judged.get(chain) {
                Some(good) => *good,
                None => {
                    tokio::task::yield_now().await;
                    let good = tls.verify_again(chain).is_ok();
                    judged.insert(chain.clone(), good);
                    good
                }
            };
            if !good {
                self.end(&connection, "certificate", Connection::cut);
            }
        }
    }

    fn end(&self, connection: &Connection, reason: &'static str, how: fn(&Connection)) {
        how(connection);
        if connection.ended_for.set(reason).is_ok() {
            self.metrics.connections_closed.with_label_values(&[reason]).inc();
            tracing::debug!(connection = connection.number, reason, "connection closed");
        }
    }

    fn handshake_failed(&self, reason: &str, from: SocketAddr, error: &str) {
        self.metrics.handshake_failures.with_label_values(&[reason]).inc();
        self.failures_logged.run(|| tracing::info!(%from, reason, error, "TLS handshake failed"));
    }
}

/// Waits for the client's first byte. A load balancer that probes the port hangs up without one; that is no failed
/// handshake.
async fn has_begun(socket: &TcpStream) -> bool {
    !matches!(socket.peek(&mut [0]).await, Ok(0) | Err(_))
}

#[cfg(test)]
mod tests;
