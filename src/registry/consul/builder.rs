//! How the registry is made, by value or from a URI.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Consul,
    client::Client,
    codec::{ConsulCheck, Reading, Shape},
    config::Config,
};
use crate::{
    error::{Error, Result},
    instance::{Address, Scheme},
    observe::{Observer, default_observer},
    registry::{
        Registry,
        wire::{Secret, is_loopback, tls_of, with_port},
    },
    target::{RegistryUri, duration_param, ttl_param},
    tls::ClientTls,
};

/// Builds a [`Consul`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ConsulBuilder {
    agents: Vec<String>,
    allow_plaintext: bool,
    config: Config,
}

const DEFAULT_PORT: u16 = 8500;

/// Consul takes no longer waits.
const MAX_WAIT: Duration = Duration::from_secs(600);
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

impl ConsulBuilder {
    pub(super) fn new(agents: Vec<String>) -> Self {
        let shape = Shape {
            ttl: Consul::DEFAULT_TTL,
            checks: Vec::new(),
            interval: Duration::from_secs(10),
            deregister_after: Duration::from_secs(600),
            tags: Vec::new(),
            qualified: false,
        };
        let config = Config {
            agents: Vec::new(),
            datacenters: Vec::new(),
            token: None,
            namespace: None,
            partition: None,
            tag: None,
            near: None,
            stale: false,
            wait: Duration::from_secs(55),
            shape,
            reading: Reading { scheme: Scheme::Grpc, datacenter: false },
            tls: None,
            observer: default_observer(),
            name: "consul://".into(),
        };
        Self { agents, allow_plaintext: false, config }
    }

    /// Finds the instances of these datacenters, all together; each has its name in the metadata, as `dc`.
    /// Default: those of the agent's own.
    pub fn datacenters<D: Into<String>>(mut self, names: impl IntoIterator<Item = D>) -> Self {
        self.config.datacenters = names.into_iter().map(Into::into).collect();
        self.config.reading.datacenter = !self.config.datacenters.is_empty();
        self
    }

    /// Asks with this ACL token. Default: none.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.config.token = Some(Secret::Text(token.into().into()));
        self
    }

    /// Asks with the ACL token in a file, which is read again for each request.
    pub fn token_file(mut self, path: impl AsRef<Path>) -> Self {
        self.config.token = Some(Secret::File(path.as_ref().to_owned()));
        self
    }

    /// Sets whether a token may leave this machine without TLS. Default: no.
    pub fn allow_plaintext_token(mut self, allow: bool) -> Self {
        self.allow_plaintext = allow;
        self
    }

    /// Sets the namespace (of Consul Enterprise). Default: the token's.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.config.namespace = Some(namespace.into());
        self
    }

    /// Sets the partition (of Consul Enterprise). Default: the token's.
    pub fn partition(mut self, partition: impl Into<String>) -> Self {
        self.config.partition = Some(partition.into());
        self
    }

    /// Finds only instances with this tag. Default: all.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.config.tag = Some(tag.into());
        self
    }

    /// Registers with these tags too, beside the version's. Default: none.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.config.shape.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Asks for the instances nearest to this node first, `_agent` for the agent's own. Default: unsorted.
    pub fn near(mut self, node: impl Into<String>) -> Self {
        self.config.near = Some(node.into());
        self
    }

    /// Lets any server answer, not the leader alone: cheaper for it, and late by milliseconds. Default: no.
    pub fn stale(mut self, stale: bool) -> Self {
        self.config.stale = stale;
        self
    }

    /// Sets how long one question waits for a change, 1 s to 10 min. Default 55 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.config.wait = wait.clamp(Duration::from_secs(1), MAX_WAIT);
        self
    }

    /// Sets how long an instance passes without a renewal, at most a day. Default 15 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.config.shape.ttl = ttl.clamp(Duration::from_secs(1), MAX_TTL);
        self
    }

    /// Lets the agent check each instance too. Default: renewals alone.
    ///
    /// An agent that cannot reach the instance takes it out of use by such a check, and out of the catalog
    /// [later](Self::deregister_after).
    pub fn checks(mut self, checks: impl IntoIterator<Item = ConsulCheck>) -> Self {
        self.config.shape.checks = checks.into_iter().collect();
        self
    }

    /// Sets how often the agent's own [checks](Self::checks) run. Default 10 s.
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.config.shape.interval = interval.max(Duration::from_secs(1));
        self
    }

    /// Sets how long Consul keeps an instance that does not pass, at least a minute. Default 10 min.
    pub fn deregister_after(mut self, after: Duration) -> Self {
        self.config.shape.deregister_after = after.max(Duration::from_secs(60));
        self
    }

    /// Writes ids as `ID@SERVICE`: an agent's ids are one space for all of its services. Such ids are read as
    /// `ID` either way. Default: no, as Kratos.
    pub fn qualified_ids(mut self, qualified: bool) -> Self {
        self.config.shape.qualified = qualified;
        self
    }

    /// Sets what the addresses of services speak that have no more than a host and a port. Default: gRPC.
    pub fn foreign_scheme(mut self, scheme: Scheme) -> Self {
        self.config.reading.scheme = scheme;
        self
    }

    /// Asks over TLS. Default: plaintext.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.config.tls = Some(tls);
        self
    }

    /// Sets who is told of services that are skipped. Default: [`Tracing`](crate::observe::Tracing).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.config.observer = observer;
        self
    }

    /// Builds the registry; nothing is asked of Consul yet.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if an agent is no `host:port`, if there is none, if a file of
    /// the TLS options cannot be read, or if a token would leave this machine in plaintext.
    pub fn build(self) -> Result<Consul> {
        let Self { agents, allow_plaintext, mut config } = self;
        let secure = config.tls.is_some();
        let agents = agents.iter().filter(|agent| !agent.is_empty());
        let agents: Vec<_> = agents.map(|agent| parse(agent, secure)).collect::<Result<_>>()?;
        if agents.is_empty() {
            return Err(Error::invalid("Consul has no agent; write it as consul://127.0.0.1:8500"));
        }
        let exposed = agents.iter().find(|agent| !is_loopback(agent));
        if let (Some(_), false, false, Some(to)) = (&config.token, secure, allow_plaintext, exposed) {
            return Err(Error::invalid(format!(
                "Consul's token would go to {} in plaintext; name its issuer (ca=), or allow it (plaintext_token=true)",
                to.authority()
            )));
        }
        let hosts: Vec<_> = agents.iter().map(|agent| agent.authority().to_string()).collect();
        config.name = format!("consul://{}", hosts.join(",")).into();
        config.agents = agents.iter().map(ToString::to_string).collect();
        Ok(Consul { client: Arc::new(Client::new(config)?) })
    }
}

/// Reads `host:port`, with `http://` or `https://` before it as Consul's own programs write it.
fn parse(text: &str, secure: bool) -> Result<Address> {
    let wrong =
        |why: &str| Error::invalid(format!("{text:?} is no agent of Consul: {why}; write it as 127.0.0.1:8500"));
    let (scheme, rest) = text.trim().split_once("://").unwrap_or_else(|| ("", text.trim()));
    match (scheme, secure) {
        ("", _) | ("http", false) | ("https", true) => {}
        ("http", true) => return Err(wrong("it says http, but TLS is asked for")),
        ("https", false) => {
            return Err(wrong("it says https: name the issuer of its certificate by ca=, or ca=system"));
        }
        _ => return Err(wrong("its scheme is not http or https")),
    }
    let rest = rest.trim_end_matches('/');
    if rest.contains(['@', '/']) {
        return Err(wrong("it is more than a host and a port"));
    }
    let rest = with_port(rest, DEFAULT_PORT);
    let address = format!("{}://{rest}", if secure { "https" } else { "http" }).parse::<Address>();
    address.map_err(|error| Error::with_source(error.kind(), wrong("it lacks a host and a port").to_string(), error))
}

const CACERT: &str = "CONSUL_CACERT";

/// The keys of a URI's query.
const KEYS: [&str; 20] = [
    "dc",
    "token_file",
    "plaintext_token",
    "ns",
    "partition",
    "tag",
    "tags",
    "near",
    "stale",
    "wait",
    "ttl",
    "checks",
    "check_interval",
    "deregister_after",
    "ids",
    "scheme",
    "ca",
    "cert",
    "key",
    "server_name",
];

impl Consul {
    /// Opens `consul://HOST:PORT,HOST:PORT?dc=&token_file=&…`.
    pub(crate) fn open(uri: &RegistryUri, observer: &Arc<dyn Observer>) -> Result<Registry> {
        open(uri, observer, |name| std::env::var(name).ok().filter(|value| !value.is_empty())).map(Into::into)
    }
}

fn open(uri: &RegistryUri, observer: &Arc<dyn Observer>, env: impl Fn(&str) -> Option<String>) -> Result<Consul> {
    uri.expect_params(&KEYS)?;
    let wrong = |why: &str| Error::invalid(format!("{uri:?} is no registry of Consul: {why}"));
    if !uri.path().is_empty() {
        return Err(wrong("a path stands behind the hosts"));
    }
    let agents = match uri.authority() {
        "" => env("CONSUL_HTTP_ADDR").unwrap_or_else(|| "127.0.0.1:8500".to_owned()),
        agents => agents.to_owned(),
    };
    let flag = |key: &str| match uri.param(key) {
        None | Some("false") => Ok(false),
        Some("true" | "") => Ok(true),
        Some(_) => Err(wrong(&format!("its {key} is not true or false"))),
    };
    let list = |key: &str| uri.param(key).into_iter().flat_map(|all| all.split(',')).map(str::to_owned);
    let option = |key: &str, name: &str| uri.param(key).map(str::to_owned).or_else(|| env(name));

    let mut builder = Consul::builder(agents.split(',')).observer(observer.clone()).datacenters(list("dc"));
    builder = builder.tags(list("tags")).stale(flag("stale")?).allow_plaintext_token(flag("plaintext_token")?);
    let config = &mut builder.config;
    config.token = match (uri.param("token_file"), env("CONSUL_HTTP_TOKEN"), env("CONSUL_HTTP_TOKEN_FILE")) {
        (Some(path), _, _) => Some(Secret::File(PathBuf::from(path))),
        (None, Some(token), _) => Some(Secret::Text(token.into())),
        (None, None, path) => path.map(|path| Secret::File(path.into())),
    };
    config.namespace = option("ns", "CONSUL_NAMESPACE");
    config.partition = option("partition", "CONSUL_PARTITION");
    config.tag = uri.param("tag").map(str::to_owned);
    config.near = uri.param("near").map(str::to_owned);
    let ssl = env("CONSUL_HTTP_SSL").is_some_and(|ssl| ssl == "true" || ssl == "1");
    // It names no issuer: the system's are meant.
    let with_ssl = |name: &str| env(name).or_else(|| (ssl && name == CACERT).then(|| "system".to_owned()));
    let variables = [CACERT, "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY", "CONSUL_TLS_SERVER_NAME"];
    config.tls = tls_of(uri, with_ssl, variables)?;
    if let Some(ttl) = ttl_param(uri)? {
        builder = builder.ttl(ttl);
    }
    if let Some(wait) = duration_param(uri, "wait")? {
        builder = builder.wait(wait);
    }
    if let Some(interval) = duration_param(uri, "check_interval")? {
        builder = builder.check_interval(interval);
    }
    if let Some(after) = duration_param(uri, "deregister_after")? {
        builder = builder.deregister_after(after);
    }
    let check = |name: String| match name.as_str() {
        "ttl" => Ok(ConsulCheck::Ttl),
        "tcp" => Ok(ConsulCheck::Tcp),
        "grpc" => Ok(ConsulCheck::Grpc),
        "http" => Ok(ConsulCheck::Http),
        "kratos" => Ok(ConsulCheck::Kratos),
        _ => Err(wrong("its checks are not of ttl, tcp, grpc, http, kratos")),
    };
    builder = builder.checks(list("checks").map(check).collect::<Result<Vec<_>>>()?);
    builder = builder.qualified_ids(match uri.param("ids") {
        None => false,
        Some("qualified") => true,
        Some(_) => return Err(wrong("its ids can only be qualified")),
    });
    builder = builder.foreign_scheme(match uri.param("scheme") {
        None | Some("grpc") => Scheme::Grpc,
        Some("grpcs") => Scheme::Grpcs,
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        Some(_) => return Err(wrong("its scheme is not grpc, grpcs, http or https")),
    });
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/ca.pem");

    fn opened(uri: &str, env: &[(&str, &str)]) -> Result<Consul> {
        let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        open(&uri.parse()?, &default_observer(), env)
    }

    fn config(uri: &str, env: &[(&str, &str)]) -> Config {
        opened(uri, env).expect(uri).client.config().clone()
    }

    #[test]
    fn reads_agents_options_and_the_environment() {
        let read = config("consul://a,[::1]:8501?dc=dc1,dc2&wait=10s&ttl=5s&checks=tcp,grpc&stale=true&ns=n", &[]);
        assert_eq!(read.agents, ["http://a:8500", "http://[::1]:8501"]);
        assert_eq!(read.datacenters, ["dc1", "dc2"]);
        assert_eq!((read.wait, read.shape.ttl), (Duration::from_secs(10), Duration::from_secs(5)));
        assert_eq!(read.shape.checks, [ConsulCheck::Tcp, ConsulCheck::Grpc]);
        assert!(read.stale && read.namespace.as_deref() == Some("n"));
        let env = [
            ("CONSUL_HTTP_ADDR", "https://c:8501"),
            ("CONSUL_CACERT", CA),
            ("CONSUL_HTTP_TOKEN", "hunter2"),
            ("CONSUL_PARTITION", "p"),
        ];
        let read = config("consul://", &env);
        assert_eq!((read.agents, read.partition.as_deref()), (vec!["https://c:8501".to_owned()], Some("p")));
        assert!(!format!("{:?}", opened("consul://", &env).expect("valid")).contains("hunter2"));
    }

    #[test]
    fn a_slip_is_an_error_that_says_what_to_write() {
        for (uri, why) in [
            ("consul://h?tll=1s", "knows no key \"tll\""),
            ("consul://h/team", "a path"),
            ("consul://h?stale=maybe", "true or false"),
            ("consul://h?checks=udp", "ttl, tcp, grpc, http, kratos"),
            ("consul://h?cert=/x", "need ca"),
            ("consul://h:0", "no agent"),
            ("consul://h?ca=/nowhere.pem", "/nowhere.pem"),
            ("consul://10.0.0.5?token_file=/t", "plaintext"),
            ("consul://h?wait=soon", "wait"),
        ] {
            let said = format!("{:#}", opened(uri, &[]).expect_err(uri));
            assert!(said.contains(why), "{uri}: {said}");
        }
    }
}
