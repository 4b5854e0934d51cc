//! The server after it has stopped to accept: its connections finish the requests that they hold.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::{
    Handler, Server,
    connection::{Connection, Last},
};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The connections that were open when the drain began.
pub struct Draining<H> {
    server: Arc<Server<H>>,
    connections: TaskTracker,
    began: Instant,
}

impl<H: Handler> Draining<H> {
    /// Begins the drain: from now on each answer is its connection's last.
    pub(super) fn begin(server: Arc<Server<H>>, connections: TaskTracker) -> Self {
        server.connections.all().iter().for_each(|connection| connection.answer_last());
        connections.close();
        let draining = Self { server, connections, began: Instant::now() };
        draining.look();
        draining
    }

    /// Waits until all connections have ended. A connection without a request is closed after some time for a last one,
    /// and cut if it does not close: else a client that reads nothing, or sends half a head, would stretch each stop to
    /// its limit.
    pub async fn ended(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.connections.wait() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            self.look();
        }
    }

    fn look(&self) {
        for (connection, last) in self.server.connections.last(self.began, self.server.door.limits.head_max) {
            match last {
                Last::Close => connection.close(),
                Last::Cut => self.server.end(&connection, "idle", Connection::cut),
            }
        }
    }

    /// Cuts the connections that are left, with the requests that they hold: each keeps the producers from being
    /// closed.
    pub fn cut(&self) {
        self.server.connections.all().iter().for_each(|connection| connection.cut());
    }
}
