//! What a pick costs, with the call counted in and out, by policy and number of endpoints.
//!
//! `cargo bench -p callsign-bench --bench pick`. One thread; the least of several rounds.

use std::{
    error::Error,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use callsign::{
    Address, Endpoint, ServiceInstance,
    balance::{Node, Pick, PickInfo, Policy},
};
use callsign_bench::table::{Bound::AtMost, Marks, write};
use http::HeaderMap;

const POLICIES: [&str; 9] = [
    "adaptive",
    "least_request",
    "peak_ewma",
    "round_robin",
    "weighted_round_robin",
    "random",
    "ring_hash",
    "maglev",
    "pick_first",
];
const SIZES: [usize; 3] = [3, 100, 10_000];

fn main() -> Result<(), Box<dyn Error>> {
    let brief = std::env::args().any(|arg| arg == "--brief");
    let (rounds, picks) = if brief { (1, 1_000) } else { (9, 200_000) };
    let mut marks = Marks::default();
    println!("nanoseconds a pick, {picks} picks, the least of {rounds} rounds");
    println!("{:<16}{:>10}{:>10}{:>10}", "endpoints", SIZES[0], SIZES[1], SIZES[2]);
    let mut lines = Vec::new();
    for policy in POLICIES {
        let mut line = format!("{policy:<16}");
        for size in SIZES {
            let nanos = measure(policy, size, rounds, picks)?;
            line += &format!("{nanos:>10.1}");
            if policy == "least_request" || policy == "adaptive" {
                lines.push((policy, size, nanos));
            }
        }
        println!("{line}");
    }
    println!();
    for (policy, size, nanos) in lines {
        let (must, better) = match (policy, size) {
            ("adaptive", 3) => (100.0, None),
            ("adaptive", 100) => (700.0, None),
            ("adaptive", _) => (300.0, None),
            _ => (60.0, Some(AtMost(30.0))),
        };
        marks.note(&format!("{policy}, ns a pick of {size}"), nanos, AtMost(must), better);
    }
    write("pick.json", &marks.rows())
}

fn measure(policy: &str, size: usize, rounds: usize, picks: usize) -> Result<f64, Box<dyn Error>> {
    let nodes = (0..size).map(node).collect::<Result<Vec<_>, _>>()?;
    let picker = policy.parse::<Policy>()?.balancer(1).rebuild(&nodes);
    let (headers, mut now) = (HeaderMap::new(), Instant::now());
    let mut least = f64::INFINITY;
    let mut random = 1_u64;
    for _ in 0..rounds {
        let (begun, mut wrong, mut recent) = (Instant::now(), 0, None);
        for _ in 0..picks {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // A million calls a second, so that what is done now and then counts too.
            now += Duration::from_micros(1);
            let mut info = PickInfo::new("/echo.v1.Echo/Call", &headers, now, random);
            info.recent = recent;
            match picker.pick(&info) {
                Pick::At(at) if at < size => {
                    recent = Some(at);
                    drop(black_box(nodes[at].load().start(now)));
                }
                _ => wrong += 1,
            }
        }
        least = least.min(begun.elapsed().as_secs_f64() * 1e9 / picks as f64);
        if wrong > 0 || nodes.iter().any(|node| node.load().in_flight() > 0) {
            return Err(format!("{policy}: {wrong} picks of nothing, or calls that were not counted out").into());
        }
    }
    Ok(least)
}

fn node(at: usize) -> callsign::Result<Node> {
    let address: Address = format!("grpc://10.0.{}.{}:9000", at >> 8, at & 255).parse()?;
    let instance = ServiceInstance::builder("echo", format!("e{at}"))?.address(address.clone()).build()?;
    Ok(Node::new(Endpoint::new(address.into(), instance), Arc::default()))
}
