//! What the agent checks by itself, of servers of ours: their health service, their HTTP, their port.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use callsign::{
    Server,
    registry::{Consul, ConsulBuilder, ConsulCheck, Discovery, Watch},
    tls::{ClientTls, ServerTls},
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{BOUND, data, follow::eventually, name, real, shows};
use crate::echo::Echo;

/// A server on a runtime of its own, which can hang as a whole, or end as if it were killed.
struct Alone {
    hang: mpsc::Sender<mpsc::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
    end: Option<oneshot::Sender<()>>,
}

impl Alone {
    async fn start(server: impl FnOnce() -> Server + Send + 'static, registry: Consul) -> Self {
        let (hang, hangs) = mpsc::channel::<mpsc::Receiver<()>>();
        let (end, ended) = oneshot::channel();
        let (registered, is_registered) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let bound = server().bind(registry).await.unwrap();
                let registration = bound.registration().clone();
                let serving = tokio::spawn(bound.serve(std::future::pending()));
                registration.registered_within(BOUND).await.unwrap();
                registered.send(()).unwrap();
                tokio::spawn(async move {
                    loop {
                        if let Ok(until) = hangs.try_recv() {
                            // Nothing else runs meanwhile.
                            let _ = until.recv();
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                });
                let _ = ended.await;
                drop(serving);
            });
        });
        is_registered.await.unwrap();
        Self { hang, thread: Some(thread), end: Some(end) }
    }

    /// Until what is returned is dropped.
    fn hang(&self) -> mpsc::Sender<()> {
        let (go_on, until) = mpsc::channel();
        self.hang.send(until).unwrap();
        go_on
    }

    fn kill(mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// With a TTL that nothing here waits for: what leaves the set leaves it by the agent's check.
fn checked(consul: &real::Consul, check: ConsulCheck) -> ConsulBuilder {
    let builder = Consul::builder([consul.address()]).ttl(Duration::from_secs(120));
    builder.checks([check]).check_interval(Duration::from_secs(1))
}

/// By connections of its own: those of the server's registry hang and end with its runtime.
fn watch(consul: &real::Consul) -> Watch {
    Consul::builder([consul.address()]).build().unwrap().watch(&name("echo"))
}

/// What the agent says of an instance, by the kind of its checks. (The catalog is told of a new output only
/// minutes later.)
fn says(consul: &real::Consul, kind: &str) -> Value {
    let all = consul.ask("GET", "/v1/agent/checks", None);
    all.as_object().unwrap().values().find(|check| check["Type"] == kind).cloned().unwrap_or_default()
}

/// The agent has asked, and is content: it is not only what the registration said.
async fn passes(consul: &real::Consul, kind: &str) {
    let holds = || says(consul, kind)["Status"] == "passing" && says(consul, kind)["Output"] != "";
    eventually(&format!("passing {kind}"), holds).await;
}

fn grpc() -> Server {
    let router = tonic::transport::Server::builder().add_service(Echo::new("a"));
    Server::new("echo").id("a").grpc("127.0.0.1:0", router).advertise("127.0.0.1")
}

#[tokio::test]
async fn the_agent_asks_our_health_service_and_one_that_hangs_is_out_until_it_answers() {
    let Some(consul) = real::Consul::start() else { return };
    let registry = checked(&consul, ConsulCheck::Grpc).build().unwrap();
    let mut watch = watch(&consul);
    let server = Alone::start(grpc, registry).await;
    // C12, W6: seen at once, before the check has run.
    shows(&mut watch, &["a"]).await;
    passes(&consul, "grpc").await;
    let hung = server.hang();
    shows(&mut watch, &[]).await;
    assert_eq!(
        (&says(&consul, "grpc")["Status"], &says(&consul, "ttl")["Status"]),
        (&json!("critical"), &json!("passing"))
    );
    drop(hung);
    shows(&mut watch, &["a"]).await;
    server.kill();
}

#[tokio::test]
async fn the_agent_asks_our_health_service_over_tls_by_the_service_s_name() {
    let more = json!({"enable_agent_tls_for_checks": true, "tls": {"defaults": {"ca_file": data("ca.pem")}}});
    let Some(consul) = real::Consul::with(more) else { return };
    let registry = checked(&consul, ConsulCheck::Grpc).build().unwrap();
    let mut watch = watch(&consul);
    let secure = || grpc().tls(ServerTls::identity_files(data("server.pem"), data("server.key")));
    let server = Alone::start(secure, registry).await;
    passes(&consul, "grpc").await;
    shows(&mut watch, &["a"]).await;
    let address = watch.view().snapshot().unwrap().instances()[0].addresses()[0].to_string();
    let channel = callsign::Channel::builder(format!("static://{}/echo", address.trim_start_matches("grpcs://")));
    let channel = channel.tls(ClientTls::new().ca_file(data("ca.pem"))).connect_lazy().unwrap();
    let mut client = crate::echo::EchoClient::new(channel);
    assert_eq!(client.unary(crate::echo::EchoRequest::default()).await.unwrap().into_inner().server, "a");
    server.kill();
    shows(&mut watch, &[]).await;
}

#[tokio::test]
async fn the_agent_asks_our_http_for_a_path_and_503_is_out_until_200() {
    let Some(consul) = real::Consul::start() else { return };
    let registry = checked(&consul, ConsulCheck::Http).check_path("/ready").build().unwrap();
    let mut watch = watch(&consul);
    let ready = Arc::new(AtomicBool::new(true));
    let answer = {
        let ready = ready.clone();
        move || async move { if ready.load(SeqCst) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE } }
    };
    let router = Router::new().route("/ready", get(answer));
    let server = move || Server::new("echo").id("a").http("127.0.0.1:0", router).advertise("127.0.0.1");
    let server = Alone::start(server, registry).await;
    passes(&consul, "http").await;
    shows(&mut watch, &["a"]).await;
    ready.store(false, SeqCst);
    shows(&mut watch, &[]).await;
    ready.store(true, SeqCst);
    shows(&mut watch, &["a"]).await;
    server.kill();
    shows(&mut watch, &[]).await;
}

/// C12: one that was killed is out as soon as nobody listens, its TTL notwithstanding.
#[tokio::test]
async fn the_agent_knocks_at_our_port_and_one_that_was_killed_is_out_before_its_ttl() {
    let Some(consul) = real::Consul::start() else { return };
    let registry = checked(&consul, ConsulCheck::Tcp).build().unwrap();
    let mut watch = watch(&consul);
    let server = Alone::start(grpc, registry).await;
    passes(&consul, "tcp").await;
    shows(&mut watch, &["a"]).await;
    server.kill();
    shows(&mut watch, &[]).await;
    assert_eq!(
        (&says(&consul, "tcp")["Status"], &says(&consul, "ttl")["Status"]),
        (&json!("critical"), &json!("passing"))
    );
}
