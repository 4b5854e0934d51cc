//! Keeps the token of one long-lived client up to date.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{ClientContext, client::Client};

use super::{
    Connection,
    token::{NoToken, Token},
    tokens::Tokens,
};

/// Gives each new token to one long-lived client. It does nothing where no tokens are needed.
#[derive(Default)]
pub(super) struct Keeper {
    tokens: Option<Arc<Tokens>>,
    given: Mutex<Option<(Instant, Arc<Token>)>>,
}

/// The time between two looks for the next token.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Keeper {
    pub(super) fn new(connection: &Connection) -> Self {
        Self { tokens: connection.tokens(), given: Mutex::default() }
    }

    /// Forgets the given token, as another client has replaced the one that had it.
    pub(super) fn begin_again(&self) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Gives the client a new token where there is one. Call it before each request; it blocks for as long as a token
    /// server takes.
    ///
    /// # Errors
    /// [`NoToken`]: no token is valid at present.
    pub(super) fn keep<C: ClientContext>(&self, client: &Client<C>) -> Result<(), NoToken> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.as_ref().is_some_and(|(at, _)| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        let token = tokens.current()?;
        if given.as_ref().is_none_or(|(_, before)| !Arc::ptr_eq(before, &token)) {
            tokens.give(client, &token)?;
        }
        *given = Some((Instant::now(), token));
        Ok(())
    }
}
