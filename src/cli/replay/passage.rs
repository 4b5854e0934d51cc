//! The bridge's own path, without its listener.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::letter::Letter;
use crate::{
    bridge::{Bridge, Delivery, InFlight, Overload},
    cli::{Failure, stop_signal, target::Target},
    kafka::{Accepted, Connection, Producers, Receipt},
    metrics::Metrics,
    serve::{Run, routes_with_ids},
};

/// The bridge as `serve` builds it, without the listener, and the signal to stop.
pub struct Passage {
    bridge: Bridge,
    /// The lanes' producers, to be drained at the end.
    pub producers: Arc<Producers>,
    /// Cancelled by the signal to stop.
    pub stop: CancellationToken,
    /// Cancelled once records on their way are no longer waited for.
    cut_off: CancellationToken,
}

/// A stopped run waits this long for records on their way.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The bridge's reply to a letter: in flight, or refused for lack of room.
pub type Sent = Result<InFlight, Overload>;

impl Passage {
    /// Resolves the schemas' ids and starts the producers.
    ///
    /// # Errors
    /// A schema has no id, or the Kafka client refuses its configuration.
    pub fn open(target: &Target, connection: &Connection) -> Result<Self, Failure> {
        let config = &target.config;
        let run = target.dev.as_ref().map_or(Run::Serve, |dev| Run::Dev { embedded: dev.embedded });
        let routes = tokio::task::block_in_place(|| routes_with_ids(config, run)).map_err(Failure::findings)?;
        let metrics = Arc::new(Metrics::new().map_err(Failure::new)?);
        let lanes = Bridge::lanes(config);
        let producers = Producers::start(
            connection,
            &lanes,
            config.sender.budget().message_timeout,
            config.dedupe.bytes_max,
            &metrics,
        )
        .map_err(Failure::new)?;
        let (stop, cut_off) = (stop_signal()?, CancellationToken::new());
        let (stopped, cut) = (stop.clone(), cut_off.clone());
        tokio::spawn(async move {
            stopped.cancelled().await;
            tokio::time::sleep(STOP_WITHIN).await;
            cut.cancel();
        });
        let bridge = Bridge::new(config, routes, Arc::clone(&producers), metrics);
        Ok(Self { bridge, producers, stop, cut_off })
    }

    /// Hands a letter over; [`Self::receipt`] waits for the result.
    pub fn send(&self, letter: Letter) -> Sent {
        let Letter { binding, origin, body } = letter;
        let bytes = self.bridge.admit(body.len())?;
        self.bridge.deliver(Delivery { accepted: Accepted { body, origin, bytes }, binding })
    }

    /// Waits for the receipt, but no longer than some seconds after the signal to stop.
    ///
    /// # Errors
    /// The bridge had no room, the record was not committed in time, or the run was stopped.
    pub async fn receipt(&self, sent: Sent) -> Result<Receipt, String> {
        let mut in_flight = sent.map_err(|overload| format!("{overload}: raise ingress.queue_bytes_max"))?;
        tokio::select! {
            biased;
            outcome = &mut in_flight.pending => outcome.map_err(|error| format!("{error}: is Kafka well? (`causeway check`)")),
            () = self.cut_off.cancelled() => Err("stopped before it was committed: it may be stored twice".to_owned()),
        }
    }
}
