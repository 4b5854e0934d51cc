//! What `KafkaOptions { secured: true, .. }` adds to a cluster: listeners with TLS and SASL, a user, access control.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::certs::{Authority, ClientOptions, Identity, IdentityFiles};
use super::kafka::Kafka;
use super::tokens::Issuer;
use super::{scratch, wait_until};

/// The plain listener stays open: who comes there is anonymous and may do everything. On the others, a client may do what
/// no ACL forbids; add one with `Kafka::tool("org.apache.kafka.tools.AclCommand", ..)`.
pub struct Security {
    /// The CA of the brokers' certificates and of the client's.
    pub ca: PathBuf,
    /// For the SSL listener: the principal is `User:CN=causeway`.
    pub client: IdentityFiles,
    /// For the SASL listeners, with every mechanism: the principal is `User:causeway`.
    pub user: &'static str,
    pub password: &'static str,
    /// For the SASL listeners of broker 1 alone, with PLAIN and the same password.
    pub user_of_first: &'static str,
    authority: Authority,
    keystore: PathBuf,
    ports: Vec<Ports>,
    /// The signer of the tokens that the listener with OAUTHBEARER takes.
    pub issuer: Issuer,
}

struct Ports {
    sasl_ssl: u16,
    sasl_plain: u16,
    ssl: u16,
}

impl Security {
    /// Makes the certificates in `dir`, and ports for `brokers` brokers.
    pub(super) fn new(dir: &Path, brokers: u16) -> Self {
        let authority = Authority::new("Kafka test CA");
        let keystore = dir.join("broker.pem");
        write_keystore(&authority, &keystore);
        Self {
            ca: authority.write(dir, "kafka-ca"),
            client: authority.client(ClientOptions::cn("causeway")).write(dir, "kafka-client"),
            user: "causeway",
            password: "causeway-secret",
            user_of_first: "first",
            authority,
            keystore,
            ports: (0..brokers).map(|_| Ports::new()).collect(),
            issuer: Issuer::new(dir),
        }
    }

    /// Signs further clients for the SSL listener.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Brokers that start from now on have another certificate.
    pub fn renew_broker_certificate(&self) {
        write_keystore(&self.authority, &self.keystore);
    }

    pub fn sasl_ssl_bootstrap(&self) -> String {
        self.bootstrap(|ports| ports.sasl_ssl)
    }

    /// SASL without TLS.
    pub fn sasl_plaintext_bootstrap(&self) -> String {
        self.bootstrap(|ports| ports.sasl_plain)
    }

    /// TLS with a client certificate.
    pub fn ssl_bootstrap(&self) -> String {
        self.bootstrap(|ports| ports.ssl)
    }

    /// librdkafka's properties for `sasl_ssl_bootstrap`; `mechanism` is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub fn sasl_ssl(&self, mechanism: &str) -> Vec<(&'static str, String)> {
        let mut properties = self.sasl(mechanism);
        properties.push(("security.protocol", "SASL_SSL".to_owned()));
        properties.push(("ssl.ca.location", self.ca.display().to_string()));
        properties
    }

    /// librdkafka's properties for `sasl_plaintext_bootstrap`.
    pub fn sasl_plaintext(&self, mechanism: &str) -> Vec<(&'static str, String)> {
        let mut properties = self.sasl(mechanism);
        properties.push(("security.protocol", "SASL_PLAINTEXT".to_owned()));
        properties
    }

    /// librdkafka's properties for `ssl_bootstrap`.
    pub fn ssl(&self) -> Vec<(&'static str, String)> {
        vec![
            ("security.protocol", "SSL".to_owned()),
            ("ssl.ca.location", self.ca.display().to_string()),
            ("ssl.certificate.location", self.client.certificate.display().to_string()),
            ("ssl.key.location", self.client.private_key.display().to_string()),
        ]
    }

    fn sasl(&self, mechanism: &str) -> Vec<(&'static str, String)> {
        vec![
            ("sasl.mechanism", mechanism.to_owned()),
            ("sasl.username", self.user.to_owned()),
            ("sasl.password", self.password.to_owned()),
        ]
    }

    fn bootstrap(&self, port: impl Fn(&Ports) -> u16) -> String {
        self.ports.iter().map(|it| format!("127.0.0.1:{}", port(it))).collect::<Vec<_>>().join(",")
    }

    /// The address of this broker's listener in a list of them, such as `sasl_ssl_bootstrap`.
    pub fn address(bootstrap: &str, broker: i32) -> String {
        let index = usize::try_from(broker - 1).unwrap();
        bootstrap.split(',').nth(index).unwrap().to_owned()
    }

    /// What follows the plain listener of broker `id` in `listeners` and `advertised.listeners`.
    pub(super) fn listeners(&self, id: i32) -> String {
        let ports = &self.ports[usize::try_from(id - 1).unwrap()];
        format!(
            ",SASL_SSL://127.0.0.1:{},SASL_PLAINTEXT://127.0.0.1:{},SSL://127.0.0.1:{}",
            ports.sasl_ssl, ports.sasl_plain, ports.ssl
        )
    }

    /// The users' SCRAM credentials are records of the cluster's metadata: they can be there from the first moment only
    /// if the format writes them.
    pub(super) fn format_arguments(&self) -> Vec<String> {
        ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .into_iter()
            .flat_map(|it| {
                let user = format!("{it}=[name={},password={}]", self.user, self.password);
                ["--add-scram".to_owned(), user]
            })
            .collect()
    }

    /// The lines of broker `id`'s `server.properties`.
    pub(super) fn properties(&self, id: i32) -> String {
        const LOGIN: &str = "org.apache.kafka.common.security";
        let mut text = format!(
            "\
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
ssl.allow.dn.changes=true
ssl.allow.san.changes=true
listener.name.ssl.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
",
            keystore = self.keystore.display(),
            ca = self.ca.display(),
        );
        for listener in ["sasl_ssl", "sasl_plaintext"] {
            let (user, password) = (self.user, self.password);
            let jaas = |mechanism: &str| format!("listener.name.{listener}.{mechanism}.sasl.jaas.config={LOGIN}");
            let first = format!(" user_{}=\"{password}\"", self.user_of_first);
            let first = if id == 1 { first.as_str() } else { "" };
            let users = format!("user_{user}=\"{password}\"{first}");
            writeln!(text, "{}.plain.PlainLoginModule required {users};", jaas("plain")).unwrap();
            text.push_str(&self.issuer.properties(listener));
            for mechanism in ["scram-sha-256", "scram-sha-512"] {
                writeln!(text, "{}.scram.ScramLoginModule required;", jaas(mechanism)).unwrap();
            }
        }
        text
    }
}

fn write_keystore(authority: &Authority, keystore: &Path) {
    let server = authority.server(&["localhost"], [[127, 0, 0, 1]]);
    fs::write(keystore, format!("{}{}", server.private_key, server.certificate)).unwrap();
}

impl Kafka {
    /// Who connects to this broker's TLS listeners from now on is shown this certificate; open connections stay.
    pub fn show_certificate(&self, broker: i32, identity: &Identity) {
        let keystore = scratch::dir("keystore").join("broker.pem");
        fs::write(&keystore, format!("{}{}", identity.private_key, identity.certificate)).unwrap();
        let location = |listener| format!("listener.name.{listener}.ssl.keystore.location={}", keystore.display());
        self.configure_broker(broker, &format!("{},{}", location("ssl"), location("sasl_ssl")));
        let security = self.security();
        for bootstrap in [security.ssl_bootstrap(), security.sasl_ssl_bootstrap()] {
            let address = Security::address(&bootstrap, broker);
            wait_until("the broker shows its new certificate", || {
                shown(&address).contains(&one_line(&identity.certificate))
            });
        }
    }

    fn configure_broker(&self, broker: i32, config: &str) {
        let broker = broker.to_string();
        let arguments = ["--alter", "--entity-type", "brokers", "--entity-name", &broker, "--add-config", config];
        self.tool("kafka.admin.ConfigCommand", &arguments);
    }
}

/// What openssl says of a server, its certificate in it, without an end of a line.
fn shown(address: &str) -> String {
    let client = Command::new("openssl").args(["s_client", "-connect", address]).stdin(Stdio::null()).output().unwrap();
    one_line(&String::from_utf8_lossy(&client.stdout))
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect()
}

impl Ports {
    fn new() -> Self {
        Self { sasl_ssl: scratch::port(), sasl_plain: scratch::port(), ssl: scratch::port() }
    }
}
