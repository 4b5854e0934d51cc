//! `causeway dev`: everything in one process, with nothing to set up.

use std::{
    fs::{self, File, TryLockError},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use console::style;

use super::{
    Exit, Failure, bridge_runtime,
    certificates::{Certificates, SENDER},
    decode::{Decoder, text_line},
    findings::say,
    stop_signal,
    target::{self, Dev},
};
use crate::{
    config::Config,
    kafka::{
        Connection,
        embedded::EmbeddedBroker,
        follower::{Follower, Heard},
        progress,
        reader::Start,
    },
    serve::{Addresses, Bound, Run},
};

/// Run everything in one process: a Kafka-protocol broker, throw-away certificates, schemas and the bridge.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  causeway dev                                  post the curl line that it prints
  causeway dev --brokers localhost:9092         the same with a real cluster; topics are created
  causeway dev --port 0 --admin-port 0 --ready-file ready.json    free ports, for scripts

The embedded broker keeps some 5 MB a partition, in memory only: it is for trying things, not for
events that matter. CAUSEWAY_KAFKA__BROKERS and the ports in the environment are ignored here.")]
pub struct Args {
    /// The port that takes events; 0 takes a free one.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// The port of /livez, /readyz, /metrics and the schema registry's read endpoints; 0 takes a free one.
    #[arg(long, default_value_t = 9090)]
    admin_port: u16,
    /// A real cluster instead of the embedded broker.
    #[arg(long, value_name = "HOST:PORT,...")]
    brokers: Option<String>,
    /// Where to keep certificates, configuration and samples.
    #[arg(long, default_value = ".causeway", value_name = "DIR")]
    dir: PathBuf,
    /// When ready, write the contents of dev.json into this file too.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Print no line per committed event.
    #[arg(long, short)]
    quiet: bool,
}

/// Partitions of each topic of the embedded broker.
const PARTITIONS: i32 = 3;

const SAMPLES: [(&str, &str); 3] = [
    ("activity.json", include_str!("samples/activity.json")),
    ("journey.json", include_str!("samples/journey.json")),
    ("queue.json", include_str!("samples/queue.json")),
];

pub fn run(args: &Args) -> Result<Exit, Failure> {
    fs::create_dir_all(&args.dir)
        .map_err(|error| Failure::new(format!("{}: {error}; choose another folder with --dir", args.dir.display())))?;
    let _folder = take(&args.dir)?;
    let certificates = Certificates::in_dir(&args.dir)?;
    for (name, sample) in SAMPLES {
        write(&args.dir.join(name), sample)?;
    }
    let embedded = if args.brokers.is_none() { Some(EmbeddedBroker::start().map_err(Failure::new)?) } else { None };
    let brokers = embedded.as_ref().map_or_else(|| args.brokers.clone().unwrap_or_default(), EmbeddedBroker::brokers);
    let file = args.dir.join("causeway.toml");
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let wanted = Addresses { ingress: loopback(args.port), admin: loopback(args.admin_port) };
    // The file is written once the bridge is ready: until then the folder may belong to another `dev` that runs.
    let config = target::load_text(&file, &toml(&wanted, &brokers, &certificates), &own(&wanted, &brokers))?;
    if let Some(broker) = &embedded {
        for topic in config.topics() {
            broker.create_topic(&topic, PARTITIONS).map_err(|error| Failure::new(format!("topic {topic}: {error}")))?;
        }
    }
    let announced = OnceLock::new();
    let ended = bridge_runtime()?.block_on(async {
        let stop = stop_signal()?;
        let bound = Bound::new(config, Run::Dev { embedded: args.brokers.is_none() }).map_err(Failure::new)?;
        let started = |addresses: &Addresses| {
            let dev = args.dev(addresses, &brokers, &certificates, &file);
            let announcement = args.announce(&dev, addresses, &toml(addresses, &brokers, &certificates));
            if announcement.is_err() {
                stop.cancel();
            }
            let _ = announced.set(announcement);
        };
        bound.run(stop.clone(), started).await.map_err(Failure::new)
    });
    forget(&args.dir.join("dev.json"));
    // The process ends the broker. Dropping it earlier would make its reader log errors.
    std::mem::forget(embedded);
    let ended = ended?;
    announced.into_inner().unwrap_or(Ok(()))?;
    Ok(if ended.given_up == 0 { Exit::Done } else { Exit::NotCommitted })
}

/// Takes the folder for this process until the file is closed: two processes would overwrite each other's files.
fn take(dir: &Path) -> Result<File, Failure> {
    let file = dir.join("lock");
    let lock = File::create(&file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Failure::new(format!(
            "another `causeway dev` runs with {}: stop it, or choose another folder with --dir",
            dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(Failure::new(format!("{}: {error}", file.display()))),
    }
}

impl Args {
    fn dev(&self, addresses: &Addresses, brokers: &str, certificates: &Certificates, config: &Path) -> Dev {
        Dev {
            pid: std::process::id(),
            url: format!("https://localhost:{}/", addresses.ingress.port()),
            admin: format!("http://{}", addresses.admin),
            brokers: brokers.to_owned(),
            embedded: self.brokers.is_none(),
            config: config.to_owned(),
            ca: certificates.ca.clone(),
            certificate: certificates.sender.clone(),
            key: certificates.sender_key.clone(),
        }
    }

    /// Writes the files for the other commands, prints the announcement, and begins to show events.
    fn announce(&self, dev: &Dev, addresses: &Addresses, toml: &str) -> Result<(), Failure> {
        write(&dev.config, toml)?;
        let json = serde_json::to_string_pretty(&dev.absolute()?).map_err(Failure::new)?;
        let config = target::load(&dev.config, &own(addresses, &dev.brokers))?;
        if !self.quiet {
            show_events(&config)?;
        }
        let broker = if dev.embedded { " (embedded, in memory)" } else { "" };
        let dir = self.dir.display();
        let other_dir = if self.dir == Path::new(".causeway") { String::new() } else { format!(" --dir {dir}") };
        // A failure to print is ignored: the bridge works without it.
        let _ = say(format_args!(
            "\
{title}
  events    {url}  (mutual TLS)
  kafka     {brokers}{broker}
  admin     {admin}  /readyz /metrics, and the schema registry's read endpoints

Post a sample:
  {curl}

Read what is committed:  causeway tail --beginning{other_dir}
Send many:               causeway send --generate --rate 100 --seconds 10{other_dir}
Stop:                    Ctrl-C
",
            title = style("Causeway dev is ready").bold(),
            url = dev.url,
            brokers = dev.brokers,
            admin = dev.admin,
            curl = style(format!(
                "curl --cacert {} --cert {} --key {} {} --data-binary @{dir}/journey.json",
                dev.ca.display(),
                dev.certificate.display(),
                dev.key.display(),
                dev.url,
            ))
            .green(),
        ));
        write(&self.dir.join("dev.json"), &json)?;
        if let Some(file) = &self.ready_file {
            write(file, &json)?;
        }
        Ok(())
    }
}

/// Begins to print a line per committed event, read back from the broker as any other reader would read it. All events
/// that are committed after this function returns are printed.
fn show_events(config: &Config) -> Result<(), Failure> {
    let mut decoder = Decoder::new(config)?;
    let mut follower = Follower::open(&Connection::new(config), "causeway-dev", &config.topics(), Start::End)
        .map_err(|error| Failure::new(format!("committed events could not be read back: {error}")))?;
    let mut show = move || -> Result<(), String> {
        loop {
            if let Heard::Record(record) =
                follower.next(Duration::from_millis(100)).map_err(|error| error.to_string())?
            {
                if progress::mark_of(&record).is_some() {
                    continue;
                }
                let decoded = decoder.decode(&record);
                if !say(text_line(&record, &decoded)).unwrap_or(false) {
                    return Ok(());
                }
            }
        }
    };
    std::thread::spawn(move || {
        if let Err(error) = show() {
            tracing::error!(error, "events are no longer shown");
        }
    });
    Ok(())
}

/// Removes dev.json, unless it belongs to another `dev`.
fn forget(file: &Path) {
    let dev = fs::read_to_string(file).ok().and_then(|text| serde_json::from_str::<Dev>(&text).ok());
    if dev.is_some_and(|dev| dev.pid == std::process::id()) {
        let _ = fs::remove_file(file);
    }
}

/// The settings that `dev` decides itself, as flags: the environment, which they outrank, may be for another bridge.
fn own(addresses: &Addresses, brokers: &str) -> Vec<(String, String)> {
    let mut flags = target::cluster(brokers, &format!("http://{}", addresses.admin));
    flags.push(("ingress.listen".to_owned(), addresses.ingress.to_string()));
    flags.push(("admin.listen".to_owned(), addresses.admin.to_string()));
    flags
}

fn toml(addresses: &Addresses, brokers: &str, certificates: &Certificates) -> String {
    let name = |file: &Path| file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let brokers: Vec<&str> = brokers.split(',').collect();
    format!(
        "\
# Written by `causeway dev` at each start; a start for a configuration of your own.
[ingress]
listen = \"{ingress}\"
[ingress.tls]
certificate = \"{certificate}\"
private_key = \"{key}\"
client_ca = \"{ca}\"
client_names = [\"dns:{SENDER}\"]
[admin]
listen = \"{admin}\"
[kafka]
brokers = {brokers:?}
create_topics = true
[kafka.topics]
partitions = {PARTITIONS}
replication = -1
[registry]
url = \"http://{admin}\"
",
        ingress = addresses.ingress,
        admin = addresses.admin,
        certificate = name(&certificates.server),
        key = name(&certificates.server_key),
        ca = name(&certificates.ca),
    )
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}
