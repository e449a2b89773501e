//! Signals to processes.

use std::{
    fs,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// Sends a signal. One who is to stop has stopped then: it takes until each of its threads has had a turn, and meanwhile
/// others of them go on answering.
pub fn send(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    let begun = Instant::now();
    while signal == "STOP" && !is_stopped(&pid) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{pid} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether all threads are, where the system says so.
fn is_stopped(pid: &str) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    // Behind the name, which may hold anything.
    stats.filter_map(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T'))).all(|is| is)
}
