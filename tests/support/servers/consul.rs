//! Real agents of Consul, each a server: alone, several as one cluster, or several datacenters. They are asked
//! past callsign over HTTP.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    dir::TempDir,
    servers::{Daemon, cached, free_port},
};

/// The token that may do everything, where there are ACLs.
pub const TOKEN: &str = "6f1d2e3c-0000-4000-8000-000000000001";

#[derive(Debug)]
pub struct Consul {
    binary: PathBuf,
    dir: TempDir,
    http: u16,
    server: u16,
    serf: u16,
    wan: u16,
    /// What differs from an agent of one node.
    more: Value,
    acl: bool,
    daemon: Option<Daemon>,
}

impl Consul {
    /// Starts one; none where Consul was not built.
    pub fn start() -> Option<Self> {
        Self::with_acl(false)
    }

    pub fn with_acl(acl: bool) -> Option<Self> {
        let rules = json!({"acl": {"enabled": true, "default_policy": "deny",
            "tokens": {"initial_management": TOKEN, "agent": TOKEN}}});
        let mut consul = Self::with(if acl { rules } else { json!({}) })?;
        consul.acl = acl;
        Some(consul)
    }

    /// One with more in its configuration.
    pub fn with(more: Value) -> Option<Self> {
        let mut consul = Self::prepared(more)?;
        consul.restart();
        Some(consul)
    }

    /// Servers of one cluster.
    pub fn cluster(count: usize) -> Option<Vec<Self>> {
        let mut servers: Vec<_> = (0..count).map(|_| Self::prepared(json!({}))).collect::<Option<_>>()?;
        let join: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.serf)).collect();
        for (n, server) in servers.iter_mut().enumerate() {
            server.more = json!({"node_name": format!("test-{n}"), "bootstrap_expect": count, "retry_join": join,
                "retry_interval": "1s"});
        }
        Self::start_all(&mut servers);
        Some(servers)
    }

    /// Datacenters of one server each, which know each other.
    pub fn datacenters(names: &[&str]) -> Option<Vec<Self>> {
        let mut servers: Vec<_> = names.iter().map(|_| Self::prepared(json!({}))).collect::<Option<_>>()?;
        let join: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.wan)).collect();
        for (server, name) in servers.iter_mut().zip(names) {
            server.more = json!({"datacenter": name, "node_name": format!("node-{name}"), "retry_join_wan": join,
                "retry_interval_wan": "1s", "ports": {"serf_wan": server.wan}});
        }
        Self::start_all(&mut servers);
        for server in &mut servers {
            server.until("way to the other datacenters", |server| {
                names.iter().all(|name| server.lists("consul", &format!("?dc={name}")))
            });
        }
        Some(servers)
    }

    fn start_all(servers: &mut [Self]) {
        servers.iter_mut().for_each(Self::spawn);
        servers.iter_mut().for_each(|server| server.until("leader", Self::has_leader));
    }

    fn prepared(more: Value) -> Option<Self> {
        let [http, server, serf, wan] = [(); 4].map(|()| free_port());
        let binary = cached("consul")?;
        Some(Self { binary, dir: TempDir::new(), http, server, serf, wan, more, acl: false, daemon: None })
    }

    fn spawn(&mut self) {
        let gossip = json!({"probe_interval": "500ms", "probe_timeout": "300ms", "suspicion_mult": 2});
        let mut config = json!({
            "node_name": "test", "datacenter": "dc1", "log_level": "error", "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1", "performance": {"raft_multiplier": 1}, "bootstrap_expect": 1,
            "ports": {"http": self.http, "server": self.server, "serf_lan": self.serf, "serf_wan": -1, "dns": -1,
                "grpc": -1, "grpc_tls": -1},
            "gossip_lan": gossip, "disable_update_check": true, "disable_host_node_id": true,
            "connect": {"enabled": false}, "peering": {"enabled": false},
            "limits": {"http_max_conns_per_client": 4000},
        });
        merge(&mut config, &self.more);
        let path = self.dir.path().join("consul.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new(&self.binary);
        command.args(["agent", "-server", "-data-dir"]).arg(self.dir.path().join("data"));
        command.arg("-config-file").arg(path);
        self.daemon = Some(Daemon::start(&command, &self.dir.path().join("log")));
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.wait_until(what, || holds(self));
        self.daemon = Some(daemon);
    }

    fn has_leader(&self) -> bool {
        // The node itself joins the catalog after the election.
        self.leader().is_some() && self.lists("consul", "")
    }

    /// Whether it lists anybody of a service.
    fn lists(&self, service: &str, query: &str) -> bool {
        let path = format!("/v1/health/service/{service}{query}");
        matches!(self.try_ask("GET", &path, None, Some(TOKEN)), Some((200, Value::Array(all))) if !all.is_empty())
    }

    /// The address of the leader's server port, as this one knows it.
    pub fn leader(&self) -> Option<String> {
        match self.try_ask("GET", "/v1/status/leader", None, Some(TOKEN)) {
            Some((200, Value::String(leader))) if !leader.is_empty() => Some(leader),
            _ => None,
        }
    }

    pub fn is_leader(&self) -> bool {
        self.leader() == Some(format!("127.0.0.1:{}", self.server))
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.http)
    }

    pub fn signal(&self, signal: &str) {
        self.daemon.as_ref().unwrap().signal(signal);
    }

    pub fn kill(&mut self) {
        self.daemon = None;
    }

    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        self.until("leader", Self::has_leader);
    }

    pub fn restart_empty(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(self.dir.path().join("data"));
        self.restart();
    }

    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.try_ask(method, path, body, self.acl.then_some(TOKEN)).unwrap();
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    fn try_ask(&self, method: &str, path: &str, body: Option<&Value>, token: Option<&str>) -> Option<(u16, Value)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, answer) = self.ask_bytes(method, path, body.as_bytes(), token)?;
        let text = || Value::String(String::from_utf8_lossy(&answer).into_owned());
        Some((status, serde_json::from_slice(&answer).unwrap_or_else(|_| text())))
    }

    /// Asks with, and for, what need not be JSON.
    pub fn ask_bytes(&self, method: &str, path: &str, body: &[u8], token: Option<&str>) -> Option<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let token = token.map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
        let head = format!("{method} {path} HTTP/1.0\r\n{token}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let status = std::str::from_utf8(&answer[..end]).ok()?.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_off(end + 4)))
    }
}

/// Puts one configuration into another.
fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}
