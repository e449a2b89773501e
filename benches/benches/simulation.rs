//! The crate's balancing, simulated: see `docs/simulation.md`.
//!
//! `cargo bench -p callsign-bench --bench simulation` checks the model, prints the table of all
//! policies and what the default one is held to, writes `target/bench/simulation.json`, and draws
//! `target/bench/simulation.svg`, of which `docs/policies.svg` is a copy; with `-- FILE.toml…` it
//! runs these scenarios and prints one line of JSON for each policy; with `-- --made-up 1-40` it makes
//! up scenarios at random and prints the default policy beside the best other one; with `-- --brief` it
//! only sees that all works.

use std::{
    env,
    io::{ErrorKind, Write, stdout},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use callsign_bench::{
    simulation::{check::check, random::made_up_all, report::Report, scale::scale, table::table, validate::read},
    table::{write, write_text},
};

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    if let [option, numbers] = args
        && option == "--made-up"
    {
        return made_up_all(range(numbers)?);
    }
    let (options, files): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.starts_with("--"));
    if let Some(unknown) = options.iter().find(|option| *option != &"--brief") {
        return Err(format!("there is no option {unknown}; give scenario files, --made-up 1-40, --brief, or nothing"));
    }
    if !files.is_empty() {
        // What is wrong with any of them is said before the first of them runs.
        let scenarios = files.iter().map(|file| read(&find(file))).collect::<Result<Vec<_>, _>>()?;
        for scenario in scenarios {
            for row in Report::of(&scenario)?.rows() {
                match writeln!(stdout(), "{row}") {
                    // Whoever reads them has seen enough.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    written => written.map_err(|error| error.to_string())?,
                }
            }
        }
        return Ok(());
    }
    let begun = Instant::now();
    check()?;
    let brief = !options.is_empty();
    let (mut rows, picture) = table(brief)?;
    rows.extend(scale(brief)?);
    println!("\n{:.0} s in all", begun.elapsed().as_secs_f64());
    write("simulation.json", &rows).map_err(|error| error.to_string())?;
    write_text("simulation.svg", &picture.svg()).map_err(|error| error.to_string())
}

/// The numbers of scenarios to make up: `7` or `1-40`.
fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse().map_err(|_| format!("--made-up is followed by 7 or 1-40, not {text:?}"));
    Ok(number(first)?..=number(last)?)
}

/// A file as the shell that ran cargo would find it: cargo runs this in the package's directory.
fn find(file: &str) -> PathBuf {
    let bases = [env::var("PWD").unwrap_or_default(), concat!(env!("CARGO_MANIFEST_DIR"), "/..").to_owned()];
    let mut found = bases.iter().map(|base| Path::new(base).join(file)).filter(|path| path.exists());
    found.next().unwrap_or_else(|| PathBuf::from(file))
}
