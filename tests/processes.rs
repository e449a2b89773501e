//! The whole, on real processes: servers come, go, die and hang while a client calls on.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/dir.rs"]
mod dir;
#[path = "support/process.rs"]
mod process;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use dir::TempDir;
use process::{Client, Report, Server};

const SECOND: Duration = Duration::from_secs(1);

/// One at a time: each wants the machine for itself.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Fleet {
    // Before the directory, which they would make anew.
    servers: Vec<Server>,
    registry: String,
    dir: TempDir,
}

impl Fleet {
    fn start(size: usize, flags: &[&str]) -> Self {
        let dir = TempDir::new();
        let registry = format!("file://{}/registry?ttl=3s", dir.path().display());
        let servers = (0..size).map(|n| Server::start(&registry, &format!("s{n}"), flags)).collect();
        Self { dir, registry, servers }
    }

    fn target(&self) -> String {
        format!("file://{}/registry/helloworld", self.dir.path().display())
    }
}

fn nothing_failed(report: &Report, at_least: u64) {
    assert_eq!(report.count("failed"), 0, "{}", report.json);
    assert!(report.count("ok") >= at_least, "{}", report.json);
    assert!(report.status.success());
}

#[test]
fn ten_servers_restarted_three_times_fail_no_call() {
    let _alone = alone();
    let flags = ["--drain", "300"];
    let mut fleet = Fleet::start(10, &flags);
    let client = Client::start(&fleet.target(), &["--rate", "1000", "--seconds", "25", "--timeout", "5000"]);
    sleep(SECOND);
    let begun = Instant::now();
    for _ in 0..3 {
        for n in 0..10 {
            fleet.servers[n].stop();
            fleet.servers[n] = Server::start(&fleet.registry, &format!("s{n}"), &flags);
        }
    }
    let took = begun.elapsed();
    assert!(took < 23 * SECOND, "30 restarts took {took:?}: the client has ended by then");
    let report = client.report();
    nothing_failed(&report, 24_000);
    // How many each gets is the policy's affair, which prefers whoever is quick at the moment.
    for n in 0..10 {
        assert!(report.served_by(&format!("s{n}")) > 100, "{}", report.json);
    }
}

#[test]
fn one_killed_of_ten_fails_only_what_it_had_in_flight() {
    let _alone = alone();
    let mut fleet = Fleet::start(10, &["--delay", "20"]);
    let client = Client::start(&fleet.target(), &["--rate", "1000", "--seconds", "6", "--timeout", "5000"]);
    sleep(2 * SECOND);
    fleet.servers[3].kill();
    let report = client.report();
    // 1,000 calls a second of 20 ms are 20 in flight, 2 a server; the policy keeps them near that.
    assert!(report.count("failed") <= 8, "{}", report.json);
    assert!(report.errors().iter().all(|error| error.starts_with("UNAVAILABLE") && error.contains("s3")), "{report:?}");
    assert!(report.count("ok") >= 5_900, "{}", report.json);
    assert!(report.served_by("s3") < report.served_by("s4"), "{}", report.json);
}

#[test]
fn one_stopped_of_ten_is_left_alone() {
    one_of_ten_is_stopped("adaptive");
}

/// By a policy that sends as many to all that are as busy: `adaptive` prefers those that were quick of late.
#[test]
fn one_stopped_of_ten_is_taken_back() {
    let report = one_of_ten_is_stopped("least_request");
    // It was there 1 s of 12 before, and is again in the end.
    assert!(report.served_by("s3") > 250, "{}", report.json);
}

fn one_of_ten_is_stopped(policy: &str) -> Report {
    let _alone = alone();
    let fleet = Fleet::start(10, &[]);
    let flags = ["--rate", "1000", "--seconds", "12", "--timeout", "300"];
    let client = Client::start(&format!("{}?policy={policy}", fleet.target()), &flags);
    sleep(SECOND);
    fleet.servers[3].signal("STOP");
    // Past its TTL it is out of the registry.
    sleep(5 * SECOND);
    fleet.servers[3].signal("CONT");
    let report = client.report();
    // A call to it fails by its deadline; while one waits there, new ones go elsewhere.
    assert!(report.count("failed") <= 40, "{}", report.json);
    assert!(report.errors().iter().all(|error| error.starts_with("DEADLINE_EXCEEDED")), "{report:?}");
    assert!(report.count("ok") >= 11_800, "{}", report.json);
    report
}

#[test]
fn one_that_accepts_and_never_answers_gets_no_call() {
    let _alone = alone();
    let fleet = Fleet::start(3, &[]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let record =
        format!(r#"{{"id":"silent","name":"helloworld","endpoints":["grpc://{}"]}}"#, silent.local_addr().unwrap());
    fs::write(fleet.dir.path().join("registry/helloworld/silent.json"), record).unwrap();
    let report = Client::start(&fleet.target(), &["--rate", "1000", "--seconds", "3"]).report();
    nothing_failed(&report, 2_900);
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_ok(), "it was tried");
    assert_eq!(report.served_by("silent"), 0);
}

#[test]
fn the_registry_is_removed_and_put_back_and_no_call_fails() {
    let _alone = alone();
    let fleet = Fleet::start(3, &[]);
    let client = Client::start(&fleet.target(), &["--rate", "1000", "--seconds", "16", "--timeout", "5000"]);
    sleep(SECOND);
    let (here, away) = (fleet.dir.path().join("registry"), fleet.dir.path().join("away"));
    fs::rename(&here, &away).unwrap();
    // The servers miss their files within a second, and write them anew.
    sleep(4 * SECOND);
    assert!((0..3).all(|n| here.join(format!("helloworld/s{n}.json")).exists()), "all registered again");
    // Again and again, as a server may write its file in between.
    let trash = fleet.dir.path().join("trash");
    while fs::rename(&away, &here).is_err() {
        let _ = fs::rename(&here, &trash);
    }
    sleep(4 * SECOND);
    // And file by file, then the rest.
    for n in 0..3 {
        fs::remove_file(here.join(format!("helloworld/s{n}.json"))).unwrap();
    }
    while fs::remove_dir_all(&here).is_err() {}
    sleep(4 * SECOND);
    let report = client.report();
    nothing_failed(&report, 15_900);
    // All came back; how many each gets is the policy's affair.
    assert!((0..3).all(|n| report.served_by(&format!("s{n}")) > 500), "{}", report.json);
}

/// A6: the second signal did nothing.
#[test]
fn a_server_speaks_grpc_and_http_and_ends_at_once_when_told_twice() {
    let _alone = alone();
    let dir = TempDir::new();
    let registry = format!("file://{}", dir.path().display());
    let flags = ["--http", "127.0.0.1:0", "--version", "v9", "--metadata", "zone=z1", "--metadata", "weight=7"];
    let mut server = Server::start(&registry, "one", &flags);
    assert!(server.endpoints[0].starts_with("grpc://127.0.0.1:") && server.endpoints.len() == 2, "{server:?}");
    let http = server.endpoints[1].strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(http).unwrap();
    stream.write_all(b"GET /whoami HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(r#"{"id":"one"}"#), "{answer}");

    let report = Client::start(&format!("{registry}/helloworld?version=v9&zone=z1"), &["--count", "10"]).report();
    nothing_failed(&report, 10);
    let report = Client::start(&format!("{registry}/helloworld?version=v8"), &["--count", "1", "--timeout", "300"]);
    let report = report.report();
    assert_eq!((report.count("ok"), report.status.code()), (0, Some(1)), "{}", report.json);
    let told = report.errors().concat();
    assert!(told.contains("1 instance known, none passes the filters"), "{told}");

    // Draining takes 5 s unless told otherwise; a second signal cuts that short.
    server.signal("TERM");
    sleep(SECOND / 2);
    let record = fs::read_to_string(dir.path().join("helloworld/one.json")).unwrap();
    assert!(record.contains(r#""ended":true"#), "{record}");
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait(2 * SECOND).code(), Some(1));
    assert!(begun.elapsed() < SECOND);
}
