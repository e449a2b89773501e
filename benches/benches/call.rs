//! What one unary call costs the client: CPU and allocations, beside tonic's channels and bare h2.
//!
//! `cargo bench -p callsign-bench --bench call`; with `-- --brief` only to see that it works.
//! Each reply is checked. All take turns within one run; what counts is the median of the rounds.

use std::{collections::BTreeMap, error::Error, fs, future::Future, path::Path, pin::Pin, sync::Arc, time::Instant};

use bytes::Bytes;
use callsign_bench::{
    counter::Used,
    echo::{SERVE, Server, serve},
    raw::{on_h2, unary},
};
use futures_util::future::join_all;
use http::{Request, uri::PathAndQuery};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tonic::{body::Body, client::GrpcService, transport};

type Call = Arc<
    dyn Fn(Bytes) -> Pin<Box<dyn Future<Output = Result<Bytes, Box<dyn Error + Send + Sync>>> + Send>> + Send + Sync,
>;

const PATH: &str = "/echo.v1.Echo/Unary";

/// A message of this many bytes, each call another.
const PAYLOAD: usize = 100;

struct Plan {
    rounds: usize,
    calls: usize,
    in_flight: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(at) = args.iter().position(|arg| arg == SERVE) {
        let ports = args.get(at + 1).ok_or("how many ports?")?.parse()?;
        return runtime.block_on(serve(ports));
    }
    let brief = args.iter().any(|arg| arg == "--brief");
    let server = Server::start(2)?;
    let calls = runtime.block_on(ways(&server))?;
    let mut report = BTreeMap::new();
    for in_flight in [1, 64] {
        let plan = Plan { rounds: if brief { 2 } else { 15 }, calls: if brief { 256 } else { 6_400 }, in_flight };
        println!("\n{in_flight} in flight, {} rounds of {} calls, {PAYLOAD} bytes", plan.rounds, plan.calls);
        println!("{:<26}{:>12}{:>12}{:>12}{:>12}", "", "CPU µs", "allocations", "bytes", "calls/s");
        let medians = runtime.block_on(measure(&calls, &plan))?;
        for (name, [cpu, allocations, bytes, rate]) in &medians {
            println!("{name:<26}{cpu:>12.2}{allocations:>12.1}{bytes:>12.0}{rate:>12.0}");
        }
        let rows = medians.into_iter().map(|(name, [cpu, allocations, bytes, rate])| {
            let row = json!({ "cpu_us": cpu, "allocations": allocations, "bytes": bytes, "calls_per_s": rate });
            (name.to_owned(), row)
        });
        report.insert(format!("{in_flight} in flight"), Value::Object(rows.collect()));
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("call.json"), serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

/// The ways to call that are compared, each connected.
async fn ways(server: &Server) -> Result<Vec<(&'static str, Call)>, Box<dyn Error>> {
    let [one, two] = server.addresses() else { return Err("two ports were asked for".into()) };
    let endpoint = |address| transport::Endpoint::from_shared(format!("http://{address}"));

    let channel = callsign::Channel::connect(format!("static://{one},{two}")).await?;
    let list = transport::Channel::balance_list([endpoint(one)?, endpoint(two)?].into_iter());
    let single = endpoint(one)?.connect().await?;
    let (h2, connection) = h2::client::handshake(TcpStream::connect(one).await?).await?;
    tokio::spawn(async move { drop(connection.await) });

    let mut ways: Vec<(&'static str, Call)> = Vec::new();
    ways.push(("callsign", by_channel(channel)));
    ways.push(("tonic balance_list", by_channel(list)));
    ways.push(("tonic, one endpoint", by_channel(single)));
    let uri = format!("http://{one}{PATH}");
    ways.push((
        "h2 alone",
        Arc::new(move |payload| {
            let (h2, uri) = (h2.clone(), uri.clone());
            Box::pin(async move {
                let request = Request::post(uri)
                    .version(http::Version::HTTP_2)
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .body(())?;
                Ok(on_h2(&h2, request, payload).await?)
            })
        }),
    ));
    Ok(ways)
}

/// Calls as generated code does on a channel.
fn by_channel<C>(channel: C) -> Call
where
    C: GrpcService<Body, ResponseBody = Body, Future: Send> + Clone + Send + Sync + 'static,
    C::Error: Into<Box<dyn Error + Send + Sync>> + Send,
{
    Arc::new(move |payload| {
        let call = unary(channel.clone(), PathAndQuery::from_static(PATH), payload);
        Box::pin(async { Ok(call.await?) })
    })
}

async fn measure(
    ways: &[(&'static str, Call)],
    plan: &Plan,
) -> Result<BTreeMap<&'static str, [f64; 4]>, Box<dyn Error>> {
    let mut all: BTreeMap<_, Vec<[f64; 4]>> = BTreeMap::new();
    // The first round warms up.
    for round in 0..=plan.rounds {
        for (name, call) in ways {
            let (begun, before) = (Instant::now(), Used::now());
            run(call, plan).await.map_err(|error| format!("{name}: {error}"))?;
            let [cpu, allocations, bytes] = Used::now().per_call(before, plan.calls);
            let rate = plan.calls as f64 / begun.elapsed().as_secs_f64();
            if round > 0 {
                all.entry(*name).or_default().push([cpu, allocations, bytes, rate]);
            }
        }
    }
    let median = |rounds: &Vec<[f64; 4]>, column: usize| {
        let mut values: Vec<_> = rounds.iter().map(|round| round[column]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Ok(all.iter().map(|(name, rounds)| (*name, [0, 1, 2, 3].map(|column| median(rounds, column)))).collect())
}

/// Makes all calls of a round, and checks each reply.
async fn run(call: &Call, plan: &Plan) -> Result<(), Box<dyn Error + Send + Sync>> {
    let callers = (0..plan.in_flight).map(|caller| {
        let (call, calls) = (call.clone(), plan.calls / plan.in_flight);
        tokio::spawn(async move {
            for n in 0..calls {
                let mut payload = vec![0; PAYLOAD];
                payload[..8].copy_from_slice(&((caller * calls + n) as u64).to_le_bytes());
                let payload = Bytes::from(payload);
                if call(payload.clone()).await? != payload {
                    return Err("a reply is not what was sent".into());
                }
            }
            Ok(())
        })
    });
    join_all(callers).await.into_iter().try_for_each(|caller| caller?)
}
