//! Throw-away certificates for `dev`: those of a CA, a server and a sender.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use time::{Duration, OffsetDateTime};

use super::Failure;
use crate::tls::not_after;

/// The files of `dev`'s certificates and keys.
pub struct Certificates {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The server's certificate.
    pub server: PathBuf,
    /// The server's key.
    pub server_key: PathBuf,
    /// The sender's certificate.
    pub sender: PathBuf,
    /// The sender's key.
    pub sender_key: PathBuf,
}

/// The name in the sender's certificate, which is on `dev`'s allow-list.
pub const SENDER: &str = "sender.causeway.example";

const VALID: Duration = Duration::days(90);
/// Certificates that end sooner than this are replaced.
const RENEW_BEFORE: Duration = Duration::days(1);

impl Certificates {
    /// The certificates in `dir`, all replaced if one is missing or about to expire.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn in_dir(dir: &Path) -> Result<Self, Failure> {
        let files = Self {
            ca: dir.join("ca.crt"),
            server: dir.join("server.crt"),
            server_key: dir.join("server.key"),
            sender: dir.join("sender.crt"),
            sender_key: dir.join("sender.key"),
        };
        if !files.usable() {
            files.make().map_err(|error| {
                Failure::new(format!("certificates could not be made in {}: {error}", dir.display()))
            })?;
        }
        Ok(files)
    }

    fn usable(&self) -> bool {
        let soon = (OffsetDateTime::now_utc() + RENEW_BEFORE).unix_timestamp();
        let lasts = |file: &Path| {
            CertificateDer::from_pem_file(file).ok().and_then(|der| not_after(&der)).is_some_and(|end| end > soon)
        };
        let is_key = |file: &Path| PrivateKeyDer::from_pem_file(file).is_ok();
        [&self.ca, &self.server, &self.sender].into_iter().all(|file| lasts(file))
            && [&self.server_key, &self.sender_key].into_iter().all(|file| is_key(file))
    }

    /// Creates all files. The CA's certificate is removed first and written last, so that after a failure in between,
    /// as on a full disk, the next start creates all of them again.
    fn make(&self) -> Result<(), Box<dyn std::error::Error>> {
        if self.ca.exists() {
            fs::remove_file(&self.ca)?;
        }
        let ca_key = KeyPair::generate()?;
        let mut ca = params("Causeway dev CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_certificate = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);

        let mut server = params("Causeway dev server");
        server.subject_alt_names =
            CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?
                .subject_alt_names;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        fs::write(&self.server, server.signed_by(&key, &issuer)?.pem())?;
        write_key(&self.server_key, &key)?;

        let mut sender = params("Causeway dev sender");
        sender.subject_alt_names = CertificateParams::new([SENDER.to_owned()])?.subject_alt_names;
        sender.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        fs::write(&self.sender, sender.signed_by(&key, &issuer)?.pem())?;
        write_key(&self.sender_key, &key)?;
        let partial = self.ca.with_extension("partial");
        fs::write(&partial, ca_certificate)?;
        fs::rename(partial, &self.ca)?;
        Ok(())
    }
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::hours(1);
    params.not_after = now + VALID;
    params
}

/// Writes a key that only its owner can read.
fn write_key(file: &Path, key: &KeyPair) -> std::io::Result<()> {
    let _ = fs::remove_file(file);
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    out.write_all(key.serialize_pem().as_bytes())
}
