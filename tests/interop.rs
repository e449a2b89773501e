//! gRPC's interoperability cases: our channel against grpc-go's server and tonic's, and grpc-go's
//! client against our server, in plaintext and over TLS.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/interop/mod.rs"]
mod interop;

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use callsign::{Channel, Server, registry::Memory};
use futures_util::future::join_all;
use interop::cases::{self, run_all, run_compressed, run_orca, soak_channel};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::transport;
use tower::{ServiceBuilder, util::MapResponseLayer};

/// Says what was left out past the capture of tests that pass.
#[allow(clippy::explicit_write)]
fn left_out(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "nothing may be left out here: {what}");
    writeln!(std::io::stderr(), "left out: {what}").unwrap();
}

/// grpc-go's programs, as `tests/run.sh` builds them.
fn grpc_go() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    let program = cache.join("callsign/interop");
    if program.exists() {
        return Some(program);
    }
    left_out("the cases with grpc-go; `tests/run.sh interop` builds it");
    None
}

/// A server of grpc-go, gone when this is dropped.
struct GrpcGo(Child, String);

impl GrpcGo {
    fn serve(flags: &[&str]) -> Option<Self> {
        let mut server = Command::new(grpc_go()?);
        let mut child = server.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Some(Self(child, address.trim().to_owned()))
    }
}

impl Drop for GrpcGo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Running {
    address: String,
    _stop: oneshot::Sender<()>,
    _served: JoinHandle<()>,
}

/// Our server with the interoperability service.
async fn ours(with: impl FnOnce(Server) -> Server) -> Running {
    let server = Server::new("interop");
    // The cases of load reports want what they ask for, and nothing that is measured.
    let router = transport::Server::builder()
        .layer(server.layer().reports(false).call_metrics(true))
        .layer(ServiceBuilder::new().layer(MapResponseLayer::new(interop::trailers)))
        .add_service(server.load_reports().measured(false))
        .add_service(interop::service(Some(server.metrics())));
    let server = with(server.grpc("127.0.0.1:0", router).drain(Duration::ZERO));
    let bound = server.bind(Memory::new()).await.unwrap();
    let address = bound.instance().addresses()[0].authority().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(async move { bound.serve(async { drop(stopped.await) }).await.unwrap() });
    Running { address, _stop: stop, _served: served }
}

async fn channel(target: String) -> Channel {
    Channel::connect(target).await.unwrap()
}

const CASES: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn our_channel_passes_every_case_with_grpc_go_s_server() {
    let Some(server) = GrpcGo::serve(&[]) else { return };
    let target = format!("static://{}/interop", server.1);
    assert_eq!(run_all(&channel(target.clone()).await).await.len(), CASES);
    run_orca(&channel(target.clone()).await).await;
    // channel_soak: each call on a channel of its own.
    join_all((0..50).map(|_| async { soak_channel(channel(target.clone()).await).await })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_channel_passes_every_case_with_our_server() {
    let server = ours(|server| server).await;
    let channel = channel(format!("static://{}/interop", server.address)).await;
    assert_eq!(run_all(&channel).await.len(), CASES);
    run_compressed(&channel).await;
    run_orca(&channel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_channel_passes_every_case_with_tonic_s_server() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = transport::Server::builder()
        .layer(ServiceBuilder::new().layer(MapResponseLayer::new(interop::trailers)))
        .add_service(interop::service(None));
    tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
    let channel = channel(format!("static://{address}/interop")).await;
    assert_eq!(run_all(&channel).await.len(), CASES);
    run_compressed(&channel).await;
}

const GRPC_GO_CASES: [&str; 21] = [
    "empty_unary",
    "large_unary",
    "large_unary_compressed",
    "client_streaming",
    "client_streaming_compressed",
    "server_streaming",
    "ping_pong",
    "ping_pong_compressed",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_service",
    "unimplemented_method",
    "orca_per_rpc",
    "orca_oob",
    "rpc_soak",
    "channel_soak",
];

/// Runs each case of grpc-go's client; tells what went wrong.
async fn grpc_go_calls(address: &str, flags: &[&str]) -> Vec<String> {
    let Some(program) = grpc_go() else { return Vec::new() };
    let mut wrong = Vec::new();
    for case in GRPC_GO_CASES {
        let mut client = Command::new(&program);
        client.args(["-call", address, "-case", case]).args(flags);
        let output = tokio::task::spawn_blocking(move || client.output().unwrap()).await.unwrap();
        if !output.status.success() {
            wrong.push(format!("{case}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_go_s_client_passes_every_case_with_our_server() {
    let server = ours(|server| server).await;
    let wrong = grpc_go_calls(&server.address, &[]).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// grpc-go ages a connection with GOAWAY, then closes it; no call may notice.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_grpc_go_ages_cost_no_call() {
    let Some(server) = GrpcGo::serve(&["-age", "300ms", "-streams", "20"]) else { return };
    let channel = channel(format!("static://{}/interop", server.1)).await;
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let begun = Instant::now();
    let callers = (0..64).map(|_| {
        let (channel, calls) = (channel.clone(), calls.clone());
        tokio::spawn(async move {
            while begun.elapsed() < Duration::from_secs(3) {
                cases::empty(channel.clone()).await.unwrap();
                calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    let calls = calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!(calls > 1_000, "only {calls} calls in 3 s");
}

#[cfg(feature = "tls")]
mod tls {
    use callsign::tls::ServerTls;

    use super::*;

    const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/ca.pem");
    const CHAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/server.pem");
    const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/server.key");

    fn target(address: &str) -> String {
        format!("static://{address}/interop?tls={CA}&tls_name=echo.example")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn our_channel_passes_every_case_with_grpc_go_s_server_over_tls() {
        let Some(server) = GrpcGo::serve(&["-cert", CHAIN, "-key", KEY]) else { return };
        assert_eq!(run_all(&channel(target(&server.1)).await).await.len(), CASES);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn our_channel_and_grpc_go_s_client_pass_every_case_with_our_server_over_tls() {
        let server = ours(|server| server.tls(ServerTls::identity_files(CHAIN, KEY))).await;
        let channel = channel(target(&server.address)).await;
        assert_eq!(run_all(&channel).await.len(), CASES);
        run_compressed(&channel).await;
        let wrong = grpc_go_calls(&server.address, &["-ca", CA, "-name", "echo.example"]).await;
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
