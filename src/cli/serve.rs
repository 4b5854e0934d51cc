//! `causeway serve`: the bridge.

use super::{Exit, Failure, bridge_runtime, stop_signal, target};
use crate::serve::{Bound, Run};

/// Run the bridge: events over mutual TLS in, committed Kafka records out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  causeway serve --config causeway.toml
  CAUSEWAY_KAFKA__BROKERS=kafka-1:9092,kafka-2:9092 causeway serve --config causeway.toml

SIGTERM drains: no new connections, held requests are finished, accepted events are committed.")]
pub struct Args {
    /// The configuration file.
    #[arg(long, short, env = "CAUSEWAY_CONFIG", default_value = target::FILE, value_name = "FILE")]
    config: std::path::PathBuf,
    /// The address and port that take events (ingress.listen).
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// The address and port of /livez, /readyz and /metrics (admin.listen).
    #[arg(long, value_name = "IP:PORT")]
    admin_listen: Option<String>,
    /// The Kafka brokers (kafka.brokers).
    #[arg(long, value_name = "HOST:PORT,...")]
    brokers: Option<String>,
    /// When ready, write the addresses that the bridge listens on into this file, as JSON.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<std::path::PathBuf>,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let flags: Vec<(String, String)> =
        [("ingress.listen", &args.listen), ("admin.listen", &args.admin_listen), ("kafka.brokers", &args.brokers)]
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
            .collect();
    let config = target::load(&args.config, &flags)?;
    let runtime = bridge_runtime()?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        let bound = Bound::new(config, Run::Serve).map_err(Failure::findings)?;
        let ready = |addresses: &crate::serve::Addresses| {
            let Some(file) = &args.ready_file else { return };
            let json = serde_json::json!({ "ingress": addresses.ingress, "admin": addresses.admin });
            if let Err(error) = std::fs::write(file, json.to_string()) {
                tracing::error!(file = %file.display(), %error, "--ready-file could not be written");
            }
        };
        let drained = bound.run(stop, ready).await.map_err(Failure::findings)?;
        Ok(if drained.given_up == 0 { Exit::Done } else { Exit::NotCommitted })
    })
}
