//! The token of a client that lives on.

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

/// Gives the token to one client that lives on, whenever there is another one. Where no tokens are wanted it does nothing.
#[derive(Default)]
pub(super) struct Keeper {
    tokens: Option<Arc<Tokens>>,
    given: Mutex<Option<(Instant, Arc<Token>)>>,
}

/// So often is looked for the next token.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Keeper {
    pub(super) fn new(connection: &Connection) -> Self {
        Self { tokens: connection.tokens(), given: Mutex::default() }
    }

    /// Another client has taken the one's place.
    pub(super) fn begin_again(&self) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// To be called before each request. May block for as long as a token server takes.
    ///
    /// # Errors
    /// Why there is no token that is good now.
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
