//! What one process sees of the file system and others do not: a small disk, another `/etc/hosts`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{process::Child, scratch};

/// A mount namespace. A process of ours keeps it; with that it ends, and all that was mounted in it is gone.
pub struct Namespace {
    keeper: Child,
}

impl Namespace {
    /// A disk of so many MiB at `folder`, which is there already.
    pub fn with_disk(folder: &Path, size_mb: u32) -> Self {
        Self::new(&format!("mount -t tmpfs -o size={size_mb}m tmpfs '{}'", folder.display()))
    }

    /// Names are looked up in `hosts` alone, which may change.
    pub fn with_hosts(hosts: &Path) -> Self {
        let dir = scratch::dir("hosts");
        let (resolver, order) = (dir.join("resolv.conf"), dir.join("nsswitch.conf"));
        fs::write(&resolver, "").unwrap();
        fs::write(&order, "hosts: files\n").unwrap();
        let bind = |from: &Path, to: &str| format!("mount --bind '{}' {to}", from.display());
        Self::new(&format!(
            "{} && {} && {}",
            bind(hosts, "/etc/hosts"),
            bind(&resolver, "/etc/resolv.conf"),
            bind(&order, "/etc/nsswitch.conf")
        ))
    }

    fn new(mounts: &str) -> Self {
        const REMEDY: &str =
            "Run the tests as root, with unshare and nsenter (Debian, Ubuntu: apt-get install util-linux)";
        let dir = scratch::dir("namespace");
        let ready = dir.join("ready");
        let script = format!("{mounts} && touch '{}' && exec sleep infinity", ready.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let mut keeper = Child::spawn("namespace", &command, &dir);
        let limit = Duration::from_secs(10);
        let started = std::time::Instant::now();
        while !ready.exists() {
            let ended = keeper.exited().is_some() || started.elapsed() > limit;
            assert!(!ended, "no mount namespace. {REMEDY}\n{}", keeper.tail());
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { keeper }
    }

    /// The same command inside.
    pub fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        let pid = self.keeper.pid().to_string();
        let dir = command.get_current_dir().unwrap_or(Path::new("/"));
        inside.args(["--mount", "--target", &pid, "sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(dir);
        inside.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(key, value),
                None => inside.env_remove(key),
            };
        }
        inside.current_dir(dir);
        inside
    }

    /// A path inside, as it is seen from outside.
    pub fn path(&self, inside: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.pid()));
        root.join(inside.strip_prefix("/").unwrap_or(inside))
    }
}
