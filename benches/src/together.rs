//! Puts both sides of a call on one processor while one call is in flight.
//!
//! Client and server then never run at once, so that nothing is lost by it; and on two processors
//! each side wakes the other's, which takes a virtual machine longer than a call takes a client: what
//! is measured then is the host, and by chance, as the system moves the two about.

use std::{
    fs,
    process::{self, Command, Stdio},
};

/// This process and another run on one processor, until it is dropped.
#[derive(Debug)]
pub struct Together {
    pids: [u32; 2],
    before: Option<String>,
}

impl Together {
    /// Puts them there; does nothing, and says so, where the system cannot.
    #[must_use]
    pub fn with(other: u32) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let mut together = Self { pids: [process::id(), other], before: allowed.map(|list| list.trim().to_owned()) };
        let first = together.before.as_deref().and_then(|list| list.split([',', '-']).next());
        if !first.is_some_and(|first| together.bind(first)) {
            println!("client and server may run on two processors: taskset of util-linux is missing");
            together.before = None;
        }
        together
    }

    fn bind(&self, processors: &str) -> bool {
        let bind = |pid: &u32| {
            let mut taskset = Command::new("taskset");
            taskset.args(["--all-tasks", "--cpu-list", "--pid", processors, &pid.to_string()]);
            taskset.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        self.pids.iter().all(bind)
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            self.bind(before);
        }
    }
}
