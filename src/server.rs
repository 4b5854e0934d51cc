//! Connections and their limits: accept, handshake, HTTP/1.1 or HTTP/2, and how each comes to its end.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ingress::{Ingress, Peer},
    metrics::Metrics,
    tls::{self, HANDSHAKE_MAX, ServerTls},
};

/// An idle connection is closed after this time; a request's head must be complete within it too.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// HTTP/1.1: a head larger than this is answered 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// HTTP/2: requests that one connection may hold at once.
const STREAMS_MAX: u32 = 1024;

/// HTTP/2 receive windows: a body of common size needs no window update.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Serves connections until it is told to drain.
pub struct Server {
    pub tls: Arc<ServerTls>,
    pub ingress: Arc<Ingress>,
    pub connections_max: usize,
    pub metrics: Arc<Metrics>,
    /// Accept no more, finish what is held.
    pub draining: CancellationToken,
}

/// All open connections.
#[derive(Default)]
struct Connections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
}

/// What is known of one connection from outside its task.
struct Connection {
    number: u64,
    accepted_at: Instant,
    requests: AtomicUsize,
    /// Milliseconds from `accepted_at` to the end of its last request.
    idle_since: AtomicU64,
    close: Notify,
}

impl Server {
    /// Accepts until `draining`; gives back the tasks of the connections that are still open.
    pub async fn run(self: Arc<Self>, listener: TcpListener) -> TaskTracker {
        let tasks = TaskTracker::new();
        let connections = Arc::new(Connections::default());
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.draining.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, from)) => self.open(socket, from, &connections, &tasks),
                Err(error) => {
                    // Mostly out of file descriptors: those that are open go on, and may close.
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        tasks.close();
        tasks
    }

    fn open(
        self: &Arc<Self>,
        socket: TcpStream,
        from: SocketAddr,
        connections: &Arc<Connections>,
        tasks: &TaskTracker,
    ) {
        if connections.count() >= self.connections_max && connections.close_longest_idle() {
            self.metrics.connections_evicted.inc();
        }
        // With no idle one to close, the new one goes.
        if connections.count() > self.connections_max {
            tracing::debug!(%from, "connection refused: connections_max are open and none is idle");
            return;
        }
        let connection = connections.add();
        let (server, connections) = (Arc::clone(self), Arc::clone(connections));
        tasks.spawn(async move {
            server.metrics.connections.inc();
            server.serve(socket, from, &connection).await;
            server.metrics.connections.dec();
            connections.remove(connection.number);
        });
    }

    async fn serve(&self, socket: TcpStream, from: SocketAddr, connection: &Arc<Connection>) {
        let _ = socket.set_nodelay(true);
        let stream = tokio::select! {
            stream = timeout(HANDSHAKE_MAX, TlsAcceptor::from(Arc::clone(&self.tls.config)).accept(socket)) => stream,
            () = connection.close.notified() => return,
            () = self.draining.cancelled() => return,
        };
        let stream = match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.handshake_failed(tls::failure_reason(&error), from, &error.to_string()),
            Err(_) => return self.handshake_failed("timeout", from, "the handshake took too long"),
        };
        let Some(peer) = self.identify(&stream, from, connection) else { return };
        self.metrics.connections_accepted.inc();
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let peer = Arc::new(peer);
        let ingress = Arc::clone(&self.ingress);
        let busy = Arc::clone(connection);
        let service = service_fn(move |request: Request<Incoming>| {
            let (ingress, peer, busy) = (Arc::clone(&ingress), Arc::clone(&peer), Arc::clone(&busy));
            async move {
                let _busy = busy.begin();
                Ok::<_, Infallible>(ingress.answer(request, &peer).await)
            }
        });
        let io = TokioIo::new(stream);
        let ended = if h2 {
            let http = http2().serve_connection(io, service);
            let mut http = pin!(http);
            tokio::select! {
                ended = http.as_mut() => ended,
                () = self.told_to_close(connection) => {
                    http.as_mut().graceful_shutdown();
                    http.await
                }
            }
        } else {
            let http = http1().serve_connection(io, service);
            let mut http = pin!(http);
            tokio::select! {
                ended = http.as_mut() => ended,
                () = self.told_to_close(connection) => {
                    http.as_mut().graceful_shutdown();
                    http.await
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(connection = connection.number, %from, %error, "connection ended");
        }
    }

    /// Who the client is, by its certificate. On a resumed session that is checked again.
    fn identify(&self, stream: &TlsStream<TcpStream>, from: SocketAddr, connection: &Connection) -> Option<Peer> {
        let session = stream.get_ref().1;
        let chain = session.peer_certificates().unwrap_or_default();
        if session.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
            && let Err(fault) = self.tls.verify_again(chain)
        {
            self.handshake_failed(tls::reason_of(&fault), from, &fault.to_string());
            return None;
        }
        let leaf = chain.first()?;
        if let Some(at) = tls::not_after(leaf) {
            self.metrics.certificate_expiry.with_label_values(&["sender"]).set(at);
        }
        Some(Peer::new(connection.number, connection.accepted_at, self.tls.allow(leaf)))
    }

    async fn told_to_close(&self, connection: &Connection) {
        tokio::select! {
            () = self.draining.cancelled() => {}
            () = connection.close.notified() => {}
        }
    }

    fn handshake_failed(&self, reason: &str, from: SocketAddr, error: &str) {
        self.metrics.handshake_failures.with_label_values(&[reason]).inc();
        tracing::info!(%from, reason, error, "TLS handshake failed");
    }
}

fn http1() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(IDLE_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(64 * 1024)
        .half_close(false);
    http
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(IDLE_MAX)
        .keep_alive_timeout(Duration::from_secs(20));
    http
}

impl Connections {
    fn count(&self) -> usize {
        self.lock().len()
    }

    fn add(&self) -> Arc<Connection> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            number,
            accepted_at: Instant::now(),
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            close: Notify::new(),
        });
        self.lock().insert(number, Arc::clone(&connection));
        connection
    }

    fn remove(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// Closes the connection that has been without a request for the longest time; false when all have one.
    fn close_longest_idle(&self) -> bool {
        let mut open = self.lock();
        let idle = open.values().filter(|connection| connection.requests.load(Ordering::Relaxed) == 0);
        let Some(longest) = idle.min_by_key(|connection| connection.idle_from()).map(|connection| connection.number)
        else {
            return false;
        };
        let Some(connection) = open.remove(&longest) else { return false };
        connection.close.notify_one();
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn idle_from(&self) -> Instant {
        self.accepted_at + Duration::from_millis(self.idle_since.load(Ordering::Relaxed))
    }

    fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

/// A request on a connection.
struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        let idle_since = self.0.accepted_at.elapsed().as_millis();
        self.0.idle_since.store(u64::try_from(idle_since).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}
