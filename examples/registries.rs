//! Lists a service in any registry, then follows it, each change a JSON line with its time.
//!
//! `cargo run --features full --example registries -- file:///tmp/services/helloworld`

#[path = "common/mod.rs"]
mod common;

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use callsign::{Error, ServiceInstance, Target, registry::View};
use common::Flags;
use serde_json::{Value, json};

const USAGE: &str = "\
Prints what a registry holds of a service, and each change of it, as JSON lines:
{\"at\":SECONDS,\"found\":BOOL,\"revision\":N,\"skipped\":N,\"instances\":[…],\"outage\":null or \"why\"}

usage: registries TARGET [flags]
  TARGET        such as consul://127.0.0.1:8500/helloworld
  --list        ends after the first line, which is asked for once and not watched
  --for SECONDS ends after so long; never unless given";

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "callsign=info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("registries: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    let mut flags = Flags::read(USAGE, &["--for"], &["--list"]);
    let target: Target = match flags.next().map(|target| target.parse()) {
        Some(Ok(target)) => target,
        Some(Err(error)) => flags.wrong(format!("{error:#}")),
        None => flags.wrong("TARGET is missing"),
    };
    if let Some(more) = flags.next() {
        flags.wrong(format!("one TARGET is enough; what is {more:?}?"));
    }
    let bound: Option<f64> = flags.value("--for");
    let bound = match bound.map(Duration::try_from_secs_f64) {
        Some(Ok(bound)) => bound,
        Some(Err(error)) => flags.wrong(format!("--for: {error}")),
        None => Duration::MAX,
    };
    let registry = callsign::registry(&target.registry().to_string())?;
    if flags.has("--list") {
        let set = registry.discovery().list(target.service()).await?;
        print(&json!({ "at": now(), "revision": set.revision(), "skipped": set.skipped(),
            "instances": set.instances().iter().map(|one| instance(one)).collect::<Vec<_>>() }));
        return Ok(());
    }
    let mut watch = registry.discovery().watch(target.service());
    let follow = async {
        while let Some(view) = watch.next().await {
            print(&line(&view));
        }
        Err(Error::new(callsign::Kind::Internal, "the registry ended the watch"))
    };
    tokio::time::timeout(bound, follow).await.unwrap_or(Ok(()))
}

fn line(view: &View) -> Value {
    let set = view.snapshot();
    json!({
        "at": now(),
        "found": set.is_some() && !view.is_not_found(),
        "revision": set.map(|set| set.revision()),
        "skipped": set.map(|set| set.skipped()),
        "instances": set.map(|set| set.instances().iter().map(|one| instance(one)).collect::<Vec<_>>()),
        "outage": view.outage().map(|outage| format!("{:#}", outage.error())),
    })
}

fn instance(instance: &ServiceInstance) -> Value {
    serde_json::from_str(&instance.to_json()).unwrap_or_default()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| (since.as_secs_f64() * 1e3).round() / 1e3)
}

/// A reader that has gone ends the program.
fn print(line: &Value) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}
