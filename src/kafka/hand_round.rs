//! Gives the lanes' producers the next token in time.

use std::{sync::Arc, time::Duration};

use rdkafka::producer::Producer as _;

use super::{
    Connection,
    lanes::Lanes,
    thread::{Owned, Stop},
    token::{NoToken, Token},
    tokens::Tokens,
};
use crate::metrics::Metrics;

/// The time between two looks for the next token.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Starts the thread that gives each lane's producers the next token in time; `None` where no tokens are needed. The
/// thread ends when `stop` tells it.
pub(super) fn start(
    lanes: &Arc<Lanes>,
    connection: &Connection,
    metrics: &Arc<Metrics>,
    stop: Arc<Stop>,
) -> Option<Owned> {
    let tokens = connection.tokens()?;
    let (lanes, metrics) = (Arc::clone(lanes), Arc::clone(metrics));
    Some(Owned::spawn("token", move || {
        let mut given: Vec<[Option<Given>; 2]> = Vec::new();
        let mut told = None;
        while !stop.is_told_within(LOOK_EVERY) {
            let (token, failed) = tokens.renewed();
            publish(&token, failed.as_ref(), &mut told, &metrics);
            if let Ok(token) = token {
                given.resize_with(lanes.iter().len(), Default::default);
                hand_round(&lanes, &tokens, &token, &mut given);
            }
        }
    }))
}

/// A producer and the token it was given last. The address alone identifies the producer and is never dereferenced.
type Given = (usize, Arc<Token>);

/// Gives `token` to each producer that lacks it. A new producer got a token when it was made, but perhaps the previous
/// one.
fn hand_round(lanes: &Lanes, tokens: &Tokens, token: &Arc<Token>, given: &mut [[Option<Given>; 2]]) {
    for (lane, given) in lanes.iter().zip(given) {
        for (producer, before) in [Some(lane.current()), lane.made_alone()].into_iter().zip(given) {
            let Some(producer) = producer else { continue };
            let place = Arc::as_ptr(&producer).addr();
            if before.as_ref().is_some_and(|(at, known)| *at == place && Arc::ptr_eq(known, token)) {
                continue;
            }
            match tokens.give(producer.client(), token) {
                Ok(()) => *before = Some((place, Arc::clone(token))),
                Err(error) => tracing::warn!(feed = lane.label, %error, "the next token for Kafka is not in use"),
            }
        }
    }
}

/// Shows the token's state in the metrics, and logs each change once.
fn publish(
    token: &Result<Arc<Token>, NoToken>,
    failed: Option<&NoToken>,
    told: &mut Option<(NoToken, bool)>,
    metrics: &Metrics,
) {
    let not_in_use = metrics.reload_refused.with_label_values(&["kafka_token"]);
    not_in_use.set(i64::from(failed.is_some()));
    if let Ok(token) = token {
        metrics.kafka_token_expiry.set(token.ends_ms / 1000);
    }
    let news = failed.map(|why| (why.clone(), token.is_ok()));
    if news == *told {
        return;
    }
    match (failed, token) {
        (None, _) => tracing::info!("there is a new token for Kafka again"),
        (Some(why), Ok(old)) => {
            tracing::warn!(
                remedy = why.remedy,
                "{why}; the one in use is good until {}",
                super::told_time(old.ends_ms)
            );
        }
        (Some(why), Err(_)) => tracing::error!(remedy = why.remedy, "{why}; the last one has ended"),
    }
    *told = news;
}
