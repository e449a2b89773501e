//! A kube-apiserver on an etcd, with certificates and tokens of its own.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, reason = "each test uses its part")]

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::servers::{Daemon, cached, free_port};

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/strategic-merge-patch+json";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

pub struct KubeApiserver {
    binary: PathBuf,
    etcd_binary: PathBuf,
    directory: PathBuf,
    port: u16,
    etcd_port: u16,
    peer_port: u16,
    etcd: Daemon,
    pub api: Daemon,
}

const CERTIFICATES: &str = r#"
set -euo pipefail
ec() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
ec ca.key; ec server.key; ec admin.key; ec sa.key
openssl req -x509 -new -key ca.key -subj /CN=test-ca -days 365 -out ca.crt -addext keyUsage=critical,keyCertSign,cRLSign
sign() {
  openssl req -new -key "$1.key" -subj "$2" | openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 \
    -extfile <(printf 'basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n%b' "$3") -out "$1.crt"
}
sign server /CN=kube-apiserver 'extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n'
sign admin /O=system:masters/CN=admin 'extendedKeyUsage=clientAuth\n'
printf '%s-token,%s,uid,"%s"\n' admin admin system:masters user user readers counted counted system:masters \
  renewed renewed system:masters > tokens.csv
cat > audit.yaml <<'END'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete, Panic]
rules: [{level: Metadata, users: [counted, renewed]}, {level: None}]
END
"#;

impl KubeApiserver {
    pub fn start(directory: &Path) -> Option<Self> {
        let (binary, etcd_binary) = (cached("kube-apiserver")?, cached("etcd")?);
        let made =
            Command::new("bash").args(["-c", CERTIFICATES]).current_dir(directory).stderr(Stdio::null()).status();
        assert!(made.unwrap().success(), "openssl makes certificates");
        let (port, etcd_port, peer_port) = (free_port(), free_port(), free_port());
        let etcd = etcd(&etcd_binary, directory, etcd_port, peer_port);
        let api = api(&binary, directory, port, etcd_port);
        let server =
            Self { binary, etcd_binary, directory: directory.to_owned(), port, etcd_port, peer_port, etcd, api };
        for (name, user) in [
            ("admin", "token: admin-token"),
            ("user", "token: user-token"),
            ("stranger", "token: nobody"),
            ("certificate", "client-certificate: admin.crt, client-key: admin.key"),
        ] {
            server.make_kubeconfig(name, user, port);
        }
        Some(server)
    }

    /// A kubeconfig of who is said to be `user`, with the server behind `port`.
    pub fn make_kubeconfig(&self, name: &str, user: &str, port: u16) -> PathBuf {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster: {{server: \
             'https://127.0.0.1:{port}', certificate-authority: ca.crt}}\nusers:\n- name: u\n  user: {{{user}}}\n\
             contexts:\n- name: c\n  context: {{cluster: c, user: u, namespace: default}}\n"
        );
        fs::write(self.kubeconfig(name), text).unwrap();
        self.kubeconfig(name)
    }

    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{user}.kubeconfig"))
    }

    /// Ends the server and its etcd; starts both again, `with_data` or with none.
    pub fn restart(&mut self, with_data: bool) {
        self.api.kill();
        self.etcd.kill();
        if !with_data {
            fs::remove_dir_all(self.directory.join("etcd")).unwrap();
        }
        self.etcd = etcd(&self.etcd_binary, &self.directory, self.etcd_port, self.peer_port);
        self.api = api(&self.binary, &self.directory, self.port, self.etcd_port);
        self.wait();
    }

    /// Ends the server alone; another beside it, on the same data, lets `change` be made; then it starts again.
    pub fn restart_changing(&mut self, change: impl FnOnce(&Self)) {
        self.api.kill();
        let port = std::mem::replace(&mut self.port, free_port());
        self.api = api(&self.binary, &self.directory, self.port, self.etcd_port);
        self.wait();
        change(self);
        self.api.kill();
        self.port = port;
        self.api = api(&self.binary, &self.directory, self.port, self.etcd_port);
        self.wait();
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the user `counted` or `renewed` asked for so far, as `verb resource`.
    pub fn requests(&self, user: &str) -> Vec<String> {
        let log = fs::read_to_string(self.directory.join("audit.log")).unwrap_or_default();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of = events.filter(|event| event["user"]["username"] == user);
        of.map(|event| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!("{} {}", text(&event["verb"]), text(&event["objectRef"]["resource"]))
        })
        .collect()
    }

    pub fn wait(&mut self) {
        let (directory, url) = (self.directory.clone(), format!("https://127.0.0.1:{}/readyz", self.port));
        self.api.wait_until("kube-apiserver", move || {
            let mut curl = Command::new("curl");
            curl.args([
                "-sf",
                "--max-time",
                "2",
                "--cacert",
                "ca.crt",
                "-H",
                "Authorization: Bearer admin-token",
                &url,
            ]);
            curl.current_dir(&directory).stdout(Stdio::null()).status().unwrap().success()
        });
    }

    /// A Pod that runs and is ready at 127.0.0.1, as its kubelet would say.
    pub fn make_pod(&self, name: &str, ports: &[u16]) {
        let ports: Vec<_> = ports.iter().map(|port| json!({"containerPort": port})).collect();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "i", "ports": ports}]}});
        self.ask("POST", PODS, JSON, &pod.to_string());
        let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let said = self.ask("PATCH", &format!("{PODS}/{name}/status"), MERGE, &status.to_string());
        assert!(said.contains("\"Running\""), "{said}");
    }

    /// Changes a Pod as an administrator.
    pub fn patch_pod(&self, name: &str, patch: &Value) {
        self.ask("PATCH", &format!("{PODS}/{name}"), MERGE, &patch.to_string());
    }

    /// Asks the API as an administrator.
    pub fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> String {
        let url = format!("https://127.0.0.1:{}{path}", self.port);
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "20", "--cacert", "ca.crt", "-H", "Authorization: Bearer admin-token"])
            .args(["-H", &format!("Content-Type: {kind}"), "-X", method, "--data-binary", body, &url])
            .current_dir(&self.directory)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{method} {path}: {}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

fn etcd(binary: &Path, directory: &Path, port: u16, peer: u16) -> Daemon {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new(binary);
    command.args(["--data-dir", directory.join("etcd").to_str().unwrap(), "--unsafe-no-fsync"]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    let mut etcd = Daemon::start(&command, &directory.join("etcd.log"));
    etcd.wait_until("etcd", || {
        TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(1)).is_ok()
    });
    etcd
}

fn api(binary: &Path, directory: &Path, port: u16, etcd: u16) -> Daemon {
    let mut command = Command::new(binary);
    command.current_dir(directory).args(["--etcd-servers", &format!("http://127.0.0.1:{etcd}")]);
    command.args(["--secure-port", &port.to_string(), "--bind-address", "127.0.0.1"]);
    command.args(["--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none"]);
    command.args(["--service-cluster-ip-range", "10.0.0.0/24", "--tls-cert-file", "server.crt"]);
    command.args(["--tls-private-key-file", "server.key", "--client-ca-file", "ca.crt"]);
    command.args(["--token-auth-file", "tokens.csv", "--authorization-mode", "RBAC"]);
    command.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
    command.args(["--service-account-key-file", "sa.key", "--service-account-signing-key-file", "sa.key"]);
    command.args(["--audit-policy-file", "audit.yaml", "--audit-log-path", "audit.log"]);
    command.args(["--disable-admission-plugins", "ServiceAccount,PodSecurity"]);
    command.args(["--enable-priority-and-fairness=false", "--profiling=false", "--allow-privileged"]);
    Daemon::start(&command, &directory.join("kube-apiserver.log"))
}
