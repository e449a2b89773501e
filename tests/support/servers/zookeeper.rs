//! Real members of ZooKeeper.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use crate::{
    dir::TempDir,
    servers::{Daemon, cached, free_port},
};

/// An ensemble of one member or several.
#[derive(Debug)]
pub struct ZooKeeper {
    jars: PathBuf,
    /// Whether members speak TLS too.
    secure: bool,
    members: Vec<Member>,
    dir: TempDir,
}

#[derive(Debug)]
struct Member {
    /// Of clients, of followers, of elections, of clients over TLS.
    ports: [u16; 4],
    daemon: Option<Daemon>,
}

impl ZooKeeper {
    /// Starts an ensemble; none where ZooKeeper was not built.
    pub fn start(members: usize) -> Option<Self> {
        Self::start_with(members, false)
    }

    /// The same where members speak TLS at ports of their own, and want certificates of clients.
    pub fn start_secure(members: usize) -> Option<Self> {
        Self::start_with(members, true)
    }

    fn start_with(members: usize, secure: bool) -> Option<Self> {
        let jars = cached("zookeeper")?;
        let member = || Member { ports: std::array::from_fn(|_| free_port()), daemon: None };
        let mut all = Self { jars, secure, members: (0..members).map(|_| member()).collect(), dir: TempDir::new() };
        (0..members).for_each(|n| all.spawn(n));
        (0..members).for_each(|n| all.wait_ready(n));
        Some(all)
    }

    fn data(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("data-{n}"))
    }

    fn spawn(&mut self, n: usize) {
        let (data, config) = (self.data(n), self.dir.path().join(format!("{n}.cfg")));
        fs::create_dir_all(&data).unwrap();
        // From 128 on ids of sessions are negative; but not those of a single member, which does not look at this.
        fs::write(data.join("myid"), (n + 128).to_string()).unwrap();
        let mut text = format!(
            "tickTime=500\ninitLimit=20\nsyncLimit=10\nminSessionTimeout=500\nmaxSessionTimeout=60000\ndataDir={}\nclientPort={}\n\
             clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n",
            data.display(),
            self.members[n].ports[0]
        );
        if self.members.len() > 1 {
            for (n, Member { ports: [_, follow, elect, _], .. }) in self.members.iter().enumerate() {
                text += &format!("server.{}=127.0.0.1:{follow}:{elect}\n", n + 128);
            }
        }
        if self.secure {
            text += &self.secure_lines(n);
        }
        fs::write(&config, text).unwrap();
        let mut command = Command::new("java");
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.forceSync=no"]);
        command.args(["-Dzookeeper.jmx.log4j.disable=true", "-Djute.maxbuffer=4194304", "-cp"]);
        command.arg(format!("{}/*", self.jars.display()));
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
        let daemon = Daemon::start(&command, &self.dir.path().join(format!("{n}.log")));
        self.members[n].daemon = Some(daemon);
    }

    /// The certificate names `echo`; those of clients are of the same issuer.
    fn secure_lines(&self, n: usize) -> String {
        const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
        // In one file, as ZooKeeper wants it.
        let identity = self.dir.path().join("server.pem");
        let read = |name: &str| fs::read_to_string(format!("{DATA}/{name}")).unwrap();
        fs::write(&identity, read("server.pem") + &read("server.key")).unwrap();
        format!(
            "secureClientPort={}\nsecureClientPortAddress=127.0.0.1\nssl.clientAuth=need\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\nssl.keyStore.type=PEM\n\
             ssl.keyStore.location={}\nssl.trustStore.type=PEM\nssl.trustStore.location={DATA}/ca.pem\n",
            self.members[n].ports[3],
            identity.display()
        )
    }

    fn wait_ready(&mut self, n: usize) {
        let member = &mut self.members[n];
        let port = member.ports[0];
        let ready = || ask(port, "srvr").is_some_and(|answer| answer.contains("Mode:"));
        member.daemon.as_mut().unwrap().wait_until("serving ZooKeeper", ready);
    }

    /// `host:port` of all members.
    pub fn members(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("127.0.0.1:{}", member.ports[0])).collect()
    }

    /// The same where they speak TLS.
    pub fn secure_members(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("127.0.0.1:{}", member.ports[3])).collect()
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
        fs::remove_dir_all(self.data(0)).unwrap();
        self.restart(0);
    }

    /// The answer to one of the words of four letters.
    pub fn ask(&self, n: usize, word: &str) -> String {
        ask(self.members[n].ports[0], word).unwrap()
    }

    /// A value of `mntr`.
    pub fn metric(&self, name: &str) -> f64 {
        let answer = self.ask(0, "mntr");
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        line.unwrap_or_else(|| panic!("{name}: {answer}")).trim().parse().unwrap()
    }
}

fn ask(port: u16, word: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(word.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
