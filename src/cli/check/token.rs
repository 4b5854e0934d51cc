//! The token for Kafka: its principal, and when it ends.

use crate::{
    cli::findings::{Findings, Level},
    kafka::{Connection, millis_now, told_time},
};

/// Adds a finding about the token. Returns false if a token is needed and there is none.
pub fn look(connection: &Connection, findings: &mut Findings) -> bool {
    match connection.token() {
        None => true,
        Some(Ok(token)) => {
            let left = (token.ends_ms - millis_now()).max(0) / 1000;
            let ends = told_time(token.ends_ms);
            findings.ok("token", format!("for {}, ends {ends}, in {}", token.principal, in_words(left)));
            true
        }
        Some(Err(why)) => {
            findings.add(Level::Error, "token", why.to_string(), why.remedy);
            false
        }
    }
}

fn in_words(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
