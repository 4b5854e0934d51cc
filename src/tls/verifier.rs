//! Judges what a client presents: as webpki does, and by the CRLs once more.
//!
//! A certificate that a CRL names is refused wherever it stands in the chain. webpki misses some of them: its path ends
//! at the first certificate of
//! `client_ca`, whose own issuer's CRL it does not ask, and it passes over a CRL whose distribution point the certificate
//! does not have.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    sync::Arc,
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsFault, OtherError, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Serial numbers by the name of their issuer, both in DER.
#[derive(Debug)]
pub(super) struct Revoked(HashMap<Vec<u8>, HashSet<Vec<u8>>>);

impl Revoked {
    /// Takes CRLs that [`check_crls`](super::crls::check_crls) has found good: no two CAs among them share a name.
    pub fn of(crls: &[CertificateRevocationListDer<'_>]) -> Self {
        let mut revoked = HashMap::<_, HashSet<_>>::new();
        for (_, crl) in crls.iter().filter_map(|der| CertificateRevocationList::from_der(der).ok()) {
            let serials = crl.iter_revoked_certificates().map(|one| one.raw_serial().to_vec());
            revoked.entry(crl.issuer().as_raw().to_vec()).or_default().extend(serials);
        }
        Self(revoked)
    }

    /// An unreadable certificate has no name by which it could be looked up, so that nobody may come with it.
    pub fn check(&self, der: &CertificateDer<'_>) -> Result<(), CertificateError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
        let serials = self.0.get(certificate.issuer().as_raw());
        let revoked = serials.is_some_and(|serials| serials.contains(certificate.raw_serial()));
        if revoked { Err(CertificateError::Revoked) } else { Ok(()) }
    }
}

/// All certificates that a client may present, its own included, in bytes of DER. A connection keeps them, twice, until
/// its end.
const CHAIN_BYTES_MAX: usize = 16 * 1024;

/// webpki's verifier, with a limit before it and the CRLs once more after it.
#[derive(Debug)]
pub(super) struct Verifier {
    pub webpki: Arc<dyn ClientCertVerifier>,
    pub revoked: Revoked,
}

impl ClientCertVerifier for Verifier {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsFault> {
        if rest.iter().map(|der| der.len()).sum::<usize>() + leaf.len() > CHAIN_BYTES_MAX {
            let why = Box::<dyn Error + Send + Sync>::from("the certificates presented come to more than 16 KiB");
            return Err(CertificateError::Other(OtherError(why.into())).into());
        }
        let verified = self.webpki.verify_client_cert(leaf, rest, now)?;
        // Without a CRL, certificates beside the path need no check.
        if !self.revoked.0.is_empty() {
            std::iter::once(leaf).chain(rest).try_for_each(|der| self.revoked.check(der))?;
        }
        Ok(verified)
    }

    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    /// No list of CAs' names goes out (RFC 8446, section 4.2.4). A client that finds its own CA not in it shows no
    /// certificate at all, so that nobody learns what is wrong; and a few hundred names are more than many clients
    /// read.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        self.webpki.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        self.webpki.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
