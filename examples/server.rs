//! A greeter that registers itself: gRPC, and HTTP beside it if asked for.
//!
//! `cargo run --example server -- --registry file:///tmp/services --name helloworld`

#[path = "common/mod.rs"]
mod common;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use axum::{Json, Router, routing::get};
use callsign::Server;
use common::{
    Flags,
    helloworld::{
        HelloReply, HelloRequest,
        greeter_server::{Greeter, GreeterServer},
    },
};
use serde_json::json;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

const USAGE: &str = "\
Serves helloworld.Greeter and registers itself; SIGTERM or Ctrl-C drains and ends it.
Prints one JSON line once it is registered.

usage: server --registry URI --name NAME [flags]
  --registry URI    such as file:///tmp/services
  --name NAME       the service's name
  --id ID           the instance's id; made of host, name and port unless given
  --version V       the instance's version
  --metadata K=V    an entry of its metadata; may be given more than once
  --grpc ADDRESS    where to serve gRPC; 127.0.0.1:0 unless given
  --http ADDRESS    where to serve HTTP, with GET /whoami; nowhere unless given
  --cert FILE       PEM file of its certificate chain, for TLS (feature tls); with --key
  --key FILE        PEM file of its key
  --delay MS        how long each call takes
  --workers N       how many calls are worked on at once, others wait; all unless given
  --warm-up MS      so long after its start it gets faster, from a tenth of its speed
  --fail SHARE      the share of calls that fail at once with UNAVAILABLE, such as 0.3
  --drain MS        how long to accept after deregistering; 5000 unless given";

struct Hello {
    id: String,
    delay: Duration,
    workers: Semaphore,
    fail: f64,
    warm_up: Duration,
    begun: Instant,
    calls: AtomicU64,
}

impl Hello {
    /// Whether this call is one that fails: they come as evenly as they can.
    fn fails(&self) -> bool {
        let before = self.calls.fetch_add(1, Relaxed) as f64;
        ((before + 1.0) * self.fail).floor() > (before * self.fail).floor()
    }

    /// How long a call takes now.
    fn delay(&self) -> Duration {
        let warm = self.begun.elapsed().as_secs_f64() / self.warm_up.as_secs_f64();
        // Without a warm-up that is a number past any, or none.
        if warm < 1.0 { self.delay.div_f64(0.1 + 0.9 * warm) } else { self.delay }
    }
}

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        if self.fails() {
            return Err(Status::unavailable("as told by --fail"));
        }
        let _worker = self.workers.acquire().await;
        let delay = self.delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok(Response::new(HelloReply { message: self.id.clone() }))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "callsign=info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> callsign::Result<()> {
    let mut flags = Flags::read(
        USAGE,
        &[
            "--registry",
            "--name",
            "--id",
            "--version",
            "--metadata",
            "--grpc",
            "--http",
            "--cert",
            "--key",
            "--delay",
            "--workers",
            "--warm-up",
            "--fail",
            "--drain",
        ],
        &[],
    );
    let Some(registry) = flags.value::<String>("--registry") else { flags.wrong("--registry is missing") };
    let Some(name) = flags.value::<String>("--name") else { flags.wrong("--name is missing") };
    if let Some(more) = flags.next() {
        flags.wrong(format!("what is {more:?}?"));
    }
    let grpc = flags.value("--grpc").unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let http: Option<String> = flags.value("--http");
    let id = flags.value("--id").unwrap_or_else(|| format!("{name}-{}", std::process::id()));

    let hello = Hello {
        id: id.clone(),
        delay: Duration::from_millis(flags.value("--delay").unwrap_or(0)),
        workers: Semaphore::new(flags.value("--workers").unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)),
        fail: flags.value("--fail").unwrap_or(0.0),
        warm_up: Duration::from_millis(flags.value("--warm-up").unwrap_or(0)),
        begun: Instant::now(),
        calls: AtomicU64::new(0),
    };
    let server = Server::new(&name).id(&id).version(flags.value::<String>("--version").unwrap_or_default());
    // The layer tells clients how busy this server is.
    let router = tonic::transport::Server::builder().layer(server.layer()).add_service(GreeterServer::new(hello));
    let mut server = server.grpc(grpc, router).health_of("helloworld.Greeter");
    for entry in flags.all("--metadata") {
        let Some((key, value)) = entry.split_once('=') else { flags.wrong(format!("--metadata {entry} is not K=V")) };
        server = server.metadata(key, value);
    }
    if let Some(http) = http {
        let whoami = json!({ "id": id });
        server = server.http(http, Router::new().route("/whoami", get(async move || Json(whoami.clone()))));
    }
    server = match (flags.value::<String>("--cert"), flags.value::<String>("--key")) {
        (None, None) => server,
        #[cfg(feature = "tls")]
        (Some(cert), Some(key)) => server.tls(callsign::tls::ServerTls::identity_files(cert, key)),
        #[cfg(not(feature = "tls"))]
        (Some(_), Some(_)) => flags.wrong("TLS needs --features tls"),
        _ => flags.wrong("--cert and --key go together"),
    };
    if let Some(drain) = flags.value("--drain") {
        server = server.drain(Duration::from_millis(drain));
    }

    let server = server.bind(callsign::registry(&registry)?).await?;
    let (instance, registered) = (server.instance(), server.registration().registered());
    tokio::spawn(async move {
        if registered.await.is_ok() {
            let endpoints: Vec<_> = instance.addresses().iter().map(ToString::to_string).collect();
            println!("{}", json!({ "id": instance.id().as_str(), "endpoints": endpoints }));
        }
    });
    server.serve(callsign::shutdown_signal()).await
}
