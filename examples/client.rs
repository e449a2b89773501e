//! Calls a greeter by its name, as many times and as fast as told, and says how it went.
//!
//! `cargo run --example client -- file:///tmp/services/helloworld --rate 1000 --seconds 10`

#[path = "common/mod.rs"]
mod common;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use callsign::{Channel, Endpoint, Target};
use common::{
    Flags, code_name,
    helloworld::{HelloRequest, greeter_client::GreeterClient},
};
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Status};

const USAGE: &str = "\
Calls SayHello of a greeter by its name and prints one JSON line at the end.

usage: client TARGET [flags]
  TARGET            such as file:///tmp/services/helloworld
  --count N         how many calls; 1 unless --seconds is given
  --seconds S       for how long
  --rate R          calls a second, sent when they are due whether or not others have come back;
                    latency is then counted from when a call was due
  --concurrency C   how many calls at once at most; 1, or 256 with --rate
  --timeout MS      the deadline of each call
  --wait-for-ready  wait for a ready endpoint instead of failing soon

The exit code is 1 if a call failed, 2 if the command line is wrong.";

/// So many different errors are told apart.
const MAX_ERRORS: usize = 100;

#[derive(Debug, Default)]
struct Tally {
    ok: u64,
    failed: u64,
    by_instance: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    latencies_us: Vec<u64>,
}

struct Plan {
    count: u64,
    until: Option<Instant>,
    rate: Option<f64>,
    timeout: Option<Duration>,
    begun: Instant,
    next: AtomicU64,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(env_filter()).init();
    let mut flags =
        Flags::read(USAGE, &["--count", "--rate", "--concurrency", "--seconds", "--timeout"], &["--wait-for-ready"]);
    let target: Target = match flags.next().map(|target| target.parse()) {
        Some(Ok(target)) => target,
        Some(Err(error)) => flags.wrong(format!("{error:#}")),
        None => flags.wrong("TARGET is missing"),
    };
    if let Some(more) = flags.next() {
        flags.wrong(format!("one TARGET is enough; what is {more:?}?"));
    }
    let seconds: Option<f64> = flags.value("--seconds");
    let rate: Option<f64> = flags.value("--rate");
    if rate.is_some_and(|rate| !(1e-3..=1e7).contains(&rate))
        || seconds.is_some_and(|seconds| !(0.0..=1e6).contains(&seconds))
    {
        flags.wrong("--rate is a number from 0.001 to 10000000, --seconds one from 0 to 1000000");
    }
    let concurrency: u32 = flags.value("--concurrency").unwrap_or_else(|| if rate.is_some() { 256 } else { 1 });

    let builder = Channel::builder(target).report_endpoint(true).wait_for_ready(flags.has("--wait-for-ready"));
    let channel = match builder.connect_lazy() {
        Ok(channel) => channel,
        Err(error) => flags.wrong(format!("{error:#}")),
    };
    let begun = Instant::now();
    let plan = Arc::new(Plan {
        count: flags.value("--count").unwrap_or_else(|| if seconds.is_some() { u64::MAX } else { 1 }),
        until: seconds.map(|seconds| begun + Duration::from_secs_f64(seconds)),
        rate,
        timeout: flags.value("--timeout").map(Duration::from_millis),
        begun,
        next: AtomicU64::new(0),
    });
    let callers: Vec<_> =
        (0..concurrency.max(1)).map(|_| tokio::spawn(call_on(channel.clone(), plan.clone()))).collect();
    let mut total = Tally::default();
    for caller in callers {
        match caller.await {
            Ok(tally) => total.add(tally),
            Err(error) => total.failed(format!("INTERNAL: {error}")),
        }
    }
    let all_went_well = total.failed == 0;
    println!("{}", total.into_json());
    if all_went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn env_filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into())
}

/// One caller: takes the next call that is due, until there is none.
async fn call_on(channel: Channel, plan: Arc<Plan>) -> Tally {
    let mut client = GreeterClient::new(channel);
    let mut tally = Tally::default();
    loop {
        let number = plan.next.fetch_add(1, Relaxed);
        if number >= plan.count {
            return tally;
        }
        let mut due = Instant::now();
        if let Some(rate) = plan.rate {
            due = plan.begun + Duration::from_secs_f64(number as f64 / rate);
        }
        if plan.until.is_some_and(|until| due >= until) {
            return tally;
        }
        if plan.rate.is_some() {
            sleep_until(due).await;
        }
        let mut request = Request::new(HelloRequest { name: "callsign".to_owned() });
        if let Some(timeout) = plan.timeout {
            request.set_timeout(timeout);
        }
        let result = client.say_hello(request).await;
        tally.latencies_us.push(due.elapsed().as_micros() as u64);
        match result {
            Ok(response) => {
                let endpoint = response.extensions().get::<Endpoint>();
                let id = endpoint.map_or_else(String::new, |endpoint| endpoint.instance().id().to_string());
                *tally.by_instance.entry(id).or_default() += 1;
                tally.ok += 1;
            }
            Err(status) => tally.failed(describe(&status)),
        }
    }
}

fn describe(status: &Status) -> String {
    format!("{}: {}", code_name(status.code()), status.message())
}

impl Tally {
    fn failed(&mut self, error: String) {
        self.failed += 1;
        self.error(error, 1);
    }

    fn error(&mut self, error: String, times: u64) {
        let known = self.errors.len() < MAX_ERRORS || self.errors.contains_key(&error);
        *self.errors.entry(if known { error } else { "others".to_owned() }).or_default() += times;
    }

    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        for (id, calls) in other.by_instance {
            *self.by_instance.entry(id).or_default() += calls;
        }
        for (error, times) in other.errors {
            self.error(error, times);
        }
        self.latencies_us.extend(other.latencies_us);
    }

    fn into_json(mut self) -> serde_json::Value {
        self.latencies_us.sort_unstable();
        let at = |share: f64| {
            let last = self.latencies_us.len().saturating_sub(1);
            self.latencies_us.get((last as f64 * share) as usize).copied().unwrap_or(0)
        };
        serde_json::json!({
            "ok": self.ok,
            "failed": self.failed,
            "by_instance": self.by_instance,
            "errors": self.errors,
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "max_us": at(1.0),
        })
    }
}
