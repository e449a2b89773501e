//! What a call costs the client, beside the other clients there are.
//!
//! `cargo bench -p callsign-bench --bench call`; with `-- --brief` only to see that it works; with
//! `-- WORKLOAD CLIENT` only the workloads whose name contains the one, by the other. Each reply is checked. All clients take
//! turns within one run; what counts is the median of the rounds, and of the rounds' ratios.

use std::error::Error;

use callsign_bench::{
    awake::{AWAKE, Awake, stay_awake},
    clients::{BALANCE_LIST, CALLSIGN, CALLSIGN_SMALL, Client, H2, HYPER, TONIC, plaintext, secure},
    echo::{SERVE, Server, serve},
    raw::Shape,
    table::{
        Bound::{AtLeast, AtMost},
        Marks, Measured, Workload, measure, write,
    },
    together::Together,
};
use tokio::runtime::{Builder, Runtime};

const ENDPOINTS: usize = 8;
const UNARY: &str = "unary 100 B";

fn workloads() -> Vec<Workload> {
    let small = Shape::new(100, 1);
    let unary = |concurrency, calls| Workload::new(UNARY, small, concurrency, calls);
    let mut all = vec![unary(1, 1_000), unary(64, 12_800), unary(512, 15_360)];
    let both = all.clone();
    all.extend(both.into_iter().map(|mut workload| {
        workload.workers = 2;
        workload
    }));
    all.extend([
        Workload::new("unary 64 KiB", Shape::new(64 << 10, 1), 16, 480),
        Workload::new("unary 1 MiB", Shape::new(1 << 20, 1), 8, 48),
        Workload::new("stream of 1,000", Shape::new(100, 1_000), 8, 48),
        Workload::new("unary 100 B, TLS", small, 64, 12_800),
        Workload::new("unary 1 MiB, TLS", Shape::new(1 << 20, 1), 8, 48),
    ]);
    all
}

fn runtime(workers: usize) -> std::io::Result<Runtime> {
    match workers {
        1 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(workers).enable_all().build(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == SERVE) {
        let ports = args.get(at + 1).ok_or("how many ports?")?.parse()?;
        return runtime(1)?.block_on(serve(ports));
    }
    if args.iter().any(|arg| arg == AWAKE) {
        stay_awake();
        return Ok(());
    }
    let brief = args.iter().any(|arg| arg == "--brief");
    let mut names = args.iter().filter(|arg| !arg.starts_with("--"));
    let (only, client) = (names.next(), names.next());
    let (server, _awake) = (Server::start(ENDPOINTS)?, Awake::start()?);
    let mut measured = Vec::new();
    for workers in [1, 2] {
        let runtime = runtime(workers)?;
        let mut clients: Vec<Client> = runtime.block_on(plaintext(&server)).map_err(|error| error.to_string())?;
        let mut secured: Vec<Client> = runtime.block_on(secure(&server)).map_err(|error| error.to_string())?;
        clients.retain(|(name, _)| client.is_none_or(|client| name == client));
        secured.retain(|(name, _)| client.is_none_or(|client| name == client));
        for mut workload in workloads() {
            if workload.workers != workers || only.is_some_and(|only| !workload.name.contains(only)) {
                continue;
            }
            // What is bound by memory swings from round to round.
            let mut rounds = match workload.concurrency {
                1 => 17,
                8 | 16 => 25,
                _ => 9,
            };
            if brief {
                (rounds, workload.calls) = (1, workload.concurrency * 2);
            }
            let _together = (workload.concurrency == 1 && !brief).then(|| Together::with(server.pid()));
            let one = runtime.block_on(measure(
                if workload.name.ends_with("TLS") { &secured } else { &clients },
                workload,
                rounds,
            ))?;
            one.print();
            measured.push((workload, one));
        }
    }
    println!();
    let mut rows: Vec<_> = measured.iter().flat_map(|(_, one)| one.rows()).collect();
    rows.extend(marks(&measured).rows());
    write("call.json", &rows)
}

/// The ratios that this crate holds itself to.
fn marks(measured: &[(Workload, Measured)]) -> Marks {
    let mut marks = Marks::default();
    let find = |name: &str, concurrency, workers| {
        let is = |workload: &Workload| {
            workload.name == name && workload.concurrency == concurrency && workload.workers == workers
        };
        measured.iter().find(|(workload, _)| is(workload)).map(|(_, one)| one)
    };
    if let Some(one) = find(UNARY, 64, 1) {
        let cpu = |other| one.ratio(CALLSIGN, other, |round| round.cpu_us);
        marks.note("CPU a call to balance_list's, 64 in flight", cpu(BALANCE_LIST), AtMost(0.60), Some(AtMost(0.45)));
        marks.note("CPU a call to bare hyper's, 64 in flight", cpu(HYPER), AtMost(0.95), None);
        let small = one.ratio(CALLSIGN_SMALL, H2, |round| round.cpu_us);
        marks.note("CPU a call to bare h2's, 64, small buffers", small, AtMost(f64::INFINITY), Some(AtMost(1.25)));
        let [count, bytes] = one.allocations(CALLSIGN);
        marks.note("allocations a call", count, AtMost(23.0), Some(AtMost(20.0)));
        marks.note("bytes allocated a call", bytes, AtMost(20e3), None);
        let [_, small] = one.allocations(CALLSIGN_SMALL);
        marks.note("bytes allocated a call, small buffers", small, AtMost(20e3), Some(AtMost(3.5e3)));
    }
    let rates = [(1, 1, 1.2, None), (64, 1, 1.8, Some(2.3)), (512, 1, 1.9, Some(2.3)), (64, 2, 1.9, Some(2.5))];
    for (concurrency, workers, must, stretch) in rates {
        let Some(one) = find(UNARY, concurrency, workers) else { continue };
        let what = format!("RPC/s to balance_list's, {concurrency} in flight, {workers} threads");
        let ratio = one.ratio(CALLSIGN, BALANCE_LIST, |round| round.rps);
        marks.note(&what, ratio, AtLeast(must), stretch.map(AtLeast));
    }
    if let Some(one) = find(UNARY, 1, 1) {
        let p50 = one.ratio(CALLSIGN, BALANCE_LIST, |round| round.p50_us);
        marks.note("p50 to balance_list's, 1 in flight", p50, AtMost(0.85), Some(AtMost(0.80)));
    }
    for (workload, one) in measured.iter().filter(|(workload, _)| workload.name != UNARY) {
        let what = format!("RPC/s to tonic Channel's, {}", workload.name);
        let ratio = one.ratio(CALLSIGN, TONIC, |round| round.rps);
        marks.note(&what, ratio, AtLeast(1.0), Some(AtLeast(1.2)));
    }
    marks
}
