//! The bridge that a command is about: the one of `--config`, or the `causeway dev` that runs beside the command.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Failure;
use crate::{
    config::{self, Config, Faults, Sources},
    kafka,
};

/// `--config` and `--dir`, as every command has them.
#[derive(Debug, Clone, clap::Args)]
pub struct TargetArgs {
    /// The configuration file. Without it: the bridge that `causeway dev` runs beside this command, else causeway.toml.
    #[arg(long, short, env = "CAUSEWAY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where `causeway dev` keeps its files.
    #[arg(long, default_value = DIR, value_name = "DIR")]
    pub dir: PathBuf,
}

/// The default name of the configuration file.
pub const FILE: &str = "causeway.toml";

const DIR: &str = ".causeway";

const DEV: &str = "dev.json";

/// A running `dev` on this machine accepts a connection within this time.
const ANSWERS: Duration = Duration::from_secs(1);

/// `dev.json`: how the other commands reach a running `causeway dev`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dev {
    /// Its process id.
    pub pid: u32,
    /// The address that takes events.
    pub url: String,
    /// The address of its admin port.
    pub admin: String,
    /// The brokers, separated by commas.
    pub brokers: String,
    /// Whether the broker is librdkafka's own, inside the process.
    pub embedded: bool,
    /// Its configuration file.
    pub config: PathBuf,
    /// The CA of its certificate.
    pub ca: PathBuf,
    /// The sender's certificate.
    pub certificate: PathBuf,
    /// The sender's key.
    pub key: PathBuf,
}

impl Dev {
    /// The `dev` that runs with this folder. A `dev` that was killed leaves its file behind, so its admin port is tried
    /// as well.
    ///
    /// # Errors
    /// No `dev` runs here; the error says how that was found.
    pub fn running(dir: &Path) -> Result<Self, String> {
        let file = dir.join(DEV);
        let none = |why: &str| format!("no `causeway dev` runs here ({} {why})", file.display());
        let text = std::fs::read_to_string(&file).map_err(|_| none("is not there"))?;
        let dev: Self = serde_json::from_str(&text).map_err(|error| none(&format!("cannot be read: {error}")))?;
        let admin = dev.admin.strip_prefix("http://").and_then(|address| address.parse().ok());
        let answers = admin.is_some_and(|admin| TcpStream::connect_timeout(&admin, ANSWERS).is_ok());
        if answers { Ok(dev) } else { Err(none("was left by one that is gone")) }
    }

    /// This `dev` with absolute paths, for users in other folders.
    ///
    /// # Errors
    /// The working directory is unknown.
    pub fn absolute(&self) -> Result<Self, Failure> {
        let absolute = |file: &Path| {
            std::path::absolute(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))
        };
        Ok(Self {
            config: absolute(&self.config)?,
            ca: absolute(&self.ca)?,
            certificate: absolute(&self.certificate)?,
            key: absolute(&self.key)?,
            ..self.clone()
        })
    }
}

/// A configuration, and the `dev` that it came from, if any.
pub struct Target {
    /// The configuration.
    pub config: Config,
    /// The running `dev`.
    pub dev: Option<Dev>,
    /// The file that the command line or `CAUSEWAY_CONFIG` names.
    named: Option<PathBuf>,
}

impl Target {
    /// Another command about this bridge, as a user would type it.
    pub fn command(&self, command: &str) -> String {
        let named = self.named.as_ref().map(|file| format!(" --config {}", file.display()));
        format!("causeway {command}{}", named.unwrap_or_default())
    }
}

impl TargetArgs {
    /// Loads the configuration.
    ///
    /// # Errors
    /// No configuration is found, or it has faults, all of which are told.
    pub fn load(&self, flags: &[(String, String)]) -> Result<Target, Failure> {
        self.read(flags)?.map_err(|faults| unusable(&faults))
    }

    /// Loads the configuration, but returns its faults to the caller.
    ///
    /// # Errors
    /// No configuration is found, or the file cannot be read.
    pub fn read(&self, flags: &[(String, String)]) -> Result<Result<Target, Faults>, Failure> {
        if let Some(file) = &self.config {
            let named = Some(file.clone());
            return Ok(read(file, flags)?.map(|config| Target { config, dev: None, named }));
        }
        match Dev::running(&self.dir) {
            Ok(dev) => {
                let flags = [cluster(&dev.brokers, &dev.admin).as_slice(), flags].concat();
                Ok(read(&dev.config, &flags)?.map(|config| Target { config, dev: Some(dev), named: None }))
            }
            // `serve` would take this file too.
            Err(_) if self.dir == Path::new(DIR) && Path::new(FILE).exists() => {
                Ok(read(Path::new(FILE), flags)?.map(|config| Target { config, dev: None, named: None }))
            }
            Err(why) => Err(Failure::findings(format!(
                "no --config given, and {why}\n  give --config FILE, or start `causeway dev` in this folder"
            ))),
        }
    }
}

/// Reads a configuration file, the environment and flags.
///
/// # Errors
/// The file cannot be read, or the configuration has faults, all of which are told.
pub fn load(file: &Path, flags: &[(String, String)]) -> Result<Config, Failure> {
    read(file, flags)?.map_err(|faults| unusable(&faults))
}

/// The flags that hold a `dev`, and a command beside it, to the brokers and registry of that `dev`. They outrank the
/// environment.
pub fn cluster(brokers: &str, registry: &str) -> Vec<(String, String)> {
    [("kafka.brokers", brokers), ("registry.url", registry)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Like [`load`], for a file that does not exist yet: `text` is its content.
///
/// # Errors
/// The configuration has faults, all of which are told.
pub fn load_text(file: &Path, text: &str, flags: &[(String, String)]) -> Result<Config, Failure> {
    of_text(file, text, flags).map_err(|faults| unusable(&faults))
}

fn unusable(faults: &Faults) -> Failure {
    Failure::findings(format!("the configuration cannot be used:\n{faults}"))
}

fn read(file: &Path, flags: &[(String, String)]) -> Result<Result<Config, Faults>, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::findings(format!("{}: {error}; give a readable file with --config", file.display()))
    })?;
    Ok(of_text(file, &text, flags))
}

fn of_text(file: &Path, text: &str, flags: &[(String, String)]) -> Result<Config, Faults> {
    let env: Vec<(String, String)> = environment();
    let sources = Sources { file: Some((file, text)), env: &env, flags };
    config::load(&sources, &kafka::property_faults)
}

/// The environment's variables with our prefix.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment, for the configuration")]
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("CAUSEWAY_"))
        .collect()
}
