//! Real registries: processes of their own on loopback, in directories of their own, gone with the
//! test that started them.
//!
//! `tests/run.sh` builds them once, into a cache outside the checkout. Where one is missing, its tests
//! say that they are left out.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, reason = "each test uses its part")]

#[allow(clippy::duplicate_mod, reason = "some tests have both of those that have this")]
#[path = "../signal.rs"]
mod signal;

use std::{
    fs::File,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

/// What `tests/run.sh` keeps under this name; none, and said so, where it was not built.
pub fn cached(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    let path = cache.join("callsign").join(name);
    if path.exists() {
        return Some(path);
    }
    left_out(&format!("what needs {name}; `tests/run.sh {name}` builds it"));
    None
}

/// Says what was left out, past the capture of tests that pass. Nothing may be where `CI` is set.
#[allow(clippy::explicit_write)]
pub fn left_out(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "nothing may be left out here: {what}");
    writeln!(std::io::stderr(), "left out: {what}").unwrap();
}

/// A port that nobody listens on, below those that the system hands out by itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Far apart for processes that began together.
    let first = 10_000 + (std::process::id().wrapping_mul(613) % 20_000) as u16;
    loop {
        let port = 10_000 + (first - 10_000 + NEXT.fetch_add(1, Ordering::Relaxed)) % 22_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A server for all tests of a binary that do it no harm: the first that asks starts it, and it is gone with the last.
#[derive(Debug, Default)]
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    pub fn get(&self, start: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        let started = Arc::new(start()?);
        *shared = Arc::downgrade(&started);
        Some(started)
    }
}

/// A server's process. It is killed when this is dropped, and when this process ends, however it does.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program with its output in `log`.
    pub fn start(command: &Command, log: &Path) -> Self {
        // The kernel kills it when the thread that started it ends: so that must be one that does not.
        type Order = (Command, mpsc::Sender<Child>);
        static STARTER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);

        let mut mortal = Command::new("setpriv");
        mortal.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => mortal.env(key, value),
                None => mortal.env_remove(key),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            mortal.current_dir(directory);
        }
        let output = File::options().create(true).append(true).open(log).unwrap();
        mortal.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);

        let (started, child) = mpsc::channel();
        let mut starter = STARTER.lock().unwrap();
        let orders = starter.get_or_insert_with(|| {
            let (sender, orders) = mpsc::channel::<Order>();
            std::thread::spawn(move || {
                for (mut command, started) in orders {
                    started.send(command.spawn().unwrap()).unwrap();
                }
            });
            sender
        });
        orders.send((mortal, started)).unwrap();
        Self { child: child.recv().unwrap(), log: log.to_owned() }
    }

    /// Waits until `is_ready`, at most a minute.
    pub fn wait_until(&mut self, what: &str, mut is_ready: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_ready() {
            let ended = self.child.try_wait().unwrap();
            let late = begun.elapsed() > Duration::from_secs(60);
            if ended.is_some() || late {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("no {what} after {:?}, ended: {ended:?}\n{log}", begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, signal: &str) {
        signal::send(&self.child, signal);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> ExitStatus {
        let _ = self.child.kill();
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
