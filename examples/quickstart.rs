//! The whole story in 12 seconds, with nothing to install: three servers register themselves, a
//! client calls them by name, one is killed, one is added, one is replaced, and no call fails.
//!
//! `cargo run --example quickstart`

#[path = "common/mod.rs"]
mod common;

use std::{
    collections::BTreeMap,
    error::Error,
    io::{IsTerminal, Write, stdout},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use callsign::{Channel, Endpoint, Server};
use common::helloworld::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use tokio::{
    io::AsyncReadExt,
    task::JoinHandle,
    time::{Instant, interval, sleep},
};
use tonic::{Code, Request, Response, Status};

const SERVICE: &str = "greeter";

// ── a server: what `main` runs as when it is told to serve ──────────────────────────────────────

struct Hello;

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: format!("hello, {}", request.into_inner().name) }))
    }
}

async fn serve(registry: &str, id: &str) -> callsign::Result<()> {
    let router = tonic::transport::Server::builder().add_service(GreeterServer::new(Hello));
    Server::new(SERVICE)
        .id(id)
        .grpc("127.0.0.1:0", router)
        .drain(Duration::from_millis(500))
        .serve(callsign::registry(registry)?, told_to_stop())
        .await
}

/// The parent closes our input to stop us; so does its death.
async fn told_to_stop() {
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
}

// ── the client ──────────────────────────────────────────────────────────────────────────────────

#[derive(Default)]
struct Counts {
    served: BTreeMap<String, u64>,
    again: u64,
    failed: u64,
    last_error: String,
}

type Shared = Arc<Mutex<Counts>>;

fn lock(counts: &Shared) -> std::sync::MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls 500 times a second, each call on time whatever became of the others.
async fn call_steadily(channel: Channel, counts: Shared) {
    let mut ticks = interval(Duration::from_millis(2));
    loop {
        ticks.tick().await;
        tokio::spawn(call(channel.clone(), counts.clone()));
    }
}

async fn call(channel: Channel, counts: Shared) {
    let hello = || HelloRequest { name: "callsign".to_owned() };
    let mut client = GreeterClient::new(channel);
    let mut result = client.say_hello(hello()).await;
    // Saying hello twice does no harm, so a call that was on a killed server is made again. All
    // that never reached a server was sent elsewhere already, without a word here.
    if matches!(&result, Err(status) if status.code() == Code::Unavailable) {
        lock(&counts).again += 1;
        result = client.say_hello(hello()).await;
    }
    let mut counts = lock(&counts);
    match result {
        Ok(response) => {
            let by = response.extensions().get::<Endpoint>().map(|endpoint| endpoint.instance().id().to_string());
            *counts.served.entry(by.unwrap_or_default()).or_default() += 1;
        }
        Err(status) => {
            counts.failed += 1;
            counts.last_error = status.to_string();
        }
    }
}

// ── the story ───────────────────────────────────────────────────────────────────────────────────

struct Fleet {
    registry: String,
    servers: BTreeMap<String, Child>,
}

impl Fleet {
    fn start(&mut self, id: &str) -> Result<(), Box<dyn Error>> {
        let server = Command::new(std::env::current_exe()?)
            .args(["serve", &self.registry, id])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        self.servers.insert(id.to_owned(), server);
        Ok(())
    }

    fn kill(&mut self, id: &str) -> Result<(), Box<dyn Error>> {
        if let Some(mut server) = self.servers.remove(id) {
            server.kill()?;
            server.wait()?;
        }
        Ok(())
    }

    /// Asks a server to stop, and waits until it has.
    async fn stop(&mut self, id: &str) -> Result<(), Box<dyn Error>> {
        let Some(mut server) = self.servers.remove(id) else { return Ok(()) };
        drop(server.stdin.take());
        while server.try_wait()?.is_none() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for server in self.servers.values_mut() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A directory of this run's own.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Screen {
    begun: Instant,
    counts: Shared,
    live: bool,
}

impl Screen {
    fn say(&self, what: &str) {
        let clear = if self.live { "\r\x1b[2K" } else { "" };
        println!("{clear}{:5.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    /// Keeps one line under what was said up to date, or prints one now and then.
    fn follow(&self) -> JoinHandle<()> {
        let (begun, counts, live) = (self.begun, self.counts.clone(), self.live);
        tokio::spawn(async move {
            let mut before = BTreeMap::new();
            let mut ticks = interval(Duration::from_millis(if live { 200 } else { 1_000 }));
            loop {
                ticks.tick().await;
                let now = lock(&counts).served.clone();
                let line: Vec<_> = now
                    .iter()
                    .map(|(id, served)| match served - before.get(id).copied().unwrap_or(0) {
                        0 => format!("{id} -"),
                        new => format!("{id} +{new}"),
                    })
                    .collect();
                before = now;
                let line = format!("{:5.1} s  calls: {}", begun.elapsed().as_secs_f64(), line.join("  "));
                if live {
                    print!("\r\x1b[2K{line}");
                    let _ = stdout().flush();
                } else {
                    println!("{line}");
                }
            }
        })
    }
}

async fn story() -> Result<ExitCode, Box<dyn Error>> {
    let dir = Dir(std::env::temp_dir().join(format!("callsign-quickstart-{}", std::process::id())));
    std::fs::create_dir_all(&dir.0)?;
    let mut fleet = Fleet { registry: format!("file://{}?ttl=3s", dir.0.display()), servers: BTreeMap::new() };
    let counts = Shared::default();
    let screen = Screen { begun: Instant::now(), counts: counts.clone(), live: stdout().is_terminal() };

    println!("Three servers register themselves in {}; one channel calls them by name.\n", dir.0.display());
    for id in ["ann", "ben", "cleo"] {
        fleet.start(id)?;
    }
    let target = format!("file://{}/{SERVICE}?ttl=3s", dir.0.display());
    let channel = Channel::builder(&target).report_endpoint(true).connect().await?;
    screen.say(&format!("a channel to {target:?} is ready"));
    let line = screen.follow();
    let calls = tokio::spawn(call_steadily(channel, counts.clone()));

    sleep(Duration::from_secs(3)).await;
    fleet.kill("ann")?;
    screen.say("ann is killed (SIGKILL): she can tell nobody, and her calls go elsewhere");
    sleep(Duration::from_secs(2)).await;
    fleet.start("dora")?;
    screen.say("dora is started: she registers, and calls find her");
    sleep(Duration::from_secs(2)).await;
    screen.say("ben is asked to stop: he deregisters, finishes what he has, and goes");
    fleet.stop("ben").await?;
    fleet.start("ben")?;
    screen.say("ben is started again");
    sleep(Duration::from_secs(3)).await;

    calls.abort();
    sleep(Duration::from_millis(300)).await;
    line.abort();
    for id in ["ben", "cleo", "dora"] {
        fleet.stop(id).await?;
    }
    let counts = lock(&counts);
    let clear = if screen.live { "\r\x1b[2K" } else { "" };
    println!("{clear}\n  instance   calls served");
    for (id, served) in &counts.served {
        println!("  {id:<9}  {served:>12}");
    }
    println!("  {:<9}  {:>12}", "failed", counts.failed);
    println!("\nCalls made twice, because they were on ann when she was killed: {}", counts.again);
    let all = ["ann", "ben", "cleo", "dora"].iter().all(|id| counts.served.contains_key(*id));
    if counts.failed == 0 && all {
        return Ok(ExitCode::SUCCESS);
    }
    println!("That should not be: all four serve, and none fails. The last error: {}", counts.last_error);
    Ok(ExitCode::FAILURE)
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", registry, id] => serve(registry, id).await.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        _ => story().await,
    }
}
