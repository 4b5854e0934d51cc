//! The outcome of an attempt.

use std::{error::Error, fmt, io};

/// The outcome of one attempt, as the sender sees it. Only `Status(200)` is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An HTTP answer with this status.
    Status(u16),
    /// No answer came in time.
    Timeout,
    /// No TCP connection could be opened.
    Connect,
    /// The TLS handshake failed, or one side refused the other's certificate.
    Tls,
    /// The connection ended before the answer.
    Closed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(out, "{status}"),
            Self::Timeout => out.write_str("timeout"),
            Self::Connect => out.write_str("connect"),
            Self::Tls => out.write_str("tls"),
            Self::Closed => out.write_str("closed"),
        }
    }
}

/// The error of an attempt without an answer.
#[derive(Debug, Clone)]
pub struct Broken {
    /// The kind of error.
    pub outcome: Outcome,
    /// The error in words.
    pub reason: String,
    /// The remedy, if a wrong flag is a more likely cause than a passing fault.
    pub remedy: Option<&'static str>,
}

impl Broken {
    /// No answer came in time.
    pub fn timeout() -> Self {
        Self { outcome: Outcome::Timeout, reason: "no answer in time".to_owned(), remedy: None }
    }

    /// No TCP connection could be opened, for this reason.
    pub fn connect(reason: String, remedy: Option<&'static str>) -> Self {
        Self { outcome: Outcome::Connect, reason, remedy }
    }

    /// The TLS connection is of no use, for this reason.
    pub fn tls(reason: &str, remedy: &'static str) -> Self {
        Self { outcome: Outcome::Tls, reason: reason.to_owned(), remedy: Some(remedy) }
    }

    /// The connection ended before the answer.
    pub fn closed() -> Self {
        Self { outcome: Outcome::Closed, reason: "the connection ended before the answer".to_owned(), remedy: None }
    }

    /// Searches an error's chain of causes for a TLS error.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        let mut last = error;
        while let Some(error) = cause {
            if let Some(fault) = tls_fault(error) {
                return Self { outcome: Outcome::Tls, reason: fault.to_string(), remedy: tls_remedy(fault) };
            }
            last = error;
            cause = error.source();
        }
        Self { outcome: Outcome::Closed, reason: last.to_string(), remedy: None }
    }
}

/// Takes the TLS error out of `error`. For an `io::Error` the inner error must be asked for, because `source` skips it.
fn tls_fault<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.downcast_ref().or_else(|| inner?.downcast_ref())
}

fn tls_remedy(fault: &rustls::Error) -> Option<&'static str> {
    if let rustls::Error::InvalidCertificate(_) = fault {
        return Some("give the CA of the server's certificate with --ca, and its name in --url");
    }
    matches!(fault, rustls::Error::AlertReceived(_))
        .then_some("the server does not take this client certificate: give another with --cert and --key")
}
