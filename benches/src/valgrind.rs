//! Instructions counted by valgrind: the same on a busy machine.

use std::{error::Error, process::Command};

/// The argument by which a benchmark's program runs what is counted.
pub const COUNT: &str = "--count";

/// Whether valgrind is installed; says so if not.
#[must_use]
pub fn is_there() -> bool {
    let there = Command::new("valgrind").arg("--version").output().is_ok();
    if !there {
        println!("left out: instructions are counted by valgrind, which is not installed");
    }
    there
}

/// The instructions of one repetition: this very program is run with [`COUNT`], these arguments and a number of
/// repetitions, once with `times` and once with three times as many; the difference is what they take.
///
/// # Errors
///
/// If it does not run.
pub fn instructions(args: &[&str], times: usize) -> Result<u64, Box<dyn Error>> {
    let [few, many] = [all(args, times)?, all(args, times * 3)?];
    Ok(many.saturating_sub(few) / (times as u64 * 2))
}

/// All instructions of a run.
fn all(args: &[&str], times: usize) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .arg(COUNT)
        .args(args)
        .arg(times.to_string())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.filter(|_| output.status.success()).ok_or_else(|| text.to_string())?;
    Ok(collected.trim().parse()?)
}
