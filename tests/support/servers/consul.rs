//! A real agent of Consul, a server of one node, asked past callsign over HTTP.

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
    acl: bool,
    daemon: Option<Daemon>,
}

impl Consul {
    /// Starts one; none where Consul was not built.
    pub fn start() -> Option<Self> {
        Self::with_acl(false)
    }

    pub fn with_acl(acl: bool) -> Option<Self> {
        let binary = cached("consul")?;
        let mut consul = Self { binary, dir: TempDir::new(), http: free_port(), acl, daemon: None };
        consul.spawn();
        Some(consul)
    }

    fn spawn(&mut self) {
        let acl = if self.acl {
            json!({"enabled": true, "default_policy": "deny", "tokens": {"initial_management": TOKEN, "agent": TOKEN}})
        } else {
            json!({"enabled": false})
        };
        let config = json!({
            "node_name": "test", "datacenter": "dc1", "log_level": "error", "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1", "acl": acl, "performance": {"raft_multiplier": 1},
            "ports": {"http": self.http, "server": free_port(), "serf_lan": free_port(), "serf_wan": -1, "dns": -1,
                "grpc": -1, "grpc_tls": -1},
            "disable_update_check": true, "disable_host_node_id": true, "connect": {"enabled": false},
            "peering": {"enabled": false}, "limits": {"http_max_conns_per_client": 4000},
        });
        let path = self.dir.path().join("consul.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new(&self.binary);
        command.args(["agent", "-server", "-bootstrap-expect", "1", "-data-dir"]).arg(self.dir.path().join("data"));
        command.arg("-config-file").arg(path);
        let mut daemon = Daemon::start(&command, &self.dir.path().join("log"));
        daemon.wait_until("leader", || self.has_leader());
        self.daemon = Some(daemon);
    }

    fn has_leader(&self) -> bool {
        matches!(self.try_ask("GET", "/v1/status/leader", None, Some(TOKEN)), Some((200, Value::String(leader))) if !leader.is_empty())
            // The node itself joins the catalog after the election.
            && matches!(self.try_ask("GET", "/v1/health/service/consul", None, Some(TOKEN)),
                Some((200, Value::Array(services))) if !services.is_empty())
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
    }

    pub fn restart_empty(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(self.dir.path().join("data"));
        self.spawn();
    }

    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.try_ask(method, path, body, self.acl.then_some(TOKEN)).unwrap();
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    fn try_ask(&self, method: &str, path: &str, body: Option<&Value>, token: Option<&str>) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let token = token.map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
        let head = format!("{method} {path} HTTP/1.0\r\n{token}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))))
    }
}
