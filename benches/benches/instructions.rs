//! How many instructions a pick, a publication and a unary call take: counted, so that they are the
//! same on a busy machine, and held to what they were.
//!
//! `cargo bench -p callsign-bench --bench instructions`, where valgrind is installed.

use std::{
    convert::Infallible,
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use callsign::{
    Address, BoxFuture, Channel, Endpoint, EndpointKey, ServiceInstance,
    balance::{Node, Pick, PickInfo, Policy},
    channel::{Connector, Io},
    observe::{Event, Observer},
};
use callsign_bench::{
    echo::connection,
    raw::{Raw, Shape, on_channel},
    table::write,
    valgrind::{self, COUNT},
};
use http::HeaderMap;
use serde_json::json;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};
use tower::discover::Change;

/// What is counted, of how many endpoints, and the instructions that one may take at most: what it
/// took when this was last changed, and a tenth more for other compilers and processors.
const GATES: [(&str, usize, u64); 5] = [
    ("pick", 3, 580),
    ("pick", 10_000, 1_180),
    ("publish", 1_000, 236_000),
    ("unary", 8, 56_000),
    ("unary", 1_000, 65_000),
];

/// So often it is counted.
const TIMES: usize = 800;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [flag, what, endpoints, times] = args.as_slice()
        && flag == COUNT
    {
        return run(what, endpoints.parse()?, times.parse()?);
    }
    if !valgrind::is_there() {
        return Ok(());
    }
    let (mut rows, mut over) = (Vec::new(), Vec::new());
    println!("{:<12}{:>12}{:>16}{:>12}", "", "endpoints", "instructions", "at most");
    for (what, endpoints, most) in GATES {
        let each = valgrind::instructions(&[what, &endpoints.to_string()], TIMES)?;
        println!("{what:<12}{endpoints:>12}{each:>16}{most:>12}");
        rows.push(json!({ "what": what, "endpoints": endpoints, "instructions": each, "most": most }));
        if each > most {
            over.push(format!("{what} of {endpoints}: {each} > {most}"));
        }
    }
    write("instructions.json", &rows)?;
    if over.is_empty() { Ok(()) } else { Err(format!("more instructions than before: {}", over.join(", ")).into()) }
}

fn run(what: &str, endpoints: usize, times: usize) -> Result<(), Box<dyn Error>> {
    match what {
        "pick" => pick(endpoints, times),
        "publish" => publish(endpoints, times),
        _ => unary(endpoints, times),
    }
}

fn endpoint(at: usize, weight: usize) -> Result<Endpoint, Box<dyn Error>> {
    let address: Address = format!("grpc://10.{}.{}.{}:9000", at >> 16, (at >> 8) & 255, at & 255).parse()?;
    let instance = ServiceInstance::builder("echo", format!("e{at}"))?
        .address(address.clone())
        .metadata("weight", weight.to_string())
        .build()?;
    Ok(Endpoint::new(address.into(), instance))
}

/// Picks, with the call counted in and out.
fn pick(endpoints: usize, times: usize) -> Result<(), Box<dyn Error>> {
    let nodes = (0..endpoints).map(|at| Ok(Node::new(endpoint(at, 1)?, Arc::default())));
    let nodes = nodes.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let picker = Policy::default().balancer(1).rebuild(&nodes);
    let (headers, now) = (HeaderMap::new(), Instant::now());
    valgrind::count(times, &mut |times| {
        let mut random = times.start as u64;
        for _ in times {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let info = PickInfo::new("/echo.v1.Echo/Call", &headers, now, random);
            let Pick::At(at) = picker.pick(&info) else { return Err("no pick".into()) };
            drop(std::hint::black_box(nodes[at].load().start(now)));
        }
        Ok(())
    })
}

/// The runtime of a channel and its servers, whose clock goes by [`CALL`] for each call, however slow the machine is.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().start_paused(true).build()
}

const CALL: Duration = Duration::from_micros(50);

/// Connects to an echo server of its own in this very thread.
#[derive(Debug)]
struct InMemory;

impl Connector for InMemory {
    fn connect<'a>(&'a self, _: &'a EndpointKey) -> BoxFuture<'a, callsign::Result<Box<dyn Io>>> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(connection(theirs));
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Io>) })
    }
}

/// Counts what a channel publishes.
#[derive(Debug, Default)]
struct Published {
    times: AtomicUsize,
    ready: AtomicUsize,
}

impl Observer for Published {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::PickSet { ready, .. } = event {
            self.times.fetch_add(1, Relaxed);
            self.ready.store(*ready, Relaxed);
        }
    }
}

type Changes = mpsc::UnboundedSender<Result<Change<EndpointKey, Endpoint>, Infallible>>;

async fn channel(endpoints: usize) -> Result<(Channel, Changes, Arc<Published>), Box<dyn Error>> {
    let (changes, mut discover) = mpsc::unbounded_channel();
    for at in 0..endpoints {
        let endpoint = endpoint(at, 1)?;
        changes.send(Ok(Change::Insert(endpoint.key().clone(), endpoint)))?;
    }
    let published = Arc::new(Published::default());
    let channel = Channel::builder("echo")
        .discover(futures_util::stream::poll_fn(move |cx| discover.poll_recv(cx)))
        .connector(InMemory)
        .observer(published.clone())
        .seed(1)
        .connect()
        .await?;
    while published.ready.load(Relaxed) < endpoints {
        tokio::task::yield_now().await;
    }
    Ok((channel, changes, published))
}

/// Publishes a set, of which one endpoint has a new weight.
fn publish(endpoints: usize, times: usize) -> Result<(), Box<dyn Error>> {
    let runtime = runtime()?;
    let (_channel, changes, published) = runtime.block_on(channel(endpoints))?;
    valgrind::count(times, &mut |times| {
        runtime.block_on(async {
            for n in times {
                let before = published.times.load(Relaxed);
                let endpoint = endpoint(n % endpoints, n + 2)?;
                changes.send(Ok(Change::Insert(endpoint.key().clone(), endpoint)))?;
                while published.times.load(Relaxed) == before {
                    tokio::task::yield_now().await;
                }
            }
            Ok(())
        })
    })
}

/// Makes unary calls, the server's side in memory counted in.
fn unary(endpoints: usize, times: usize) -> Result<(), Box<dyn Error>> {
    let runtime = runtime()?;
    let (channel, _changes, _) = runtime.block_on(channel(endpoints))?;
    let shape = Shape::new(100, 1);
    let messages = shape.messages();
    valgrind::count(times, &mut |times| {
        runtime.block_on(async {
            for n in times {
                let call = on_channel(channel.clone(), Raw::default(), shape, messages.get(n));
                call.await.map_err(|error| error.to_string())?;
                tokio::time::advance(CALL).await;
            }
            Ok(())
        })
    })
}
