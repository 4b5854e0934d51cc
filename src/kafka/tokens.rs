//! Tokens for SASL/OAUTHBEARER: fetched from a token server or a file, given to each client, renewed before they end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{ClientContext, client::Client};

use super::{
    millis_now,
    native::set_token,
    token::{NoToken, Token},
    token_server,
};
use crate::config::{OAuth, TokenSource};

/// The key of the file that holds the token.
const FILE_KEY: &str = "kafka.client.sasl.oauthbearer.token_file";

const NOT_RENEWED: &str =
    "whoever writes this file must renew it: on Kubernetes a projected volume does, a copy of one does not";

/// The pause after a try that failed.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// The token of all clients of one connection.
pub(super) struct Tokens {
    oauth: OAuth,
    latest: Mutex<Option<Arc<Token>>>,
    /// The reason and the time of the last failed try. The lock's holder fetches the next token.
    tries: Mutex<Option<(NoToken, Instant)>>,
}

impl Tokens {
    pub(super) fn new(oauth: OAuth) -> Self {
        Self { oauth, latest: Mutex::default(), tries: Mutex::default() }
    }

    /// The last token, if it is still valid; asks nobody.
    pub(super) fn latest(&self) -> Option<Arc<Token>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|token| token.ends_ms > millis_now())
    }

    /// A token that is valid now. When a new one is due it is fetched first; if that fails the old one is used to its
    /// end. Blocks.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(super) fn current(&self) -> Result<Arc<Token>, NoToken> {
        self.renewed().0
    }

    /// As [`Self::current`]; and the reason of the last try's failure, if it failed.
    pub(super) fn renewed(&self) -> (Result<Arc<Token>, NoToken>, Option<NoToken>) {
        let is_good = |token: &Arc<Token>| token.renew_from_ms > millis_now();
        if let (TokenSource::Endpoint(_), Some(token)) = (&self.oauth.source, self.latest().filter(is_good)) {
            return (Ok(token), None);
        }
        // Many clients may want a token at the same time: the others wait for the one that asks.
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.latest();
        let failed = match &*tries {
            _ if matches!(self.oauth.source, TokenSource::Endpoint(_)) && old.as_ref().is_some_and(is_good) => None,
            Some((why, at)) if at.elapsed() < TRY_AGAIN => Some(why.clone()),
            Some(_) | None => self.fetch(old.as_deref()).err(),
        };
        let Some(why) = failed else {
            *tries = None;
            return (self.latest().ok_or_else(|| NoToken::new("it has ended", "is this machine's clock right?")), None);
        };
        if tries.as_ref().is_none_or(|(_, at)| at.elapsed() >= TRY_AGAIN) {
            *tries = Some((why.clone(), Instant::now()));
        }
        (old.ok_or_else(|| why.clone()), Some(why))
    }

    fn fetch(&self, old: Option<&Token>) -> Result<(), NoToken> {
        let fresh = match &self.oauth.source {
            TokenSource::Endpoint(endpoint) => token_server::ask(endpoint)?,
            TokenSource::File(file) => {
                let named = || format!("{FILE_KEY} names {}", file.display());
                let text = std::fs::read_to_string(file).map_err(|error| {
                    NoToken::new(format!("{}, which cannot be read: {error}", named()), "name a readable file")
                })?;
                if let Some(old) = old.filter(|old| old.value == text.trim()) {
                    return old.not_late().map_err(|why| NoToken::new(format!("{}, {why}", named()), NOT_RENEWED));
                }
                let fresh = Token::new(text.trim(), None, "").map_err(|why| {
                    NoToken::new(format!("{}: {why}", named()), "have a JWT alone written there, with its end (`exp`)")
                })?;
                if fresh.ends_ms <= millis_now() {
                    let ended = super::told_time(fresh.ends_ms);
                    return Err(NoToken::new(format!("{}, whose token ended at {ended}", named()), NOT_RENEWED));
                }
                fresh
            }
        };
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(fresh));
        Ok(())
    }

    /// Gives a client the token.
    ///
    /// # Errors
    /// librdkafka does not take it.
    pub(super) fn give<C: ClientContext>(&self, client: &Client<C>, token: &Token) -> Result<(), NoToken> {
        set_token(client, token, &self.oauth.extensions)
            .map_err(|why| NoToken::new(format!("librdkafka does not take it: {why}"), "is it a token?"))
    }
}
