//! The bridge under test: the real binary, with topics of its own on the shared broker.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::Value as Json;

use super::{
    certs::{Authority, ClientOptions, Identity},
    client::{Http, Sender},
    kafka::Kafka,
    namespace::Namespace,
    process::{Child, Signal},
    registry::Registry,
    scratch, stopwatch,
};

/// The DNS name in the certificate of [`Bridge::sender`], which the allow-list has.
pub const SENDER: &str = "sender.asapp.example";

/// What a bridge is started with. Settings are keys of the configuration file.
pub struct Setup {
    /// Before every topic's name, so that tests can share a broker.
    pub prefix: String,
    pub dir: PathBuf,
    pub authority: Authority,
    settings: Vec<(String, String)>,
    toml: String,
    within: Option<Arc<Namespace>>,
    cores: Option<usize>,
    environment: Vec<(String, String)>,
}

pub struct Bridge {
    pub setup: Setup,
    pub child: Child,
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
}

impl Setup {
    /// A bridge to `kafka`, with values in the registry's wire format when there is one.
    pub fn new(kafka: &Kafka, registry: Option<&Registry>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = scratch::dir("bridge");
        let authority = Authority::new("Test sender CA");
        authority.write(&dir, "ca");
        authority.server(&["localhost"], [[127, 0, 0, 1]]).write(&dir, "server");
        let mut setup = Self {
            prefix,
            dir,
            authority,
            settings: Vec::new(),
            toml: String::new(),
            within: None,
            cores: None,
            environment: Vec::new(),
        };
        for (key, value) in [
            ("ingress.listen", "127.0.0.1:0"),
            ("admin.listen", "127.0.0.1:0"),
            ("ingress.tls.client_names", &format!("dns:{SENDER}")),
            ("kafka.brokers", &kafka.bootstrap()),
            ("kafka.create_topics", "true"),
            ("kafka.topics.partitions", "3"),
            ("kafka.topics.replication", "-1"),
        ] {
            setup = setup.set(key, value);
        }
        for feed in ["activity", "journey", "queue", "other"] {
            let topic = setup.topic(feed);
            setup = setup.set(&format!("feeds.{feed}.topic"), &topic);
        }
        let dead_letters = setup.topic("dead-letter");
        setup = setup.set("dead_letter.topic", &dead_letters);
        match registry {
            Some(registry) => setup.set("registry.url", registry.url()).set("registry.auto_register", "true"),
            None => setup,
        }
    }

    /// The topic of a feed, or of the dead letters.
    pub fn topic(&self, feed: &str) -> String {
        format!("{}.{feed}", self.prefix)
    }

    /// Sets a key of the configuration, over what was set before.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Takes a key back to its default.
    pub fn unset(mut self, key: &str) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self
    }

    /// Adds lines to the configuration file, whose paths are relative to [`Setup::dir`].
    pub fn toml(mut self, lines: &str) -> Self {
        self.toml.push_str(lines);
        self.toml.push('\n');
        self
    }

    /// Runs it in a file system of its own.
    pub fn within(self, namespace: &Arc<Namespace>) -> Self {
        Self { within: Some(Arc::clone(namespace)), ..self }
    }

    /// Runs it on the first so many cores; what else runs may use them too.
    pub fn cores(self, cores: usize) -> Self {
        Self { cores: Some(cores), ..self }
    }

    /// A variable that is no key of the configuration.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command with this configuration: `causeway <arguments>`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let file = self.dir.join("causeway.toml");
        let tls = "[ingress.tls]\ncertificate = \"server.crt\"\nprivate_key = \"server.key\"\nclient_ca = \"ca.crt\"\n";
        fs::write(&file, format!("{tls}{}", self.toml)).unwrap();
        let program = scratch::causeway();
        let mut command = match self.cores {
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &format!("0-{}", cores - 1)]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments).current_dir(&self.dir).env("CAUSEWAY_CONFIG", &file).env("CAUSEWAY_LOG", "info");
        for (key, value) in &self.settings {
            command.env(format!("CAUSEWAY_{}", key.to_uppercase().replace('.', "__")), value);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        match &self.within {
            Some(namespace) => namespace.enter(&command),
            None => command,
        }
    }

    /// Starts the bridge and waits until it accepts events.
    pub fn start(self) -> Bridge {
        self.patient().start_as_it_is()
    }

    /// A test that says nothing of the sender's timeout does not ask how soon: its sender is as patient as the machine is slow.
    fn patient(self) -> Self {
        const KEY: &str = "sender.timeout_ms";
        if self.settings.iter().any(|(known, _)| known == KEY) {
            return self;
        }
        self.set(KEY, &stopwatch::lately_ms(Duration::from_secs(5)))
    }

    fn start_as_it_is(self) -> Bridge {
        let ready = self.dir.join("ready.json");
        let _ = fs::remove_file(&ready);
        let command = self.command(&["serve", "--ready-file", "ready.json"]);
        let mut child = Child::spawn("causeway", &command, &self.dir);
        let mut addresses = Json::Null;
        child.wait_ready(|| {
            addresses = fs::read(&ready).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
            !addresses.is_null()
        });
        let address = |name: &str| addresses[name].as_str().unwrap().parse().unwrap();
        Bridge { ingress: address("ingress"), admin: address("admin"), child, setup: self }
    }

    /// A certificate of the CA that the bridge trusts.
    pub fn identity(&self, options: ClientOptions) -> Identity {
        self.authority.client(options)
    }
}

impl Bridge {
    /// A sender on the allow-list.
    pub fn sender(&self, http: Http) -> Sender {
        self.sender_as(&self.setup.identity(ClientOptions::dns(SENDER)), http)
    }

    pub fn sender_as(&self, identity: &Identity, http: Http) -> Sender {
        Sender::new(self.ingress, &self.setup.authority.pem(), Some(identity), http)
    }

    pub fn topic(&self, feed: &str) -> String {
        self.setup.topic(feed)
    }

    /// GET on the admin port: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent.get(format!("http://{}{path}", self.admin)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    /// The sum of a metric's series whose labels contain all of `labels`, such as `feed="queue"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics");
        let series = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
                && labels.iter().all(|label| line.contains(label))
        });
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Stops it as an orchestrator does, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.child.signal(Signal::Terminate);
        self.child.wait()
    }
}
