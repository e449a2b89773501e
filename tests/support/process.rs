//! The example programs as processes, told to stop, killed or stopped by signals.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

#[allow(clippy::duplicate_mod, reason = "some tests have both of those that have this")]
mod signal;

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

static BUILT: OnceLock<PathBuf> = OnceLock::new();

/// The path of an example, built if need be, as this program was.
pub fn example(name: &str) -> PathBuf {
    BUILT.get_or_init(|| build(target().ends_with("release"))).join(name)
}

/// Has examples run as this profile builds them.
pub fn use_release(release: bool) {
    BUILT.get_or_init(|| build(release));
}

/// Where this program was built: …/target/debug of …/target/debug/deps/this-test.
fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().unwrap().parent().unwrap().to_owned()
}

fn build(release: bool) -> PathBuf {
    let target = target().parent().unwrap().to_owned();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "callsign", "--example", "server", "--example", "client"]);
    cargo.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    // Those of the test, so that the programs know its registries.
    let features = [
        ("consul", cfg!(feature = "consul")),
        ("etcd", cfg!(feature = "etcd")),
        ("kubernetes", cfg!(feature = "kubernetes")),
        ("tls", cfg!(feature = "tls")),
        ("zookeeper", cfg!(feature = "zookeeper")),
    ];
    let features: Vec<_> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    cargo.args(["--features", &features.join(",")]);
    cargo.arg("--target-dir").arg(&target);
    // What the Cargo of this test told it of its package: with that ring, and all that stands on it, would be built
    // anew, and again without.
    let told = |name: &str| name == "OUT_DIR" || name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        cargo.env_remove(name);
    }
    if release {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "the examples build");
    target.join(if release { "release" } else { "debug" }).join("examples")
}

/// A running `server` example.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub id: String,
    pub endpoints: Vec<String>,
}

impl Server {
    /// Starts one, and waits until it says that it is registered.
    pub fn start(registry: &str, id: &str, flags: &[&str]) -> Self {
        Self::start_as("helloworld", registry, id, flags)
    }

    /// The same of another service.
    pub fn start_as(name: &str, registry: &str, id: &str, flags: &[&str]) -> Self {
        let mut server = Self::spawn_as(name, registry, id, flags);
        let mut line = String::new();
        BufReader::new(server.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{id} said {line:?}: {error}"));
        assert_eq!(said["id"], id);
        let endpoints = said["endpoints"].as_array().unwrap();
        server.endpoints = endpoints.iter().map(|endpoint| endpoint.as_str().unwrap().to_owned()).collect();
        server
    }

    pub fn spawn(registry: &str, id: &str, flags: &[&str]) -> Self {
        Self::spawn_as("helloworld", registry, id, flags)
    }

    fn spawn_as(name: &str, registry: &str, id: &str, flags: &[&str]) -> Self {
        let child = Command::new(example("server"))
            .args(["--registry", registry, "--name", name, "--id", id])
            .args(flags)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, id: id.to_owned(), endpoints: Vec::new() }
    }

    pub fn signal(&self, signal: &str) {
        signal::send(&self.child, signal);
    }

    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < bound, "{} did not end within {bound:?}", self.id);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and waits until it has drained.
    pub fn stop(&mut self) {
        self.signal("TERM");
        assert!(self.wait(Duration::from_secs(20)).success(), "{} exits with 0", self.id);
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `client` example.
#[derive(Debug)]
pub struct Client(Option<Child>);

/// What a client says in the end.
#[derive(Debug)]
pub struct Report {
    pub status: ExitStatus,
    pub json: Value,
}

impl Client {
    pub fn start(target: &str, flags: &[&str]) -> Self {
        let client = Command::new(example("client")).arg(target).args(flags).stdout(Stdio::piped()).spawn().unwrap();
        Self(Some(client))
    }

    pub fn report(mut self) -> Report {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let json = serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        Report { status: output.status, json }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(mut client) = self.0.take() {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}

impl Report {
    pub fn count(&self, key: &str) -> u64 {
        self.json[key].as_u64().unwrap_or_else(|| panic!("no {key} in {}", self.json))
    }

    pub fn served_by(&self, id: &str) -> u64 {
        self.json["by_instance"][id].as_u64().unwrap_or(0)
    }

    pub fn errors(&self) -> Vec<String> {
        self.json["errors"].as_object().unwrap().keys().cloned().collect()
    }
}
