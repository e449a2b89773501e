//! Keeps the processors awake while clients are measured.
//!
//! A virtual processor that has gone to sleep takes several times longer to wake than a call takes,
//! and with one call in flight one of both sides always sleeps: what is measured then is the host.

use std::{
    io::{self, Read},
    process::{Child, Command, Stdio},
    thread,
};

/// The flag that makes a bench's program do just this.
pub const AWAKE: &str = "--awake";

/// Keeps every processor busy with what gives way to anything else, until it is dropped.
#[derive(Debug)]
pub struct Awake(Option<Child>);

impl Awake {
    /// Starts it; does nothing, and says so, where the system cannot run what gives way to all else.
    ///
    /// # Errors
    ///
    /// If this program cannot be found.
    pub fn start() -> io::Result<Self> {
        let mut idle = Command::new("chrt");
        idle.args(["--idle", "0"]).arg(std::env::current_exe()?).arg(AWAKE).stdin(Stdio::piped());
        let child = idle.spawn().ok();
        if child.is_none() {
            println!("processors may fall asleep between calls: chrt of util-linux is missing");
        }
        Ok(Self(child))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Spins on every processor until the program that started this is gone.
pub fn stay_awake() {
    for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
        thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    let _ = io::stdin().read_to_end(&mut Vec::new());
}
