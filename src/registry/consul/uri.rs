//! How the registry is made from a URI and the environment.

use std::{path::PathBuf, sync::Arc};

use super::{Consul, builder::PLAINTEXT_KEY, codec::ConsulCheck};
use crate::{
    error::{Error, Result},
    instance::Scheme,
    observe::Observer,
    registry::{
        Registry,
        limit::{MAX_INSTANCES_KEY, max_instances},
        wire::{Secret, tls_of},
    },
    target::{RegistryUri, duration_param, flag_param, ttl_param},
};

const CACERT: &str = "CONSUL_CACERT";

/// The keys of a URI's query.
const KEYS: [&str; 22] = [
    MAX_INSTANCES_KEY,
    "dc",
    "token_file",
    PLAINTEXT_KEY,
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
    "check_path",
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
    // As in Consul's own API, a key without a value is true.
    let flag = |key: &str| if uri.param(key) == Some("") { Ok(true) } else { flag_param(uri, key) };
    let list = |key: &str| uri.param(key).into_iter().flat_map(|all| all.split(',')).map(str::to_owned);
    let option = |key: &str, name: &str| uri.param(key).map(str::to_owned).or_else(|| env(name));

    let mut builder = Consul::builder(agents.split(',')).observer(observer.clone()).datacenters(list("dc"));
    builder = builder.max_instances(max_instances(uri)?);
    builder = builder.tags(list("tags")).stale(flag("stale")?).allow_plaintext_token(flag(PLAINTEXT_KEY)?);
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
    if let Some(path) = uri.param("check_path") {
        builder = builder.check_path(path);
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
    use std::time::Duration;

    use super::*;
    use crate::{observe::default_observer, registry::consul::config::Config};

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
