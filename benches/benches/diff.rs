//! What a change of a large set costs: the resolver's part, the channel's, and memory.
//!
//! `cargo bench -p callsign-bench --bench diff`. On one thread, so that what is timed is the work.

use std::{
    convert::Infallible,
    error::Error,
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use callsign::{
    Address, BoxFuture, Channel, Endpoint, EndpointKey, ServiceInstance,
    observe::{Event, Observer},
    registry::{Snapshot, Update, Watch},
    resolver::Resolver,
};
use callsign_bench::{
    echo::{SERVE, Server, serve},
    table::{Bound::AtMost, Marks, median, write},
};
use futures_util::StreamExt;
use tokio::{runtime::Builder, sync::mpsc, task::yield_now};
use tower::discover::Change;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    if let Some(at) = args.iter().position(|arg| arg == SERVE) {
        return runtime.block_on(serve(args.get(at + 1).ok_or("how many ports?")?.parse()?));
    }
    let brief = args.iter().any(|arg| arg == "--brief");
    let (size, rounds) = if brief { (100, 2) } else { (10_000, 15) };
    // The first come after ten thousand connections, and find memory as those left it.
    let control_rounds = rounds * 20;
    // Each part in a process of its own, which is as small as it gets.
    if let Some(part) = args.iter().find_map(|arg| arg.strip_prefix("--part=")) {
        let part: BoxFuture<'_, _> = match part {
            "channel" => Box::pin(channel(size, control_rounds)),
            "known" => Box::pin(known(size)),
            _ => Box::pin(resolver(size, rounds)),
        };
        return runtime.block_on(part);
    }
    let mut marks = Marks::default();
    println!("{size} endpoints, medians of {rounds} rounds, {control_rounds} of the control task\n");
    for part in ["resolver", "known", "channel"] {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args.iter().filter(|arg| *arg == "--brief")).arg(format!("--part={part}"));
        let output = command.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{part} failed").into());
        }
        for line in String::from_utf8(output.stdout)?.lines() {
            let (what, value) = line.rsplit_once('=').ok_or("a line without a figure")?;
            let (must, stretch) =
                MARKS.iter().find(|(name, ..)| *name == what).map_or((f64::INFINITY, None), |mark| (mark.1, mark.2));
            marks.note(what, value.parse()?, AtMost(must), stretch.map(AtMost));
        }
    }
    write("diff.json", &marks.rows())
}

/// What figures are held to, all of them at most.
const MARKS: [(&str, f64, Option<f64>); 3] = [
    ("memory of an endpoint that is only known, KiB", 1.0, None),
    ("memory of a connected endpoint, KiB", 20.0, None),
    ("control task, one of all changes, ms", 1.0, Some(0.1)),
];

fn instance(at: usize, weight: usize) -> callsign::Result<Arc<ServiceInstance>> {
    let address: Address = format!("grpc://10.{}.{}.{}:9000", at >> 16, (at >> 8) & 255, at & 255).parse()?;
    let builder = ServiceInstance::builder("echo", format!("e{at}"))?.address(address);
    Ok(Arc::new(builder.metadata("weight", weight.to_string()).build()?))
}

/// From a set to the changes.
async fn resolver(size: usize, rounds: usize) -> Result<(), Box<dyn Error>> {
    let (sender, watch) = Watch::channel();
    let mut resolver = Resolver::new("echo".parse()?, watch);
    let mut set = (0..size).map(|at| instance(at, 1)).collect::<Result<Vec<_>, _>>()?;
    sender.send(Update::Instances(Snapshot::new(set.clone())));
    let mut changes = 0;
    let mut take = async |wanted: usize| {
        let mut taken = 0;
        while taken < wanted {
            resolver.next().await.ok_or("the resolver ended")??;
            taken += 1;
        }
        changes += taken;
        Ok::<_, Box<dyn Error>>(())
    };
    take(size).await?;
    let (mut one, mut all) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        set[round % size] = instance(round % size, round + 2)?;
        let snapshot = Snapshot::new(set.clone());
        let begun = Instant::now();
        sender.send(Update::Instances(snapshot));
        take(1).await?;
        one.push(begun.elapsed().as_secs_f64() * 1e3);
        let base = (round + 1) * size;
        set = (base..base + size).map(|at| instance(at, 1)).collect::<Result<Vec<_>, _>>()?;
        let snapshot = Snapshot::new(set.clone());
        let begun = Instant::now();
        sender.send(Update::Instances(snapshot));
        take(size * 2).await?;
        all.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    println!("resolver, one of all changes, ms={}", median(one));
    println!("resolver, all replaced, ms={}", median(all));
    Ok(())
}

/// KiB of this process that are in memory.
fn resident() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or_default() * 4.0
}

type Changes = mpsc::UnboundedSender<Result<Change<EndpointKey, Endpoint>, Infallible>>;

#[derive(Debug, Default)]
struct Seen {
    times: AtomicUsize,
    known: AtomicUsize,
    ready: AtomicUsize,
}

impl Observer for Seen {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::PickSet { ready, known, .. } = event {
            self.known.store(*known, Relaxed);
            self.ready.store(*ready, Relaxed);
            self.times.fetch_add(1, Relaxed);
        }
    }
}

/// So many endpoints at one address, told apart by the name that TLS would expect.
fn endpoint(address: SocketAddr, at: usize, weight: usize) -> callsign::Result<Endpoint> {
    let address: Address = format!("grpc://{address}").parse()?;
    let key = EndpointKey::from(address.clone()).with_server_name(format!("e{at}"));
    let builder = ServiceInstance::builder("echo", format!("e{at}"))?.address(address);
    Ok(Endpoint::new(key, builder.metadata("weight", weight.to_string()).build()?))
}

fn start(policy: &str) -> Result<(Channel, Changes, Arc<Seen>), Box<dyn Error>> {
    let (changes, mut discover) = mpsc::unbounded_channel();
    let seen = Arc::new(Seen::default());
    let channel = Channel::builder("echo")
        .policy(policy.parse()?)
        .discover(futures_util::stream::poll_fn(move |cx| discover.poll_recv(cx)))
        .observer(seen.clone())
        .max_dials(256)
        .connect_lazy()?;
    Ok((channel, changes, seen))
}

fn insert(changes: &Changes, endpoint: &Endpoint) -> Result<(), Box<dyn Error>> {
    Ok(changes.send(Ok(Change::Insert(endpoint.key().clone(), endpoint.clone())))?)
}

/// Inserts them by portions, so that no long queue is counted as the channel's.
async fn fill(changes: &Changes, seen: &Seen, endpoints: &[Endpoint]) -> Result<(), Box<dyn Error>> {
    let mut told = 0;
    for portion in endpoints.chunks(100) {
        portion.iter().try_for_each(|endpoint| insert(changes, endpoint))?;
        told += portion.len();
        while seen.known.load(Relaxed) < told {
            yield_now().await;
        }
    }
    Ok(())
}

/// Endpoints of which one is connected.
async fn known(size: usize) -> Result<(), Box<dyn Error>> {
    let server = Server::start(1)?;
    let endpoints = (0..size).map(|at| endpoint(server.addresses()[0], at, 1)).collect::<Result<Vec<_>, _>>()?;
    let before = resident();
    let (_channel, changes, seen) = start("pick_first")?;
    fill(&changes, &seen, &endpoints).await?;
    println!("memory of an endpoint that is only known, KiB={}", (resident() - before) / size as f64);
    Ok(())
}

/// Endpoints that are all connected.
async fn channel(size: usize, rounds: usize) -> Result<(), Box<dyn Error>> {
    let server = Server::start(1)?;
    let endpoints = (0..size).map(|at| endpoint(server.addresses()[0], at, 1)).collect::<Result<Vec<_>, _>>()?;
    let before = resident();
    let (_channel, changes, seen) = start("least_request")?;
    fill(&changes, &seen, &endpoints).await?;
    while seen.ready.load(Relaxed) < size {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("memory of a connected endpoint, KiB={}", (resident() - before) / size as f64);
    let mut one = Vec::new();
    for round in 0..rounds {
        let endpoint = endpoint(server.addresses()[0], round % size, round + 2)?;
        let (published, begun) = (seen.times.load(Relaxed), Instant::now());
        insert(&changes, &endpoint)?;
        while seen.times.load(Relaxed) == published {
            yield_now().await;
        }
        one.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    println!("control task, one of all changes, ms={}", median(one));
    Ok(())
}
