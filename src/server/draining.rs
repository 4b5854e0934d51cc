//! What is left of the server when it accepts no more: connections that finish what they hold.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::{Connection, Server};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The connections that were open when the drain began.
pub struct Draining {
    server: Arc<Server>,
    connections: TaskTracker,
    began: Instant,
}

impl Draining {
    /// Tells all connections to close.
    pub(super) fn begin(server: Arc<Server>, connections: TaskTracker) -> Self {
        for connection in server.connections.all() {
            connection.close();
        }
        connections.close();
        Self { server, connections, began: Instant::now() }
    }

    /// Waits until all have ended. One without a request that does not close in its time is cut: a client that reads nothing,
    /// or sends half a head, would make every stop last as long as it may.
    pub async fn ended(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.connections.wait() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            for connection in self.server.connections.silent(self.began, self.server.limits.head_max) {
                self.server.end(&connection, "idle", Connection::cut);
            }
        }
    }

    /// Ends those that are left, with the requests that they hold: each keeps the producers from being closed.
    pub fn cut(&self) {
        self.server.connections.all().iter().for_each(|connection| connection.cut());
    }
}
