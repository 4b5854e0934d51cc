//! A certificate authority that lives as long as a test.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RevokedCertParams,
    RsaKeySize, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, as PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: String,
    pub private_key: String,
    /// Names the certificate in [`Authority::crl`].
    pub serial: SerialNumber,
}

/// Where [`Identity::write`] put the two.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
}

/// What stands in a client's certificate. By default it has no name at all and is valid from yesterday to next year.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    pub cn: Option<String>,
    /// Further attributes of the subject, in the order in which they stand, after the CN.
    pub subject: Vec<(DnType, String)>,
    pub dns: Vec<String>,
    pub uri: Vec<String>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// Without it the certificate says that it is a server's: no client may come with that.
    pub client_auth: bool,
    /// An RSA key of 3,072 bits, dear to make and to verify; else P-256.
    pub rsa: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            cn: None,
            subject: Vec::new(),
            dns: Vec::new(),
            uri: Vec::new(),
            not_before: now - Duration::days(1),
            not_after: now + Duration::days(365),
            client_auth: true,
            rsa: false,
        }
    }
}

impl ClientOptions {
    pub fn cn(cn: &str) -> Self {
        Self { cn: Some(cn.to_owned()), ..Self::default() }
    }

    pub fn dns(name: &str) -> Self {
        Self { cn: Some(name.to_owned()), dns: vec![name.to_owned()], ..Self::default() }
    }

    pub fn uri(uri: &str) -> Self {
        Self { uri: vec![uri.to_owned()], ..Self::default() }
    }

    /// The same, but its time was over an hour ago.
    pub fn expired(mut self) -> Self {
        self.not_after = OffsetDateTime::now_utc() - Duration::hours(1);
        self
    }
}

impl Authority {
    pub fn new(cn: &str) -> Self {
        let issuer = CertifiedIssuer::self_signed(authority(cn), KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// An intermediate CA below this one, and what names it in this one's [`Authority::crl`].
    pub fn below(&self, cn: &str) -> (Self, SerialNumber) {
        let (mut params, serial) = (authority(cn), serial());
        params.serial_number = Some(serial.clone());
        let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.issuer).unwrap();
        (Self { issuer }, serial)
    }

    /// Our certificate: what the other side trusts.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes our certificate to `<dir>/<name>.crt`.
    pub fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(format!("{name}.crt"));
        fs::write(&path, self.pem()).unwrap();
        path
    }

    pub fn server<const N: usize>(&self, dns: &[&str], ips: [impl Into<IpAddr>; N]) -> Identity {
        let mut params = CertificateParams::new(dns.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(ips.map(|ip| SanType::IpAddress(ip.into())));
        params.distinguished_name = common_name(dns.first().copied().unwrap_or("server"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(365);
        self.issue(params, KeyPair::generate().unwrap())
    }

    pub fn client(&self, options: ClientOptions) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(cn) = options.cn {
            params.distinguished_name.push(DnType::CommonName, cn);
        }
        for (kind, value) in options.subject {
            params.distinguished_name.push(kind, value);
        }
        let dns = options.dns.into_iter().map(|name| SanType::DnsName(name.try_into().unwrap()));
        let uri = options.uri.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names = dns.chain(uri).collect();
        params.extended_key_usages = vec![match options.client_auth {
            true => ExtendedKeyUsagePurpose::ClientAuth,
            false => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.not_before = options.not_before;
        params.not_after = options.not_after;
        let key = match options.rsa {
            true => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
            false => KeyPair::generate(),
        };
        self.issue(params, key.unwrap())
    }

    /// A revocation list, as PEM, that names `serials` and is good for a day.
    pub fn crl(&self, serials: &[&SerialNumber]) -> String {
        let now = OffsetDateTime::now_utc();
        self.crl_until(serials, now - Duration::hours(1), now + Duration::days(1))
    }

    /// A revocation list of another time: one whose `next_update` is over, say.
    pub fn crl_until(
        &self,
        serials: &[&SerialNumber],
        this_update: OffsetDateTime,
        next_update: OffsetDateTime,
    ) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).clone(),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: serial(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    fn issue(&self, mut params: CertificateParams, key: KeyPair) -> Identity {
        let serial = serial();
        params.serial_number = Some(serial.clone());
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, private_key: key.serialize_pem(), serial }
    }
}

impl Identity {
    /// Writes `<dir>/<name>.crt` and `<dir>/<name>.key`.
    pub fn write(&self, dir: &Path, name: &str) -> IdentityFiles {
        let files = IdentityFiles {
            certificate: dir.join(format!("{name}.crt")),
            private_key: dir.join(format!("{name}.key")),
        };
        fs::write(&files.certificate, &self.certificate).unwrap();
        fs::write(&files.private_key, &self.private_key).unwrap();
        files
    }
}

/// Numbers that no two certificates of this process share. The first byte keeps them positive and of one length.
fn serial() -> SerialNumber {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = vec![0x01];
    bytes.extend(NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    SerialNumber::from(bytes)
}

fn authority(cn: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(cn);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(365);
    params
}

fn common_name(cn: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, cn);
    name
}
