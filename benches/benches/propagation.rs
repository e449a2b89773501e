//! How long it takes until a client's calls know of a server that came, left, or was killed.
//!
//! `cargo bench -p callsign-bench --features registries --bench propagation` (without the features, ZooKeeper and
//! Kubernetes are left out); with `-- NAME` only on the registries whose name
//! contains it. Registries are real, one each, on loopback; `tests/run.sh` builds them, and those that are
//! missing are left out. The clock begins when a server asks to be registered, asks to be taken out, or
//! is sent SIGKILL, and ends when the channel has published the set that calls pick from.

#[path = "../../tests/support/servers/consul.rs"]
mod consul;
#[path = "../../tests/support/dir.rs"]
mod dir;
#[path = "../../tests/support/servers/etcd.rs"]
mod etcd;
#[cfg(feature = "registries")]
#[path = "../../tests/support/servers/kube_apiserver.rs"]
mod kube_apiserver;
#[path = "../../tests/support/servers/mod.rs"]
mod servers;
#[cfg(feature = "registries")]
#[path = "../../tests/support/servers/zookeeper.rs"]
mod zookeeper;

use std::{
    error::Error,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use callsign::{
    Channel, Registry, ServiceInstance,
    observe::{Event, Observer},
};
use callsign_bench::{
    echo::{SERVE, Server, serve},
    table::{percentile, write},
};
use serde_json::json;
use tokio::{sync::watch, time::timeout};

/// Tells how many endpoints calls can pick from.
#[derive(Debug)]
struct Ready(watch::Sender<usize>);

impl Observer for Ready {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::PickSet { ready, .. } = event {
            self.0.send_replace(*ready);
        }
    }
}

const SERVICE: &str = "propagation";

fn instance(id: &str, address: SocketAddr) -> Result<Arc<ServiceInstance>, callsign::Error> {
    let instance = ServiceInstance::builder(SERVICE, id)?.address(format!("grpc://{address}").parse()?).build()?;
    Ok(Arc::new(instance))
}

async fn until(ready: &mut watch::Receiver<usize>, wanted: usize, begun: Instant) -> Result<f64, Box<dyn Error>> {
    let reached = timeout(Duration::from_secs(60), ready.wait_for(|ready| *ready == wanted)).await;
    reached.map_err(|_| format!("not {wanted} ready endpoints after 60 s"))??;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// The registry of the server that listens there: in Kubernetes each has a Pod of its own.
type Of<'a> = &'a dyn Fn(SocketAddr) -> callsign::Result<Registry>;

/// Milliseconds to registration, deregistration and SIGKILL, each time.
async fn measure(registry: &Registry, of: Of<'_>, times: usize) -> Result<[Vec<f64>; 3], Box<dyn Error>> {
    let servers = Server::start(2)?;
    let firsts = of(servers.addresses()[0])?;
    let first = firsts.registrar()?.register(&instance("first", servers.addresses()[0])?).await?;
    let seconds = of(servers.addresses()[1])?;
    let registrar = seconds.registrar()?;
    let (sender, mut ready) = watch::channel(0);
    let channel =
        Channel::builder(SERVICE).registry(registry.clone()).observer(Arc::new(Ready(sender))).connect().await?;
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    for n in 0..times {
        until(&mut ready, 1, Instant::now()).await?;
        let second = instance(&format!("second-{n}"), servers.addresses()[1])?;
        let begun = Instant::now();
        let lease = registrar.register(&second).await?;
        took[0].push(until(&mut ready, 2, begun).await?);
        let begun = Instant::now();
        registrar.deregister(&lease).await?;
        took[1].push(until(&mut ready, 1, begun).await?);
        // Leases are renewed here, as nothing else does.
        firsts.registrar()?.renew(&first).await?;
    }
    for n in 0..times / 3 {
        let killed = Server::start(1)?;
        let thirds = of(killed.addresses()[0])?;
        let registrar = thirds.registrar()?;
        let lease = registrar.register(&instance(&format!("killed-{n}"), killed.addresses()[0])?).await?;
        until(&mut ready, 2, Instant::now()).await?;
        let begun = Instant::now();
        drop(killed);
        took[2].push(until(&mut ready, 1, begun).await?);
        registrar.deregister(&lease).await?;
        firsts.registrar()?.renew(&first).await?;
    }
    firsts.registrar()?.deregister(&first).await?;
    drop(channel);
    Ok(took)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(at) = args.iter().position(|arg| arg == SERVE) {
        return runtime.block_on(serve(args.get(at + 1).ok_or("how many ports?")?.parse()?));
    }
    let brief = args.iter().any(|arg| arg == "--brief");
    let only = args.iter().find(|arg| !arg.starts_with("--"));
    let times = if brief { 3 } else { 60 };

    println!("milliseconds until calls know, {times} times; of SIGKILL {}", times / 3);
    println!("{:<14}{:>22}{:>22}{:>22}", "", "registered", "deregistered", "killed");
    println!("{:<14}{}", "", format!("{:>11}{:>11}", "p50", "p99").repeat(3));
    let mut rows = Vec::new();
    let mut run = |name: &str, uri: &str, of: Option<Of<'_>>| -> Result<(), Box<dyn Error>> {
        let registry = callsign::registry(uri)?;
        let same = |_| Ok(registry.clone());
        let took = measure(&registry, of.unwrap_or(&same), times);
        let took = runtime.block_on(took).map_err(|error| format!("{name}: {error}"))?;
        print!("{name:<14}");
        for (what, mut took) in ["registered", "deregistered", "killed"].into_iter().zip(took) {
            let [p50, p99] = [0.5, 0.99].map(|share| percentile(&mut took, share));
            print!("{p50:>11.1}{p99:>11.1}");
            rows.push(json!({ "registry": name, "what": what, "p50_ms": p50, "p99_ms": p99 }));
        }
        println!();
        Ok(())
    };
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only.as_str()));
    if wanted("memory") {
        run("memory", "memory://propagation", None)?;
    }
    if wanted("file") {
        let directory = dir::TempDir::new();
        run("file", &format!("file://{}", directory.path().display()), None)?;
    }
    if wanted("etcd")
        && let Some(etcd) = etcd::Etcd::start(1)
    {
        run("etcd", &format!("etcd://127.0.0.1:{}", etcd.port(0)), None)?;
    }
    if wanted("consul")
        && let Some(consul) = consul::Consul::start()
    {
        run("consul", &format!("consul://{}", consul.address()), None)?;
    }
    #[cfg(feature = "registries")]
    if wanted("zookeeper")
        && let Some(zookeeper) = zookeeper::ZooKeeper::start(1)
    {
        run("zookeeper", &format!("zookeeper://{}", zookeeper.members()[0]), None)?;
    }
    #[cfg(feature = "registries")]
    let directory = dir::TempDir::new();
    #[cfg(feature = "registries")]
    if wanted("kubernetes")
        && let Some(mut kubernetes) = kube_apiserver::KubeApiserver::start(directory.path())
    {
        kubernetes.wait();
        let uri = format!("kubernetes://?mode=pods&kubeconfig={}", kubernetes.kubeconfig("admin").display());
        let of = |address: SocketAddr| {
            let pod = format!("pod-{}", address.port());
            kubernetes.make_pod(&pod, &[address.port()]);
            callsign::registry(&format!("{uri}&pod={pod}"))
        };
        run("kubernetes", &uri, Some(&of))?;
    }
    write("propagation.json", &rows)
}
