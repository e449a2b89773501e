//! What a pick costs, with the call counted in and out, by policy and number of endpoints; what two threads cost each
//! other; and whether the cells of two endpoints share a line of cache.
//!
//! `cargo bench -p callsign-bench --bench pick`. The least of several rounds.

use std::{
    error::Error,
    hint::black_box,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use callsign::{
    Address, Endpoint, ServiceInstance,
    balance::{Node, Pick, PickInfo, Picker, Policy, Probed},
    load::{BriefReport, LoadCell},
};
use callsign_bench::table::{Bound::AtMost, Marks, write};
use http::HeaderMap;

/// Whether servers report their load.
#[derive(Clone, Copy, PartialEq)]
enum Servers {
    Silent,
    Reporting,
}

use Servers::{Reporting, Silent};

/// What is printed, the policy, and its servers. A pick with probes is two, with what they say between.
const POLICIES: [(&str, &str, Servers); 12] = [
    ("adaptive", "adaptive", Silent),
    ("adaptive, reports", "adaptive,probes=false", Reporting),
    ("adaptive, probes", "adaptive", Reporting),
    ("prequal", "prequal", Reporting),
    ("least_request", "least_request", Silent),
    ("peak_ewma", "peak_ewma", Silent),
    ("round_robin", "round_robin", Silent),
    ("weighted_round_robin", "weighted_round_robin", Reporting),
    ("random", "random", Silent),
    ("ring_hash", "ring_hash", Silent),
    ("maglev", "maglev", Silent),
    ("pick_first", "pick_first", Silent),
];
const SIZES: [usize; 3] = [3, 100, 10_000];

fn main() -> Result<(), Box<dyn Error>> {
    let brief = std::env::args().any(|arg| arg == "--brief");
    let (rounds, picks) = if brief { (1, 1_000) } else { (9, 100_000) };
    let mut marks = Marks::default();
    println!("nanoseconds a pick, {picks} picks, the least of {rounds} rounds; and with another thread at work");
    let [few, some, many] = SIZES;
    println!("{:<24}{few:>16}{some:>16}{many:>16}", "endpoints");
    let mut held = Vec::new();
    for (name, policy, servers) in POLICIES {
        let mut line = format!("{name:<24}");
        for size in SIZES {
            let fleet = Fleet::new(policy, size, servers)?;
            let [alone, beside] = [1, 2].map(|threads| fleet.measure(threads, rounds, picks));
            let (alone, beside) = (alone?, beside?);
            line += &format!("{:>16}", format!("{alone:.1} {beside:.1}"));
            let (must, better) = match (name, size) {
                ("adaptive" | "adaptive, reports", 3) => (100.0, None),
                ("adaptive" | "adaptive, reports", 100) => (700.0, None),
                ("adaptive" | "adaptive, reports", _) => (300.0, None),
                ("least_request", _) => (60.0, Some(AtMost(30.0))),
                _ => continue,
            };
            held.push((format!("{name}, ns a pick of {size}"), alone, must, better));
        }
        println!("{line}");
    }
    println!();
    for (what, nanos, must, better) in held {
        marks.note(&what, nanos, AtMost(must), better);
    }
    marks.note("a cell beside a busy one, times as slow", neighbours(rounds, picks), AtMost(1.2), None);
    write("pick.json", &marks.rows())
}

/// A picker and its endpoints.
struct Fleet {
    name: String,
    picker: Box<dyn Picker>,
    nodes: Vec<Node>,
    reports: bool,
}

impl Fleet {
    fn new(policy: &str, size: usize, servers: Servers) -> Result<Self, Box<dyn Error>> {
        let nodes = (0..size).map(node).collect::<Result<Vec<_>, _>>()?;
        let picker = policy.parse::<Policy>()?.balancer(1).rebuild(&nodes);
        let fleet = Self { name: policy.to_owned(), picker, nodes, reports: servers == Reporting };
        (0..size).for_each(|at| fleet.hear(at, Instant::now()));
        Ok(fleet)
    }

    /// What a server's answer says of it.
    fn hear(&self, at: usize, now: Instant) {
        let report = BriefReport {
            utilization: 0.5,
            requests_per_second: 100.0,
            in_flight: Some((at % 4) as f64),
            latency: Some(Duration::from_micros(1_000 + at as u64 % 64)),
            ..BriefReport::default()
        };
        if self.reports {
            self.nodes[at].load().report(&report, now);
        }
    }

    /// Nanoseconds a pick, of as many threads at once.
    fn measure(&self, threads: usize, rounds: usize, picks: usize) -> Result<f64, String> {
        let mut least = f64::INFINITY;
        for round in 0..rounds {
            let together = Barrier::new(threads);
            let took: Vec<_> = thread::scope(|scope| {
                let run = |thread| self.run((round * threads + thread) as u64, picks, &together);
                let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
                all.into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread died".to_owned())))
                    .collect()
            });
            for took in took {
                least = least.min(took?);
            }
            if self.nodes.iter().any(|node| node.load().in_flight() > 0) {
                return Err(format!("{}: calls that were not counted out", self.name));
            }
        }
        Ok(least)
    }

    fn run(&self, seed: u64, picks: usize, together: &Barrier) -> Result<f64, String> {
        let (headers, mut now) = (HeaderMap::new(), Instant::now());
        let (mut random, mut wrong, mut recent) = (seed * 2 + 1, 0, None);
        together.wait();
        let begun = Instant::now();
        for _ in 0..picks {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // A million calls a second, so that what is done now and then counts too.
            now += Duration::from_micros(1);
            let mut info = PickInfo::new("/echo.v1.Echo/Call", &headers, now, random);
            info.recent = recent;
            let mut pick = self.picker.pick(&info);
            let probes;
            if let Pick::Probe(these) = pick {
                probes = these;
                info.probed = Some(Probed::new(probes.at(), probes.at(), Duration::from_micros(100)));
                pick = self.picker.pick(&info);
            }
            match pick {
                Pick::At(at) if at < self.nodes.len() => {
                    recent = Some(at);
                    drop(black_box(self.nodes[at].load().start(now)));
                }
                _ => wrong += 1,
            }
        }
        let took = begun.elapsed().as_secs_f64() * 1e9 / picks as f64;
        if wrong > 0 { Err(format!("{}: {wrong} picks of nothing", self.name)) } else { Ok(took) }
    }
}

/// How many times slower it is to count calls at an endpoint while another thread counts at the next one in memory.
fn neighbours(rounds: usize, calls: usize) -> f64 {
    let cells: Box<[Arc<LoadCell>; 2]> = Box::default();
    let now = Instant::now();
    let count = |cell: &Arc<LoadCell>| {
        let begun = Instant::now();
        (0..calls * 10).for_each(|_| drop(black_box(cell.start(now))));
        begun.elapsed().as_secs_f64()
    };
    let (mut alone, mut beside) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        alone = alone.min(count(&cells[0]));
        let together = Barrier::new(2);
        beside = thread::scope(|scope| {
            let other = scope.spawn(|| {
                together.wait();
                count(&cells[1])
            });
            together.wait();
            let took = count(&cells[0]);
            drop(other.join());
            beside.min(took)
        });
    }
    beside / alone
}

fn node(at: usize) -> callsign::Result<Node> {
    let address: Address = format!("grpc://10.0.{}.{}:9000", at >> 8, at & 255).parse()?;
    let instance = ServiceInstance::builder("echo", format!("e{at}"))?.address(address.clone()).build()?;
    Ok(Node::new(Endpoint::new(address.into(), instance), Arc::default()))
}
