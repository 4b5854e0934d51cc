//! Processes that never outlive the one that started them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt;

use super::{HANG, wait_until};

/// The shell between us and the program. Its standard input is a pipe that only we hold the other end of: it closes when
/// the [`Child`] is dropped and, by the kernel, when this process ends in any way, SIGKILL included. Then the "dog" kills
/// the program. When the program ends first, the shell ends the dog and passes the exit code on.
const WATCHDOG: &str = r#"
exec 3<&0
out=$1 err=$2; shift 2
"$@" </dev/null >>"$out" 2>>"$err" 3<&- &
program=$!
{ cat <&3; kill -9 $program; } >/dev/null 2>&1 &
dog=$!
echo $program
exec >/dev/null 3<&-
wait $program; code=$?
kill -9 $dog
exit $code
"#;

/// A running program; dropping it kills the program (SIGKILL) and waits for its end.
pub struct Child {
    name: String,
    pid: u32,
    out: PathBuf,
    err: PathBuf,
    watchdog: std::process::Child,
    lifeline: Option<ChildStdin>,
}

#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// SIGSTOP: the program stands still, its connections stay open.
    Stop,
    /// SIGCONT
    Continue,
    Terminate,
    /// SIGINT. A shell starts background programs with it ignored: it reaches only those that install a handler.
    Interrupt,
    Kill,
}

impl Child {
    /// Starts `command`. Its output goes to `<dir>/<name>.out` and `<dir>/<name>.err`, after what is there already.
    ///
    /// Program, arguments, environment and working folder are taken from `command`; its stdio is ours.
    pub fn spawn(name: &str, command: &Command, dir: &Path) -> Self {
        let out = dir.join(format!("{name}.out"));
        let err = dir.join(format!("{name}.err"));
        let mut shell = Command::new("sh");
        shell.args(["-c", WATCHDOG, "watchdog"]).args([&out, &err]);
        shell.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        // A process group of its own: Ctrl-C in the terminal ends the test process, and by that the program, but must
        // not end the watchdog before it has done its work.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut watchdog = shell.spawn().expect("sh starts");
        let lifeline = watchdog.stdin.take();
        let mut pid = String::new();
        BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let pid = pid.trim().parse().expect("the watchdog prints the program's pid");
        Self { name: name.to_owned(), pid, out, err, watchdog, lifeline }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What the program has written to its standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// What the program has written to its standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// The last lines of both outputs, for the message of a failed test.
    pub fn tail(&self) -> String {
        let last = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        let (out, err) = (last(self.stdout()), last(self.stderr()));
        format!("--- {}\n{out}\n--- {}\n{err}\n---", self.out.display(), self.err.display())
    }

    pub fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
            Signal::Terminate => "-TERM",
            Signal::Interrupt => "-INT",
            Signal::Kill => "-KILL",
        };
        let status = Command::new("kill").args([name, &self.pid.to_string()]).status().expect("kill starts");
        assert!(status.success(), "{}: can't send {signal:?} to {}", self.name, self.pid);
        if matches!(signal, Signal::Stop) {
            // Each thread stops by itself, as soon as it gets to run: until then it goes on with what it is at.
            wait_until("every thread stands still", || self.stands_still());
        }
    }

    fn stands_still(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).expect("the program runs");
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok()).all(|stat| {
            // The state follows the name, which may hold anything.
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 't']))
        })
    }

    /// How the program ended, or `None` while it runs. A program that a signal ended has the code 128 + signal.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.watchdog.try_wait().unwrap()
    }

    /// Waits for the program's own end.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_at_most(HANG)
    }

    pub fn wait_at_most(&mut self, limit: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(started.elapsed() < limit, "{} still runs after {limit:?}\n{}", self.name, self.tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `ready` holds; fails, with the log's tail, when the program ends before or hangs.
    pub fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) {
        let started = Instant::now();
        while !ready() {
            if let Some(status) = self.exited() {
                panic!("{} ended ({status}) before it was ready\n{}", self.name, self.tail());
            }
            assert!(started.elapsed() < HANG, "{} is not ready after {HANG:?}\n{}", self.name, self.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.watchdog.wait();
    }
}
