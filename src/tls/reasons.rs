//! The reasons of failed handshakes, in the fixed words of a metric's label.

use rustls::{CertificateError, Error as TlsFault};

/// The reason of a handshake that took longer than [`HANDSHAKE_MAX`](super::HANDSHAKE_MAX).
pub const TIMED_OUT: &str = "timeout";

/// The reason of a failed handshake, as a metric's label: a fixed word.
pub fn failure_reason(error: &std::io::Error) -> &'static str {
    let Some(fault) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsFault>()) else {
        return if error.kind() == std::io::ErrorKind::UnexpectedEof { "closed" } else { "io" };
    };
    reason_of(fault)
}

/// The reason for rustls' own error, as a metric's label.
pub fn reason_of(fault: &TlsFault) -> &'static str {
    match fault {
        TlsFault::NoCertificatesPresented => "no_certificate",
        TlsFault::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => "expired",
        TlsFault::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "not_valid_yet"
        }
        TlsFault::InvalidCertificate(CertificateError::Revoked) => "revoked",
        TlsFault::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => "unknown_ca",
        TlsFault::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => "wrong_purpose",
        TlsFault::InvalidCertificate(_) => "bad_certificate",
        TlsFault::PeerIncompatible(_) | TlsFault::NoApplicationProtocol => "incompatible",
        TlsFault::AlertReceived(_) => "refused_by_client",
        TlsFault::InvalidMessage(_)
        | TlsFault::PeerMisbehaved(_)
        | TlsFault::InappropriateMessage { .. }
        | TlsFault::InappropriateHandshakeMessage { .. } => "not_tls",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use rustls::{AlertDescription, InvalidMessage, PeerIncompatible};

    use super::*;
    use crate::metrics::HANDSHAKE_FAILURES;

    #[test]
    fn every_reason_is_counted_from_the_start() {
        let mut reasons: Vec<_> = [
            CertificateError::Expired,
            CertificateError::NotValidYet,
            CertificateError::Revoked,
            CertificateError::UnknownIssuer,
            CertificateError::InvalidPurpose,
            CertificateError::BadEncoding,
        ]
        .map(TlsFault::InvalidCertificate)
        .into_iter()
        .chain([
            TlsFault::NoCertificatesPresented,
            TlsFault::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            TlsFault::AlertReceived(AlertDescription::BadCertificate),
            TlsFault::InvalidMessage(InvalidMessage::InvalidContentType),
            TlsFault::DecryptError,
        ])
        .map(|fault| reason_of(&fault))
        .chain([ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].map(|kind| failure_reason(&Error::from(kind))))
        .chain([TIMED_OUT])
        .collect();
        reasons.sort_unstable();
        assert_eq!(reasons, HANDSHAKE_FAILURES);
    }
}
