//! A large fleet on paper: where connections and calls go, and what a pick costs, if each client uses a subset.
//!
//! Who is connected to whom is what the crate's resolver says. Calls all take the same time, and as many are in flight
//! at each client at any moment; who gets them is what its pickers say.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use callsign::{
    Endpoint,
    balance::{Node, Pick, PickInfo, Picker, Policy},
    filter::Filters,
    load::{BriefReport, CallGuard},
    observe::{Event, Observer},
    registry::{Snapshot, Update, Watch},
    resolver::Resolver,
};
use futures_util::{FutureExt, StreamExt};
use http::HeaderMap;
use serde_json::{Value, json};
use tower::discover::Change;

use super::{
    client::{base, endpoints, heard},
    rng::Rng,
    table::line,
    validate::policy,
};
use crate::table::percentile;

/// How large it is.
struct Size {
    servers: usize,
    clients: usize,
    subsets: &'static [usize],
}

const WHOLE: Size = Size { servers: 10_000, clients: 1_000, subsets: &[20, 100, 500] };
const BRIEF: Size = Size { servers: 200, clients: 20, subsets: &[20] };

/// Calls in flight at a server, if all have as many: 70 % of four workers.
const IN_FLIGHT: f64 = 2.8;
/// How long each takes.
const TOOK: Duration = Duration::from_millis(10);
/// How often all calls are made anew before they are counted, and while they are.
const TURNS: [usize; 2] = [10, 20];
/// Picks that are timed.
const PICKS: usize = 50_000;

/// A policy, whether servers report, and what is printed.
const POLICIES: [(&str, bool, &str); 3] = [
    ("round_robin", false, "round_robin"),
    ("adaptive", false, "adaptive"),
    ("adaptive,probes=false", true, "adaptive, reports"),
];

/// Prints it, and makes the rows of the file.
///
/// # Errors
///
/// If a subset is not as large as it should be, or a pick is of nothing.
pub fn scale(brief: bool) -> Result<Vec<Value>, String> {
    let size = if brief { BRIEF } else { WHOLE };
    let (servers, clients) = (size.servers, size.clients);
    println!(
        "\n{servers} servers, {clients} clients that use a subset each; calls a server got as shares of the mean\n"
    );
    let columns = [
        "connections a server: least, median, most",
        "policy",
        "1 % got less than",
        "1 % got more than",
        "most",
        "ns a pick",
    ];
    line("subset", columns.map(str::to_owned));
    line("---", columns.map(|_| "---".to_owned()));
    let fleet = endpoints((0..servers).map(|_| 100))?;
    let (sender, watch) = Watch::channel();
    sender.send(Update::Instances(Snapshot::new(fleet.iter().map(|endpoint| endpoint.instance().clone()))));
    let mut rows = Vec::new();
    for subset in size.subsets.iter().copied() {
        let subsets = (0..clients).map(|client| resolve(&fleet, &watch, subset, client as u64));
        let subsets = subsets.collect::<Result<Vec<_>, _>>()?;
        let mut connections = vec![0.0; servers];
        subsets.iter().flatten().for_each(|at| connections[*at] += 1.0);
        let [least, median, most] = [0.0, 0.5, 1.0].map(|share| percentile(&mut connections, share));
        for (text, reports, name) in POLICIES {
            let mut paper = Paper::new(&fleet, &subsets, &policy(text)?, reports);
            let mut calls = paper.calls()?;
            let nanos = paper.clients[0].nanos()?;
            let [few, many, all] = [0.01, 0.99, 1.0].map(|share| percentile(&mut calls, share));
            let [few_text, many_text, all_text] = [few, many, all].map(|share| format!("{share:.2}"));
            let connections = format!("{least}, {median}, {most}");
            line(
                &subset.to_string(),
                [connections, name.to_owned(), few_text, many_text, all_text, format!("{nanos:.0}")],
            );
            rows.push(json!({
                "servers": servers, "clients": clients, "subset": subset, "policy": text, "reports": reports,
                "connections": [least, median, most], "calls_of_mean": [few, many, all], "pick_ns": nanos,
            }));
        }
    }
    Ok(rows)
}

/// Says nothing.
#[derive(Debug)]
struct Silent;

impl Observer for Silent {
    fn on_event(&self, _: &Event<'_>) {}
}

/// The servers that a client connects to.
fn resolve(fleet: &[Endpoint], watch: &Watch, subset: usize, seed: u64) -> Result<Vec<usize>, String> {
    let service = fleet[0].instance().service().clone();
    let resolver = Resolver::new(service, watch.clone()).with_filters(Filters::new().subset(subset));
    let mut resolver = resolver.with_seed(seed).with_observer(Arc::new(Silent));
    let mut servers = Vec::new();
    while let Some(Some(Ok(Change::Insert(_, endpoint)))) = resolver.next().now_or_never() {
        let number = endpoint.instance().id().as_str().strip_prefix('s').and_then(|number| number.parse().ok());
        servers.push(number.filter(|number| *number < fleet.len()).ok_or("a server that there is not")?);
    }
    if servers.len() == subset {
        Ok(servers)
    } else {
        Err(format!("{} servers in a subset of {subset}", servers.len()))
    }
}

/// A client: its servers, and its calls in flight, the oldest first.
struct Holder {
    servers: Vec<usize>,
    nodes: Vec<Node>,
    picker: Box<dyn Picker>,
    calls: VecDeque<(usize, CallGuard)>,
    recent: Option<usize>,
    random: Rng,
    headers: HeaderMap,
}

impl Holder {
    fn pick(&mut self, now: Instant) -> Result<usize, String> {
        let mut info = PickInfo::new("/echo.v1.Echo/Call", &self.headers, now, self.random.next_u64());
        info.recent = self.recent;
        match self.picker.pick(&info) {
            Pick::At(at) if at < self.nodes.len() => {
                self.recent = Some(at);
                Ok(at)
            }
            other => Err(format!("a pick of nothing: {other:?}")),
        }
    }

    /// What a pick costs, with its call counted in and out.
    fn nanos(&mut self) -> Result<f64, String> {
        let (begun, mut now) = (Instant::now(), base() + Duration::from_secs(60));
        for _ in 0..PICKS {
            now += Duration::from_micros(1);
            let at = self.pick(now)?;
            drop(self.nodes[at].load().start(now));
        }
        Ok(begun.elapsed().as_secs_f64() * 1e9 / PICKS as f64)
    }
}

struct Paper {
    clients: Vec<Holder>,
    /// Calls in flight, by server.
    in_flight: Vec<u32>,
    reports: bool,
}

impl Paper {
    fn new(fleet: &[Endpoint], subsets: &[Vec<usize>], policy: &Policy, reports: bool) -> Self {
        let client = |(number, servers): (usize, &Vec<usize>)| {
            let mut random = Rng::new(number as u64, 0);
            let nodes: Vec<_> = servers.iter().map(|at| Node::new(fleet[*at].clone(), Arc::default())).collect();
            Holder {
                servers: servers.clone(),
                picker: policy.balancer(random.next_u64()).rebuild(&nodes),
                nodes,
                calls: VecDeque::new(),
                recent: None,
                random,
                headers: HeaderMap::new(),
            }
        };
        let clients = subsets.iter().enumerate().map(client).collect();
        Self { clients, in_flight: vec![0; fleet.len()], reports }
    }

    /// The calls that each server got, of the mean.
    fn calls(&mut self) -> Result<Vec<f64>, String> {
        let all = (self.in_flight.len() as f64 * IN_FLIGHT) as usize;
        let (each, mut random) = (all.div_ceil(self.clients.len()), Rng::new(0, 1));
        let (mut now, step) = (base(), TOOK.div_f64(all as f64));
        let mut calls = vec![0.0_f64; self.in_flight.len()];
        for turn in 0..TURNS[0] + TURNS[1] {
            for _ in 0..all {
                now += step;
                let client = random.below(self.clients.len());
                let to = self.call(client, each, now)?;
                calls[to] += f64::from(u8::from(turn >= TURNS[0]));
            }
        }
        for client in &mut self.clients {
            client.calls.drain(..).for_each(|(_, guard)| heard(guard, None, None, now));
            if client.nodes.iter().any(|node| node.load().in_flight() > 0) {
                return Err("a call that is still counted".to_owned());
            }
        }
        let mean = (all * TURNS[1]) as f64 / calls.len() as f64;
        calls.iter_mut().for_each(|calls| *calls /= mean);
        Ok(calls)
    }

    /// A client makes a call, once its oldest has come back if it has as many as it may have; says to which server.
    fn call(&mut self, client: usize, most: usize, now: Instant) -> Result<usize, String> {
        let client = &mut self.clients[client];
        if client.calls.len() >= most
            && let Some((server, guard)) = client.calls.pop_front()
        {
            self.in_flight[server] -= 1;
            let in_flight = Some(f64::from(self.in_flight[server]));
            let report = BriefReport { in_flight, latency: Some(TOOK), ..BriefReport::default() };
            heard(guard, None, self.reports.then_some(report), now);
        }
        let at = client.pick(now)?;
        let server = client.servers[at];
        client.calls.push_back((server, client.nodes[at].load().start(now)));
        self.in_flight[server] += 1;
        Ok(server)
    }
}
