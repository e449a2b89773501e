//! Instructions counted by valgrind: the same on a busy machine.

use std::{error::Error, ops::Range, process::Command};

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

/// The instructions of one repetition: this very program is run with [`COUNT`], these arguments and `times`, and of
/// that the `times` repetitions that [`count`] makes are counted.
///
/// # Errors
///
/// If it does not run, or counts nothing.
pub fn instructions(args: &[&str], times: usize) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=callsign_bench::valgrind::counted"])
        .arg(std::env::current_exe()?)
        .arg(COUNT)
        .args(args)
        .arg(times.to_string())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.filter(|_| output.status.success()).ok_or_else(|| text.to_string())?;
    let collected: u64 = collected.trim().parse()?;
    if collected == 0 {
        return Err("nothing was counted: is `count` called?".into());
    }
    Ok(collected / times as u64)
}

/// Repeats, half as often as asked for, so that what only the first take is not counted, and then, counted, as often.
///
/// # Errors
///
/// As `repeat`'s.
pub fn count(
    times: usize,
    repeat: &mut dyn FnMut(Range<usize>) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let before = times / 2;
    repeat(0..before)?;
    let mut result = Ok(());
    counted(&mut || result = repeat(before..before + times));
    result
}

/// What is counted, found by its name: what comes before, a thousand connections say, is not.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}
