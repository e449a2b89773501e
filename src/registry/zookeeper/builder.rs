//! How the registry is made, by value or from a URI.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    ZooKeeper,
    codec::{self, ZooKeeperLayout},
    config::{Config, PASSWORD},
    pipe::Secure,
};
use crate::{
    error::{Error, Result},
    instance::{Address, Scheme},
    observe::{Observer, default_observer},
    registry::{
        Registry,
        limit::{MAX_INSTANCES, MAX_INSTANCES_KEY, max_instances},
        wire::{Credentials, PLAINTEXT_KEY, keeps_secret, tls_of, with_port},
    },
    target::{RegistryUri, duration_param, flag_param},
    tls::ClientTls,
};

/// Builds a [`ZooKeeper`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ZooKeeperBuilder {
    members: Vec<String>,
    root: Option<String>,
    layout: ZooKeeperLayout,
    session: Duration,
    max_instances: usize,
    credentials: Option<Credentials>,
    tls: Option<ClientTls>,
    allow_plaintext: bool,
    observer: Arc<dyn Observer>,
}

const DEFAULT_PORT: u16 = 2181;

/// Shorter or longer than that no session of a service makes sense.
const SESSIONS: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(3600);

impl ZooKeeperBuilder {
    pub(super) fn new(members: Vec<String>) -> Self {
        Self {
            members,
            root: None,
            layout: ZooKeeperLayout::default(),
            session: ZooKeeper::DEFAULT_SESSION,
            max_instances: MAX_INSTANCES,
            credentials: None,
            tls: None,
            allow_plaintext: false,
            observer: default_observer(),
        }
    }

    /// Sets the node under which all services are. Default `/microservices`, as Kratos has it; with the
    /// [layouts](Self::layout) of Curator and Spring `/services`.
    pub fn root(mut self, root: impl Into<String>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// Sets how instances are laid out. Default [`ZooKeeperLayout::Kratos`].
    pub fn layout(mut self, layout: ZooKeeperLayout) -> Self {
        self.layout = layout;
        self
    }

    /// Sets how long a session lives when ZooKeeper does not hear of it, which is also the TTL of leases: from 0.5 s to
    /// an hour. Default 15 s.
    ///
    /// ZooKeeper itself grants from 2 to 20 times its `tickTime`, 4 s to 40 s by its defaults.
    pub fn session(mut self, session: Duration) -> Self {
        self.session = session.clamp(*SESSIONS.start(), *SESSIONS.end());
        self
    }

    /// Sets how many instances of one service are held at most; what is more is counted as skipped, and told.
    /// Default 20,000.
    pub fn max_instances(mut self, most: usize) -> Self {
        self.max_instances = most.max(1);
        self
    }

    /// Asks as this user of the scheme `digest`, and gives it all rights on what it creates, and nobody else any.
    /// Default: as nobody, and everybody has all rights.
    pub fn user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials::new(user, password));
        self
    }

    /// The same with the password in a file, which is read again for each new session; line breaks at its end do not
    /// count.
    pub fn user_password_file(mut self, user: impl Into<String>, path: impl AsRef<Path>) -> Self {
        self.credentials = Some(Credentials::file(user, path));
        self
    }

    /// Speaks TLS with all members, at their `secureClientPort`. Each one's certificate must name the host it is called
    /// by, or all of them the [server name](ClientTls::server_name) set there. Default: plaintext.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets whether a password may leave this machine without TLS. Default: no.
    pub fn allow_plaintext_password(mut self, allow: bool) -> Self {
        self.allow_plaintext = allow;
        self
    }

    /// Sets who is told of records that are skipped. Default: [`Tracing`](crate::observe::Tracing).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Builds the registry; nothing is asked of ZooKeeper yet.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if a member is no `host:port`, if there is none at all, if the
    /// root is no path, if the user's name is empty or has a colon, if a file of the TLS options cannot be read, or if a
    /// password would leave this machine in plaintext.
    pub fn build(self) -> Result<ZooKeeper> {
        let members = self.members.iter().map(|member| member.trim()).filter(|member| !member.is_empty());
        let secure = self.tls.is_some();
        let mut members = members.map(|member| parse(member, secure)).collect::<Result<Vec<_>>>()?;
        let mut seen = std::collections::HashSet::new();
        members.retain(|member| seen.insert(member.clone()));
        if members.is_empty() {
            let context = "ZooKeeper has no member; write it as zookeeper://10.0.0.5:2181,10.0.0.6:2181";
            return Err(Error::invalid(context));
        }
        let root = self.root.unwrap_or_else(|| self.layout.root().to_owned());
        let root = root.trim_end_matches('/').to_owned();
        if let Some(rest) = root.strip_prefix('/') {
            rest.split('/').try_for_each(|part| codec::segment("root", part).map(drop))?;
        } else if !root.is_empty() {
            return Err(Error::invalid(format!("the root {root:?} does not begin with a slash")));
        }
        if let Some(Credentials { user, .. }) = &self.credentials {
            if user.is_empty() || user.contains(':') {
                return Err(Error::invalid("the name of ZooKeeper's user is empty, or has a colon"));
            }
            if !self.allow_plaintext {
                keeps_secret(PASSWORD, &members, PLAINTEXT_KEY)?;
            }
        }
        let Self { layout, session, max_instances, credentials, tls, observer, .. } = self;
        let tls = tls.map(|tls| {
            let named = tls.expects().is_some();
            let handshake = tls.prepare("zookeeper", observer.clone())?.without_h2();
            Ok::<_, Error>(Arc::new(Secure { handshake, named }))
        });
        let tls = tls.transpose()?;
        let mut config =
            Config { members, tls, layout, root, session, max_instances, credentials, observer, name: "".into() };
        config.name = format!("zookeeper://{}?root={}", config.hosts(), config.root).into();
        Ok(ZooKeeper::of(config))
    }
}

/// Reads `host:port`, or `host`.
fn parse(text: &str, secure: bool) -> Result<Address> {
    let wrong = |why: &str| Error::invalid(format!("this is no member of ZooKeeper: {why}; write it as 10.0.0.5:2181"));
    if text.contains("://") {
        return Err(wrong("it has a scheme; TLS is asked for by ca="));
    }
    if text.contains('@') {
        return Err(wrong("a user and a password do not stand before the host; set user= and password_file="));
    }
    let text = with_port(text, DEFAULT_PORT);
    let scheme = if secure { Scheme::Grpcs } else { Scheme::Grpc };
    let address = format!("{scheme}://{text}").parse::<Address>();
    address.map_err(|error| Error::with_source(error.kind(), wrong("it lacks a host and a port").to_string(), error))
}

/// The keys of a URI's query.
const KEYS: [&str; 11] = [
    "root",
    "layout",
    "session",
    "user",
    "password_file",
    PLAINTEXT_KEY,
    "ca",
    "cert",
    "key",
    "server_name",
    MAX_INSTANCES_KEY,
];

impl ZooKeeper {
    /// Opens `zookeeper://HOST:PORT,HOST:PORT?root=/microservices&session=15s&…`.
    pub(crate) fn open(uri: &RegistryUri, observer: &Arc<dyn Observer>) -> Result<Registry> {
        open(uri, observer).map(Into::into)
    }
}

fn open(uri: &RegistryUri, observer: &Arc<dyn Observer>) -> Result<ZooKeeper> {
    uri.expect_params(&KEYS)?;
    let wrong = |why: &str| Error::invalid(format!("{uri:?} is no registry of ZooKeeper: {why}"));
    if !uri.path().is_empty() {
        return Err(wrong("a path stands behind the hosts; the node that services are under is set by root="));
    }
    let hosts = if uri.authority().is_empty() { "127.0.0.1:2181" } else { uri.authority() };
    let mut builder = ZooKeeper::builder(hosts.split(',')).observer(observer.clone());
    if let Some(layout) = uri.param("layout") {
        let layout = ZooKeeperLayout::parse(layout).ok_or_else(|| wrong("its layout is not kratos, curator or spring"));
        builder = builder.layout(layout?);
    }
    if let Some(root) = uri.param("root") {
        builder = builder.root(root);
    }
    if let Some(session) = duration_param(uri, "session")? {
        if !SESSIONS.contains(&session) {
            return Err(wrong("its session is no time from 500ms to 1h, such as 15s"));
        }
        builder = builder.session(session);
    }
    builder = builder.max_instances(max_instances(uri)?);
    builder.credentials = match (uri.param("user"), uri.param("password_file")) {
        (None, None) => None,
        (Some(user), Some(path)) => Some(Credentials::file(user, path)),
        _ => return Err(wrong("user and password_file need each other")),
    };
    builder.allow_plaintext = flag_param(uri, PLAINTEXT_KEY)?;
    // ZooKeeper's own clients have no usual variables for these.
    builder.tls = tls_of(uri, |_| None, [""; 4])?;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(uri: &str) -> Result<ZooKeeper> {
        open(&uri.parse()?, &default_observer())
    }

    #[test]
    fn reads_hosts_and_defaults() {
        let read = opened("zookeeper://10.0.0.5:2181,[::1]:4001,zk,10.0.0.5:2181").expect("members");
        let config = &read.inner.config;
        assert_eq!(config.hosts(), "10.0.0.5:2181,[::1]:4001,zk:2181");
        assert_eq!((config.root.as_str(), config.session), ("/microservices", ZooKeeper::DEFAULT_SESSION));
        let read = opened("zookeeper://?root=/a/b/&session=5s").expect("this machine");
        assert_eq!(&*read.inner.config.name, "zookeeper://127.0.0.1:2181?root=/a/b");
        assert_eq!(read.inner.config.session, Duration::from_secs(5));
        assert_eq!(opened("zookeeper://h?root=/").expect("a root").inner.config.root, "");
        let read = opened("zookeeper://h?layout=spring").expect("a layout");
        assert_eq!((&*read.inner.config.root, read.inner.config.layout), ("/services", ZooKeeperLayout::Spring));
    }

    #[test]
    fn a_slip_is_an_error_that_says_what_to_write() {
        for (uri, why) in [
            ("zookeeper://h?ttl=1s", "knows no key \"ttl\""),
            ("zookeeper://h/team", "root="),
            ("zookeeper://h?layout=spring-cloud", "kratos, curator or spring"),
            ("zookeeper://h?root=a", "slash"),
            ("zookeeper://h?root=/a//b", "slash"),
            ("zookeeper://h?session=1ms", "500ms"),
            ("zookeeper://h?password_file=/x", "need each other"),
            ("zookeeper://u:p@h:1", "password_file="),
            ("zookeeper://10.0.0.5?user=u&password_file=/x", "plaintext_password=true"),
            ("zookeeper://10.0.0.5?user=u&password_file=/x", "ca="),
            ("zookeeper://h:0", "no member"),
            ("zookeeper://h?plaintext_password=", "true or false"),
            ("zookeeper://https:%2F%2Fh:1", "ca="),
            ("zookeeper://h?cert=/x&key=/y", "need ca"),
            ("zookeeper://h?ca=/nowhere.pem", "/nowhere.pem"),
        ] {
            let said = format!("{:#}", opened(uri).expect_err(uri));
            assert!(said.contains(why), "{uri}: {said}");
        }
        let debug = format!("{:?}", ZooKeeper::builder(["localhost"]).user("u", "hunter2").build().expect("loopback"));
        assert!(!debug.contains("hunter2"), "{debug}");
    }

    #[test]
    fn tls_is_asked_for_by_its_issuer_and_hides_passwords() {
        const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
        let read =
            opened(&format!("zookeeper://10.0.0.5:2281,zk?ca={DATA}/ca.pem&user=u&password_file=/x")).expect("TLS");
        let config = &read.inner.config;
        assert_eq!(config.members[0].to_string(), "grpcs://10.0.0.5:2281");
        assert!(!config.tls.as_ref().expect("TLS").named);
        let with = format!("ca={DATA}/ca.pem&cert={DATA}/client.pem&key={DATA}/client.key&server_name=echo");
        let read = opened(&format!("zookeeper://h?{with}")).expect("with a certificate of its own");
        let tls = read.inner.config.tls.as_ref().expect("TLS");
        assert!(tls.named && tls.handshake.identity().is_some_and(|file| file.ends_with("client.pem")));
        assert!(opened("zookeeper://h").expect("plaintext").inner.config.tls.is_none());
    }
}
