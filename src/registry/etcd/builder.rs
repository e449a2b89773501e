//! How the registry is made, by value or from a URI.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    Etcd,
    cluster::Cluster,
    codec::EtcdLayout,
    config::{Config, PASSWORD},
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
    target::{RegistryUri, flag_param, ttl_param},
    tls::ClientTls,
};

/// Builds an [`Etcd`].
#[derive(Debug, Clone)]
#[must_use]
pub struct EtcdBuilder {
    endpoints: Vec<String>,
    namespace: Option<String>,
    layout: EtcdLayout,
    ttl: Duration,
    max_instances: usize,
    credentials: Option<Credentials>,
    tls: Option<ClientTls>,
    allow_plaintext: bool,
    observer: Arc<dyn Observer>,
}

/// Longer than this no lease of a service makes sense.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

const DEFAULT_PORT: u16 = 2379;

impl EtcdBuilder {
    pub(super) fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            namespace: None,
            layout: EtcdLayout::default(),
            ttl: Etcd::DEFAULT_TTL,
            max_instances: MAX_INSTANCES,
            credentials: None,
            tls: None,
            allow_plaintext: false,
            observer: default_observer(),
        }
    }

    /// Sets what all keys begin with. Default `/microservices`; with the [layouts](Self::layout) of grpc-go and
    /// go-zero nothing.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets how instances are laid out. Default [`EtcdLayout::Kratos`].
    pub fn layout(mut self, layout: EtcdLayout) -> Self {
        self.layout = layout;
        self
    }

    /// Sets how long leases live without a renewal: whole seconds, rounded up, at most a day. Default 15 s.
    ///
    /// etcd itself grants at least a time and a half of its election timeout, 2 s by its defaults.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl.min(MAX_TTL);
        self
    }

    /// Sets how many instances of one service are held at most; what is more is counted as skipped, and told.
    /// Default 20,000.
    pub fn max_instances(mut self, most: usize) -> Self {
        self.max_instances = most.max(1);
        self
    }

    /// Asks as this user. Default: as nobody.
    pub fn user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials::new(user, password));
        self
    }

    /// Asks as this user, with the password in a file, which is read again for each new token; line breaks at its
    /// end do not count.
    pub fn user_password_file(mut self, user: impl Into<String>, path: impl AsRef<Path>) -> Self {
        self.credentials = Some(Credentials::file(user, path));
        self
    }

    /// Asks over TLS. Each member's certificate must name the host it is called by, or all of them the
    /// [server name](ClientTls::server_name) set there. Default: plaintext.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets whether a password may leave this machine without TLS. Default: no.
    pub fn allow_plaintext_password(mut self, allow: bool) -> Self {
        self.allow_plaintext = allow;
        self
    }

    /// Sets who is told of records that are skipped, and of the connections to etcd. Default:
    /// [`Tracing`](crate::observe::Tracing).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Builds the registry; nothing is asked of etcd yet.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if an endpoint is none, if there is none at all, if a file of
    /// the TLS options cannot be read, or if a password would leave this machine in plaintext.
    pub fn build(self) -> Result<Etcd> {
        let secure = self.tls.is_some();
        let endpoints = self.endpoints.iter().filter(|endpoint| !endpoint.is_empty());
        let mut endpoints = endpoints.map(|endpoint| parse(endpoint, secure)).collect::<Result<Vec<_>>>()?;
        let mut seen = std::collections::HashSet::new();
        endpoints.retain(|endpoint| seen.insert(endpoint.clone()));
        if endpoints.is_empty() {
            return Err(Error::invalid("etcd has no endpoint; write it as etcd://10.0.0.5:2379,10.0.0.6:2379"));
        }
        if let Some(tls) = &self.tls {
            tls.clone().prepare("etcd", self.observer.clone())?;
        }
        if self.credentials.is_some() && !self.allow_plaintext {
            keeps_secret(PASSWORD, &endpoints, PLAINTEXT_KEY)?;
        }
        let namespace = self.namespace.unwrap_or_else(|| self.layout.namespace().to_owned());
        let namespace = namespace.trim_end_matches('/').to_owned();
        let hosts: Vec<_> = endpoints.iter().map(|endpoint| endpoint.authority().to_string()).collect();
        let name = format!("etcd://{}?namespace={namespace}", hosts.join(",")).into();
        let Self { layout, ttl, max_instances, credentials, tls, observer, .. } = self;
        Ok(Etcd::of(Cluster::new(Config {
            endpoints,
            namespace,
            layout,
            ttl,
            max_instances,
            credentials,
            tls,
            observer,
            name,
        })))
    }
}

/// Reads `host:port`, with `http://` or `https://` before it as etcd's own programs write it.
fn parse(text: &str, secure: bool) -> Result<Address> {
    let wrong =
        |why: &str| Error::invalid(format!("{text:?} is no endpoint of etcd: {why}; write it as 10.0.0.5:2379"));
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    match scheme {
        "" => {}
        "http" if !secure => {}
        "https" if secure => {}
        "http" => return Err(wrong("it says http, but TLS is asked for")),
        "https" => return Err(wrong("it says https: name the issuer of its certificates by ca=, or ca=system")),
        _ => return Err(wrong("its scheme is not http or https")),
    }
    let rest = rest.trim_end_matches('/');
    if rest.contains('@') {
        return Err(wrong("a user and a password do not stand before the host; set user= and password_file="));
    }
    let rest = with_port(rest, DEFAULT_PORT);
    let scheme = if secure { Scheme::Grpcs } else { Scheme::Grpc };
    let address = format!("{scheme}://{rest}").parse::<Address>();
    address.map_err(|error| Error::with_source(error.kind(), wrong("it lacks a host and a port").to_string(), error))
}

/// The keys of a URI's query.
const KEYS: [&str; 11] = [
    "namespace",
    "ttl",
    "layout",
    "user",
    "password_file",
    PLAINTEXT_KEY,
    "ca",
    "cert",
    "key",
    "server_name",
    MAX_INSTANCES_KEY,
];

impl Etcd {
    /// Opens `etcd://HOST:PORT,HOST:PORT?namespace=/microservices&ttl=15s&…`.
    pub(crate) fn open(uri: &RegistryUri, observer: &Arc<dyn Observer>) -> Result<Registry> {
        open(uri, observer, |name| std::env::var(name).ok().filter(|value| !value.is_empty())).map(Into::into)
    }
}

fn open(uri: &RegistryUri, observer: &Arc<dyn Observer>, env: impl Fn(&str) -> Option<String>) -> Result<Etcd> {
    uri.expect_params(&KEYS)?;
    let wrong = |why: &str| Error::invalid(format!("{uri:?} is no registry of etcd: {why}"));
    if !uri.path().is_empty() {
        return Err(wrong("a path stands behind the hosts; what keys begin with is set by namespace="));
    }
    let hosts = match uri.authority() {
        "" => env("ETCDCTL_ENDPOINTS").unwrap_or_else(|| "127.0.0.1:2379".to_owned()),
        hosts => hosts.to_owned(),
    };
    let mut builder = Etcd::builder(hosts.split(',')).observer(observer.clone());
    if let Some(layout) = uri.param("layout") {
        builder =
            builder.layout(EtcdLayout::parse(layout).ok_or_else(|| wrong("its layout is not kratos, grpc or gozero"))?);
    }
    if let Some(namespace) = uri.param("namespace") {
        builder = builder.namespace(namespace);
    }
    if let Some(ttl) = ttl_param(uri)? {
        builder = builder.ttl(ttl);
    }
    builder = builder.max_instances(max_instances(uri)?);
    builder.credentials = credentials(uri, &env)?;
    builder.allow_plaintext = flag_param(uri, PLAINTEXT_KEY)?;
    let variables = ["ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY", ""];
    builder.tls = tls_of(uri, &env, variables)?;
    builder.build()
}

/// The user of the URI, or of etcdctl's environment.
fn credentials(uri: &RegistryUri, env: impl Fn(&str) -> Option<String>) -> Result<Option<Credentials>> {
    let wrong = |why: &str| Error::invalid(format!("{uri:?} is no registry of etcd: {why}"));
    match (uri.param("user"), uri.param("password_file")) {
        (None, Some(_)) => return Err(wrong("password_file needs user")),
        (Some(user), Some(path)) => return Ok(Some(Credentials::file(user, path))),
        (Some(user), None) => {
            let password = env("ETCDCTL_PASSWORD");
            let password = password.ok_or_else(|| wrong("user needs password_file, or ETCDCTL_PASSWORD"))?;
            return Ok(Some(Credentials::new(user, password)));
        }
        (None, None) => {}
    }
    let Some(user) = env("ETCDCTL_USER") else { return Ok(None) };
    match (user.split_once(':'), env("ETCDCTL_PASSWORD")) {
        (_, Some(password)) => Ok(Some(Credentials::new(user, password))),
        (Some((user, password)), None) => Ok(Some(Credentials::new(user, password))),
        (None, None) => Err(wrong("ETCDCTL_USER is set without a password")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/ca.pem");

    fn opened(uri: &str, env: &[(&str, &str)]) -> Result<Etcd> {
        let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        open(&uri.parse()?, &default_observer(), env)
    }

    fn config(uri: &str, env: &[(&str, &str)]) -> Config {
        opened(uri, env).expect(uri).cluster.config().clone()
    }

    fn refused(uri: &str) -> String {
        format!("{:#}", opened(uri, &[]).expect_err(uri))
    }

    #[test]
    fn reads_hosts_and_defaults() {
        let read = config("etcd://10.0.0.5:2379,[::1]:4001,db,10.0.0.5:2379", &[]);
        let hosts: Vec<_> = read.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["grpc://10.0.0.5:2379", "grpc://[::1]:4001", "grpc://db:2379"]);
        assert_eq!(
            (&*read.namespace, read.ttl, read.layout),
            ("/microservices", Etcd::DEFAULT_TTL, EtcdLayout::Kratos)
        );
        let read = config("etcd://h?namespace=/n/&ttl=5s", &[]);
        assert_eq!((&*read.namespace, read.ttl), ("/n", Duration::from_secs(5)));
        assert_eq!(&*read.name, "etcd://h:2379?namespace=/n");
        assert_eq!(config("etcd://h?layout=gozero", &[]).namespace, "");
        let read = config("etcd://", &[("ETCDCTL_ENDPOINTS", "http://a:1,b:2")]);
        assert_eq!(read.endpoints.len(), 2);
        assert_eq!(config("etcd://", &[]).endpoints[0].to_string(), "grpc://127.0.0.1:2379");
    }

    #[test]
    fn a_slip_is_an_error_that_says_what_to_write() {
        for (uri, why) in [
            ("etcd://h?tll=1s", "knows no key \"tll\""),
            ("etcd://h/team", "namespace="),
            ("etcd://h?layout=kratoss", "kratos, grpc or gozero"),
            ("etcd://h?password_file=/x", "needs user"),
            ("etcd://h?cert=/x", "need ca"),
            ("etcd://h?plaintext_password=", "true or false"),
            ("etcd://h?user=u", "ETCDCTL_PASSWORD"),
            ("etcd://https:%2F%2Fh:1", "ca="),
            ("etcd://u:p@h:1", "password_file="),
            ("etcd://h:0", "no endpoint"),
            ("etcd://h?ca=/nowhere.pem", "/nowhere.pem"),
        ] {
            let said = refused(uri);
            assert!(said.contains(why), "{uri}: {said}");
        }
        assert!(!refused("etcd://u:hunter2@h:1?tll=1").contains("hunter2"));
    }

    #[test]
    fn a_password_stays_on_this_machine_or_goes_over_tls() {
        let env: &[_] = &[("ETCDCTL_USER", "u:hunter2")];
        assert!(opened("etcd://10.0.0.5:2379", env).expect_err("plaintext").to_string().contains("plaintext"));
        for uri in ["etcd://127.0.0.1:1,[::1]:2", "etcd://h?plaintext_password=true", &format!("etcd://h?ca={CA}")] {
            let etcd = opened(uri, env).expect(uri);
            assert_eq!(etcd.cluster.config().credentials.as_ref().expect("a user").user, "u");
            assert!(!format!("{etcd:?}").contains("hunter2"));
        }
        let read = config(&format!("etcd://h?ca={CA}&server_name=etcd.internal"), &[]);
        assert_eq!(read.tls.expect("asked for").expects(), Some("etcd.internal"));
        assert_eq!(read.endpoints[0].to_string(), "grpcs://h:2379");
    }
}
