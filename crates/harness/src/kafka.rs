//! Apache Kafka: one broker, or a cluster of them, each a broker and a KRaft controller in one process.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;

use super::namespace::Namespace;
use super::process::{Child, Signal};
use super::proxy::Proxy;
use super::security::Security;
use super::{fetch, scratch, tokens, wait_until};

/// Any 16 bytes in base64: clusters of different data folders never meet.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";

#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// 1, or 3 for faults: then topics have three replicas, and `min.insync.replicas` is 2.
    pub brokers: u16,
    /// Adds the listeners, users and access control of [`Security`].
    pub secured: bool,
    /// Adds a listener to each broker that is reached through a [`Proxy`] of its own.
    pub proxied: bool,
    /// The name by which those listeners call themselves: with another one than this, their clients need a DNS.
    pub proxied_host: &'static str,
    /// Controllers in processes of their own; with none, each broker is one.
    pub controllers: u16,
    /// Each broker has a disk of its own of this size, which [`Broker::fill_disk`] fills. Needs root.
    pub disk_mb: Option<u32>,
    pub heap_mb: u32,
    /// Further lines of `server.properties`; they win over ours.
    pub properties: Vec<(String, String)>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            secured: false,
            proxied: false,
            proxied_host: "127.0.0.1",
            controllers: 0,
            disk_mb: None,
            heap_mb: 512,
            properties: Vec::new(),
        }
    }
}

pub struct Kafka {
    brokers: Vec<Broker>,
    /// Those in processes of their own.
    controllers: Vec<Broker>,
    security: Option<Security>,
    proxies: Vec<Proxy>,
    pub(super) admin: AdminClient<DefaultClientContext>,
}

/// One process of the cluster. Its ports and its data stay when it is stopped and started again.
pub struct Broker {
    /// The node id, from 1.
    pub id: i32,
    /// The port of the plain listener.
    pub port: u16,
    dir: PathBuf,
    heap_mb: u32,
    java_options: &'static [&'static str],
    disk: Option<Namespace>,
    process: Mutex<Option<Child>>,
}

impl Kafka {
    /// Starts the brokers and returns when all of them answer.
    pub fn start(options: KafkaOptions) -> Self {
        let dir = scratch::dir("kafka");
        let security = options.secured.then(|| Security::new(&dir, options.brokers));
        let mut nodes: Vec<Node> = (1..).take(options.brokers.into()).map(|id| Node::broker(id, &options)).collect();
        nodes.extend((101..).take(options.controllers.into()).map(Node::controller));
        let voters = nodes.iter().filter(|it| !it.is_broker || options.controllers == 0);
        let voters: Vec<String> = voters.map(|it| format!("{}@127.0.0.1:{}", it.id, it.controller)).collect();
        let make = |node: &Node| {
            let dir = dir.join(format!("broker-{}", node.id));
            fs::create_dir_all(dir.join("data")).unwrap();
            let text = properties(node, &voters.join(","), &dir, &options, security.as_ref());
            fs::write(dir.join("server.properties"), text).unwrap();
            fs::write(dir.join("log4j2.properties"), LOG4J).unwrap();
            // Three that start at once on a small machine are up sooner with the quick compiler alone.
            let java_options: &[_] =
                if options.brokers > 1 { &["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] } else { &[] };
            let port = if node.is_broker { node.plain } else { node.controller };
            let disk = options.disk_mb.map(|size| Namespace::with_disk(&dir.join("data"), size));
            Broker { id: node.id, port, dir, heap_mb: options.heap_mb, java_options, disk, process: Mutex::default() }
        };
        let (brokers, controllers): (Vec<_>, Vec<_>) = nodes.iter().map(make).partition(|it| it.id < 101);
        format(brokers.iter().chain(&controllers), security.as_ref());
        controllers.iter().chain(&brokers).for_each(Broker::start);
        let proxies = nodes.into_iter().filter_map(|node| Some(node.proxied?.1)).collect();
        let kafka = Self { admin: client(&brokers).create().unwrap(), brokers, controllers, security, proxies };
        kafka.wait_ready();
        kafka
    }

    /// The plain listeners: `127.0.0.1:port`, one for each broker, with commas between.
    pub fn bootstrap(&self) -> String {
        bootstrap(&self.brokers)
    }

    /// The same through the proxies. Panics when the cluster was started without `proxied`.
    pub fn proxied_bootstrap(&self) -> String {
        assert!(!self.proxies.is_empty(), "KafkaOptions {{ proxied: true, .. }}");
        self.proxies.iter().map(|proxy| proxy.address.to_string()).collect::<Vec<_>>().join(",")
    }

    /// The wires between the proxied listeners and who uses them, in the order of [`Self::brokers`].
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// A client's configuration with nothing but the plain listeners in it.
    pub fn client(&self) -> ClientConfig {
        client(&self.brokers)
    }

    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// The broker with this node id, as [`Self::leader`] tells it.
    pub fn broker(&self, id: i32) -> &Broker {
        self.brokers.iter().find(|broker| broker.id == id).expect("a broker of this cluster")
    }

    /// The controller of its own that leads the others at the moment. Costs the start of a Java machine.
    pub fn active_controller(&self) -> &Broker {
        let status = self.tool("org.apache.kafka.tools.MetadataQuorumCommand", &["describe", "--status"]);
        let leader = status.lines().find_map(|line| line.strip_prefix("LeaderId:")).expect("LeaderId").trim();
        let leader: i32 = leader.parse().expect("a node id");
        self.controllers.iter().find(|it| it.id == leader).expect("KafkaOptions { controllers: 3, .. }")
    }

    /// What the secured listeners want from a client. Panics when the cluster was started without `secured`.
    pub fn security(&self) -> &Security {
        self.security.as_ref().expect("KafkaOptions { secured: true, .. }")
    }

    /// Waits until all brokers that were started are in the cluster.
    pub fn wait_ready(&self) {
        // A broker that was killed stays in the metadata for a while. But one opens its port only when it has joined.
        let running: Vec<&Broker> =
            self.controllers.iter().chain(&self.brokers).filter(|broker| broker.wait_listening()).collect();
        wait_until("all brokers are in the cluster", || {
            let Ok(metadata) = self.admin.inner().fetch_metadata(None, Duration::from_secs(2)) else { return false };
            let mut brokers = running.iter().filter(|it| it.id < 101);
            brokers.all(|broker| metadata.brokers().iter().any(|it| it.id() == broker.id))
        });
    }

    /// All wires whole, all brokers running again.
    pub fn restore(&self) {
        self.proxies.iter().for_each(Proxy::heal);
        for broker in self.brokers.iter().chain(&self.controllers) {
            if broker.runs() {
                broker.resume();
            } else {
                broker.start();
            }
        }
        self.wait_ready();
    }

    /// Runs one of Kafka's own command-line tools, such as `org.apache.kafka.tools.AclCommand`, and returns what it
    /// printed. Each costs the start of a Java machine, some 2 s. `--bootstrap-server` is added.
    pub fn tool(&self, class: &str, args: &[&str]) -> String {
        let dir = scratch::dir("tool");
        fs::write(dir.join("log4j2.properties"), LOG4J).unwrap();
        let mut command = java(&dir, 128);
        command.args([class, "--bootstrap-server", &self.bootstrap()]).args(args);
        let mut tool = Child::spawn("tool", &command, &dir);
        assert!(tool.wait().success(), "{class}\n{}", tool.tail());
        tool.stdout()
    }
}

impl Broker {
    /// Starts the process; `Kafka::wait_ready` waits for it.
    pub fn start(&self) {
        let mut command = java(&self.dir, self.heap_mb);
        command.args(self.java_options).arg("kafka.Kafka").arg(self.dir.join("server.properties"));
        let child = Child::spawn("kafka", &self.on_disk(command), &self.dir);
        let before = self.process.lock().unwrap().replace(child);
        assert!(before.is_none(), "broker {} runs already", self.id);
    }

    /// Ends it at once (SIGKILL), as a machine that goes away. Its session lives on: others take its partitions over after
    /// `broker.session.timeout.ms` (9 s; see [`KafkaOptions::properties`]), and until then it can't join again either.
    pub fn kill(&self) {
        self.process.lock().unwrap().take();
    }

    /// Ends it in order (SIGTERM): it hands its partitions over before it goes.
    pub fn stop(&self) {
        let mut process = self.process.lock().unwrap().take().expect("the broker runs");
        process.signal(Signal::Terminate);
        process.wait();
    }

    /// Leaves no byte free on the broker's disk.
    pub fn fill_disk(&self) {
        let disk = self.disk.as_ref().expect("KafkaOptions { disk_mb: Some(..), .. }");
        let Ok(mut ballast) = fs::File::create(disk.path(&self.dir.join("data/ballast"))) else { return };
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    pub fn free_disk(&self) {
        let disk = self.disk.as_ref().expect("KafkaOptions { disk_mb: Some(..), .. }");
        let _ = fs::remove_file(disk.path(&self.dir.join("data/ballast")));
    }

    fn on_disk(&self, command: Command) -> Command {
        match &self.disk {
            Some(disk) => disk.enter(&command),
            None => command,
        }
    }

    /// Lets it stand still (SIGSTOP): connections stay open, nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::Stop);
    }

    pub fn resume(&self) {
        self.signal(Signal::Continue);
    }

    /// Started, and neither killed nor ended by itself.
    pub fn runs(&self) -> bool {
        let mut process = self.process.lock().unwrap();
        if process.as_mut().is_some_and(|it| it.exited().is_some()) {
            process.take();
        }
        process.is_some()
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.lock().unwrap().as_ref().expect("the broker runs").pid()
    }

    fn signal(&self, signal: Signal) {
        self.process.lock().unwrap().as_ref().expect("the broker runs").signal(signal);
    }

    /// False, at once, when the broker is not started.
    fn wait_listening(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut process = self.process.lock().unwrap();
        let Some(process) = process.as_mut() else { return false };
        process.wait_ready(|| TcpStream::connect(address).is_ok());
        true
    }
}

fn bootstrap(brokers: &[Broker]) -> String {
    brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect::<Vec<_>>().join(",")
}

fn client(brokers: &[Broker]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap(brokers));
    // Tests restart brokers; the default's 10 s between two tries would be spent waiting.
    config.set("reconnect.backoff.max.ms", "500");
    // A broker that stands still is left for another one after this time, not after a minute.
    config.set("socket.timeout.ms", "5000");
    config
}

struct Node {
    id: i32,
    is_broker: bool,
    plain: u16,
    controller: u16,
    /// The listener's port, and what its clients are told instead.
    proxied: Option<(u16, Proxy)>,
}

impl Node {
    fn broker(id: i32, options: &KafkaOptions) -> Self {
        let proxied = options.proxied.then(|| {
            let port = scratch::port();
            (port, Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
        });
        Self { id, is_broker: true, plain: scratch::port(), controller: scratch::port(), proxied }
    }

    fn controller(id: i32) -> Self {
        Self { id, is_broker: false, plain: 0, controller: scratch::port(), proxied: None }
    }
}

/// Writes each broker's id and, with `secured`, the users' SCRAM credentials into its empty data folder.
fn format<'b>(brokers: impl Iterator<Item = &'b Broker>, security: Option<&Security>) {
    let users = security.map(Security::format_arguments).unwrap_or_default();
    let start = |broker: &Broker| {
        let mut command = java(&broker.dir, 128);
        command.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]);
        command.arg(broker.dir.join("server.properties")).args(&users);
        Child::spawn("format", &broker.on_disk(command), &broker.dir)
    };
    let running: Vec<Child> = brokers.map(start).collect();
    for mut child in running {
        assert!(child.wait().success(), "can't format\n{}", child.tail());
    }
}

fn java(dir: &Path, heap_mb: u32) -> Command {
    let mut command = Command::new(fetch::java());
    command.arg(format!("-Xmx{heap_mb}m"));
    // What a killed Java machine would leave in /tmp: performance data, and native libraries that were unpacked.
    command.arg("-XX:-UsePerfData").arg(format!("-Djava.io.tmpdir={}", dir.display()));
    command.arg(format!("-Dlog4j2.configurationFile={}", dir.join("log4j2.properties").display()));
    // Kafka reads the keys of who signs tokens from no place that is not named here.
    command
        .arg(format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={}", tokens::keys_url(dir.parent().unwrap())));
    command.arg("-cp").arg(fetch::kafka().join("*")).current_dir(dir);
    command
}

/// To standard error, which [`Child`] sends to `kafka.err` in the broker's folder; so a tool's output has no log in it.
const LOG4J: &str = "\
appender.out.type = Console
appender.out.name = out
appender.out.target = SYSTEM_ERR
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1} - %m%n
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
logger.config.name = org.apache.kafka.common.config
logger.config.level = WARN
";

fn properties(node: &Node, voters: &str, dir: &Path, options: &KafkaOptions, security: Option<&Security>) -> String {
    let replicas = options.brokers.min(3);
    let in_sync = if replicas == 3 { 2 } else { 1 };
    let controller = format!("CONTROLLER://127.0.0.1:{}", node.controller);
    let roles = if !node.is_broker {
        format!("process.roles=controller\nlisteners={controller}\n")
    } else {
        let plain = format!("PLAINTEXT://127.0.0.1:{}", node.plain);
        let secured = security.map(|it| it.listeners(node.id)).unwrap_or_default();
        let (proxied, proxied_told) = node.proxied.as_ref().map_or_else(Default::default, |(port, proxy)| {
            let told = format!(",PROXIED://{}:{}", options.proxied_host, proxy.address.port());
            (format!(",PROXIED://127.0.0.1:{port}"), told)
        });
        let advertised = format!("advertised.listeners={plain}{secured}{proxied_told}\n");
        let inter_broker = "inter.broker.listener.name=PLAINTEXT\n";
        if options.controllers == 0 {
            let listeners = format!("listeners={plain},{controller}{secured}{proxied}\n");
            format!("process.roles=broker,controller\n{listeners}{advertised}{inter_broker}")
        } else {
            format!("process.roles=broker\nlisteners={plain}{secured}{proxied}\n{advertised}{inter_broker}")
        }
    };
    let mut text = format!(
        "\
{roles}node.id={id}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,\
SASL_SSL:SASL_SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
min.insync.replicas={in_sync}
default.replication.factor={replicas}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
",
        id = node.id,
        data = dir.join("data").display(),
    );
    // Allocated at the start; its default is a quarter of the heap.
    text.push_str("log.cleaner.dedupe.buffer.size=8388608\n");
    text.push_str(&security.map(|it| it.properties(node.id)).unwrap_or_default());
    for (key, value) in &options.properties {
        writeln!(text, "{key}={value}").unwrap();
    }
    text
}
