//! Real members of etcd, asked past callsign by the JSON of their gateway.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    dir::TempDir,
    servers::{Daemon, cached, free_port},
};

/// A cluster of one member or several.
#[derive(Debug)]
pub struct Etcd {
    binary: PathBuf,
    flags: Vec<String>,
    members: Vec<Member>,
    dir: TempDir,
}

#[derive(Debug)]
struct Member {
    client: u16,
    peer: u16,
    daemon: Option<Daemon>,
}

impl Etcd {
    /// Starts a cluster; none where etcd was not built.
    pub fn start(members: usize) -> Option<Self> {
        Self::with_flags(members, &[])
    }

    /// The same with more flags; with TLS it counts as ready once it listens.
    pub fn with_flags(members: usize, flags: &[&str]) -> Option<Self> {
        let binary = cached("etcd")?;
        let member = || Member { client: free_port(), peer: free_port(), daemon: None };
        let mut etcd = Self {
            binary,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            members: (0..members).map(|_| member()).collect(),
            dir: TempDir::new(),
        };
        for n in 0..members {
            etcd.spawn(n);
        }
        for n in 0..members {
            etcd.wait_ready(n);
        }
        Some(etcd)
    }

    fn is_tls(&self) -> bool {
        self.flags.iter().any(|flag| flag.starts_with("--cert-file"))
    }

    fn spawn(&mut self, n: usize) {
        let name = |n: usize| format!("m{n}");
        let peer = |n: usize| format!("http://127.0.0.1:{}", self.members[n].peer);
        let scheme = if self.is_tls() { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{}", self.members[n].client);
        let cluster: Vec<_> = (0..self.members.len()).map(|n| format!("{}={}", name(n), peer(n))).collect();
        let mut command = Command::new(&self.binary);
        command.args(["--name", &name(n), "--data-dir"]).arg(self.data(n));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer(n), "--initial-advertise-peer-urls", &peer(n)]);
        command.args(["--initial-cluster", &cluster.join(","), "--unsafe-no-fsync", "--log-level", "error"]);
        command.args(&self.flags);
        let daemon = Daemon::start(&command, &self.dir.path().join(format!("{n}.log")));
        self.members[n].daemon = Some(daemon);
    }

    fn data(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("data-{n}"))
    }

    /// A directory that lives as long as the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn wait_ready(&mut self, n: usize) {
        let (tls, member) = (self.is_tls(), &mut self.members[n]);
        let port = member.client;
        let ready = || match tls {
            true => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
            false => http(port, "GET", "/health", "", None).is_some_and(|health| health.contains("true")),
        };
        member.daemon.as_mut().unwrap().wait_until("healthy etcd", ready);
    }

    /// `host:port` of all members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("127.0.0.1:{}", member.client)).collect()
    }

    pub fn port(&self, n: usize) -> u16 {
        self.members[n].client
    }

    pub fn signal(&self, n: usize, signal: &str) {
        self.members[n].daemon.as_ref().unwrap().signal(signal);
    }

    pub fn kill(&mut self, n: usize) {
        self.members[n].daemon = None;
    }

    /// Starts a killed member with the data it had.
    pub fn restart(&mut self, n: usize) {
        self.spawn(n);
        self.wait_ready(n);
    }

    /// Starts the killed only member with no data.
    pub fn restart_empty(&mut self) {
        std::fs::remove_dir_all(self.data(0)).unwrap();
        self.restart(0);
    }

    /// Asks a member, and waits until it answers well.
    pub fn ask(&self, n: usize, path: &str, body: &Value) -> Value {
        self.ask_as(n, path, body, None)
    }

    pub fn ask_as(&self, n: usize, path: &str, body: &Value, token: Option<&str>) -> Value {
        for _ in 0..300 {
            if let Some(answer) = http(self.port(n), "POST", path, &body.to_string(), token) {
                return serde_json::from_str(&answer).unwrap();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{path} is not answered")
    }

    pub fn put(&self, key: &str, value: &str) {
        self.ask(0, "/v3/kv/put", &json!({"key": base64(key.as_bytes()), "value": base64(value.as_bytes())}));
    }

    pub fn delete(&self, key: &str) {
        self.ask(0, "/v3/kv/deleterange", &json!({"key": base64(key.as_bytes())}));
    }

    /// The value and the lease of a key.
    pub fn read(&self, n: usize, key: &str) -> Option<(String, i64)> {
        let answer = self.ask(n, "/v3/kv/range", &json!({"key": base64(key.as_bytes())}));
        let kv = answer["kvs"].as_array()?.first()?;
        let value = String::from_utf8(unbase64(kv["value"].as_str().unwrap_or_default())).unwrap();
        Some((value, kv["lease"].as_str().map_or(0, |lease| lease.parse().unwrap())))
    }

    /// Forgets all history.
    pub fn compact(&self) {
        let answer = self.ask(0, "/v3/kv/range", &json!({"key": base64(b"x")}));
        self.ask(0, "/v3/kv/compaction", &json!({"revision": answer["header"]["revision"], "physical": true}));
    }

    /// Which member leads.
    pub fn leader(&self) -> Option<usize> {
        (0..self.members.len()).filter(|n| self.members[*n].daemon.is_some()).find(|n| {
            let answer = http(self.port(*n), "POST", "/v3/maintenance/status", "{}", None);
            let answer: Option<Value> = answer.and_then(|answer| serde_json::from_str(&answer).ok());
            answer.is_some_and(|answer| answer["leader"] == answer["header"]["member_id"])
        })
    }

    /// The sum of a metric over what labels `having` selects.
    pub fn metric(&self, name: &str, having: &str) -> f64 {
        let metrics = http(self.port(0), "GET", "/metrics", "", None).unwrap();
        let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(having));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

/// One request, if it is answered well, within 5 s.
fn http(port: u16, method: &str, path: &str, body: &str, token: Option<&str>) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let token = token.map_or_else(String::new, |token| format!("Authorization: {token}\r\n"));
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{token}\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (n, byte)| bits | u32::from(*byte) << (16 - 8 * n));
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n)) as usize & 63] as char;
            text.push(if n <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

fn unbase64(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut have) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte)) {
        bits = bits << 6 | digit as u32;
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
    }
    bytes
}
