//! What a client asks for: a registry, a service in it, and how to call it.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

mod text;

#[cfg(any(feature = "consul", feature = "kubernetes", feature = "zookeeper"))]
pub(crate) use self::text::duration_param;
#[cfg(any(feature = "consul", feature = "etcd", feature = "zookeeper"))]
pub(crate) use self::text::flag_param;
use self::text::{
    AUTHORITY, PATH, QUERY, SEGMENT, decode, duration, encode, print_duration, query_pairs, shown, split_scheme, wrong,
};
pub(crate) use self::text::{parse_duration, ttl_param};
use crate::{
    error::{Error, Result},
    instance::ServiceName,
};

/// The address of a registry: `scheme://authority/path?key=value`, such as `file:///run/services`.
///
/// What the parts mean, and which keys there are, is the registry's own to say.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RegistryUri {
    scheme: Arc<str>,
    authority: Arc<str>,
    path: Arc<str>,
    params: BTreeMap<Arc<str>, Arc<str>>,
}

/// What a channel calls: `scheme://authority/service?key=value`.
///
/// All up to the last `/` is the [registry](RegistryUri), then comes the service, percent-encoded
/// where it needs be. With `static://`, which holds one service alone, the service may be left out.
///
/// | key | meaning | default |
/// | --- | --- | --- |
/// | `policy` | how to balance: a name, and options behind it as in `least_request,choices=3`, or as parameters: `policy=ring_hash&hash_header=x-user` | `least_request` |
/// | `slow_start`, `prefer_zone`, … | what wraps the policy, and its other options: see [`Policy`](crate::balance::Policy) | none |
/// | `version` | only instances of this very version | all |
/// | `zone` | only instances in this zone | all |
/// | `subset` | at most so many instances, chosen by this channel at random | all |
/// | `metadata.KEY` | only instances whose metadata has this value under `KEY` | all |
/// | `timeout` | how long a call may take that sets no deadline itself, such as `1s` or `250ms` | no bound |
/// | `connect_timeout` | how long one try to connect may take | `5s` |
/// | `tls` | TLS, trusting the issuers in this PEM file, or those of the `system` | plaintext |
/// | `tls_name` | whom servers' certificates must name | the service |
/// | `tls_cert`, `tls_key` | PEM files of one's own certificate chain and key | none |
///
/// Every other key is the registry's, and an error if it knows none of that name.
///
/// ```
/// let target: callsign::Target = "memory:///greeter?policy=round_robin&timeout=250ms".parse()?;
/// assert_eq!(target.service().as_str(), "greeter");
/// assert_eq!(target.registry().to_string(), "memory://");
/// # Ok::<(), callsign::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Target {
    registry: RegistryUri,
    service: ServiceName,
    params: Params,
}

#[derive(Clone, PartialEq, Default)]
struct Params {
    policy: Option<Arc<str>>,
    version: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    subset: Option<usize>,
    metadata: BTreeMap<Arc<str>, Arc<str>>,
    timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    tls: Option<Arc<str>>,
    tls_cert: Option<Arc<str>>,
    tls_key: Option<Arc<str>>,
    tls_name: Option<Arc<str>>,
}

impl Target {
    /// Puts a target together from a registry and a service.
    pub fn new(registry: RegistryUri, service: ServiceName) -> Self {
        Self { registry, service, params: Params::default() }
    }

    /// The registry, with the keys that are its own.
    pub fn registry(&self) -> &RegistryUri {
        &self.registry
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// How to balance, if the target says.
    pub fn policy(&self) -> Option<&str> {
        self.params.policy.as_deref()
    }

    /// The version that instances must have, if the target says.
    pub fn version(&self) -> Option<&str> {
        self.params.version.as_deref()
    }

    /// The zone that instances must be in, if the target says.
    pub fn zone(&self) -> Option<&str> {
        self.params.zone.as_deref()
    }

    /// How many instances to use at most, if the target says.
    pub fn subset(&self) -> Option<usize> {
        self.params.subset
    }

    /// What the metadata of instances must hold.
    pub fn metadata(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.params.metadata
    }

    /// How long a call may take that sets no deadline itself, if the target says.
    pub fn timeout(&self) -> Option<Duration> {
        self.params.timeout
    }

    /// `system`, or the PEM file of the issuers to trust, if the target asks for TLS.
    pub fn tls(&self) -> Option<&str> {
        self.params.tls.as_deref()
    }

    /// Whom servers' certificates must name, if the target says.
    pub fn tls_name(&self) -> Option<&str> {
        self.params.tls_name.as_deref()
    }

    /// The PEM files of one's own certificate chain and key, if the target says.
    pub fn tls_identity(&self) -> Option<(&str, &str)> {
        self.params.tls_cert.as_deref().zip(self.params.tls_key.as_deref())
    }

    /// How long one try to connect may take, if the target says.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.params.connect_timeout
    }
}

impl RegistryUri {
    /// What stands before `://`, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What stands between `://` and the next `/`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path with the slash it begins with, decoded; empty where there is none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of a key of the query, decoded.
    pub fn param(&self, key: &str) -> Option<&str> {
        self.params.get(key).map(|value| &**value)
    }

    /// Checks that the query has no key but those that the registry knows.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput), naming the first unknown key and those there are.
    pub fn expect_params(&self, known: &[&str]) -> Result<()> {
        let Some(unknown) = self.params.keys().find(|key| !known.contains(&&***key)) else { return Ok(()) };
        Err(Error::invalid(format!(
            "{}:// knows no key {unknown:?}; of its own it has: {}; a target has besides: {}",
            self.scheme,
            if known.is_empty() { "none".to_owned() } else { known.join(", ") },
            KEYS.join(", "),
        )))
    }
}

const KEYS: [&str; 11] = [
    "policy",
    "version",
    "zone",
    "subset",
    "metadata.KEY",
    "timeout",
    "connect_timeout",
    "tls",
    "tls_name",
    "tls_cert",
    "tls_key",
];

impl FromStr for RegistryUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) = split_scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        Ok(Self {
            scheme,
            authority: decode(text, authority)?,
            path: decode(text, path.trim_end_matches('/'))?,
            params: query_pairs(text, query)?,
        })
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) = split_scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (registry, service) = match rest.rsplit_once('/') {
            Some((registry, service)) if !service.is_empty() => (registry, decode(text, service)?),
            _ if &*scheme == "static" => {
                let list = rest.trim_end_matches('/');
                (list, list.split(',').next().unwrap_or(list).into())
            }
            _ => {
                return Err(wrong(text, format_args!("it names no service; write it as {scheme}://…/greeter")));
            }
        };
        let service = service.parse().map_err(|error: Error| error.context(format!("{} is no target", shown(text))))?;
        let mut registry: RegistryUri = format!("{scheme}://{registry}").parse()?;
        let mut params = Params::default();
        let mut options = String::new();
        for (key, value) in query_pairs(text, query)? {
            if POLICY_OPTIONS.contains(&&*key) {
                options += &format!(",{key}={value}");
            } else {
                params.set(text, &key, &value, &mut registry)?;
            }
        }
        params.policy = match params.policy {
            Some(policy) => Some(format!("{policy}{options}").into()),
            None if options.is_empty() => None,
            None => return Err(wrong(text, format!("{} is an option of a policy: it needs policy=", &options[1..]))),
        };
        if params.tls.is_none() && [&params.tls_name, &params.tls_cert, &params.tls_key].iter().any(|key| key.is_some())
        {
            return Err(wrong(text, "tls_name, tls_cert and tls_key need tls: `system`, or the PEM file of an issuer"));
        }
        if params.tls_cert.is_some() != params.tls_key.is_some() {
            return Err(wrong(text, "tls_cert and tls_key need each other"));
        }
        Ok(Self { registry, service, params })
    }
}

/// What a policy may be told beside its name, as `policy=maglev,hash_header=x-user` or each by itself.
const POLICY_OPTIONS: [&str; 34] = [
    "base_ejection_time",
    "blackout_period",
    "choices",
    "ejection_interval",
    "enable_oob_load_report",
    "error_utilization_penalty",
    "failover",
    "failover_threshold",
    "failover_timeout",
    "failure_percentage_enforcement",
    "failure_percentage_minimum_hosts",
    "failure_percentage_request_volume",
    "failure_percentage_threshold",
    "hash_header",
    "max_ejection_percent",
    "max_ejection_time",
    "max_ring_size",
    "min_ring_size",
    "oob_reporting_period",
    "outlier_ejection",
    "panic_threshold",
    "prefer_region",
    "prefer_zone",
    "shuffle",
    "slow_start",
    "slow_start_aggression",
    "slow_start_min_weight",
    "success_rate_enforcement",
    "success_rate_minimum_hosts",
    "success_rate_request_volume",
    "success_rate_stdev_factor",
    "table_size",
    "weight_expiration_period",
    "weight_update_period",
];

impl Params {
    fn set(&mut self, text: &str, key: &Arc<str>, value: &Arc<str>, registry: &mut RegistryUri) -> Result<()> {
        match &**key {
            "policy" => self.policy = Some(value.clone()),
            "version" => self.version = Some(value.clone()),
            "zone" => self.zone = Some(value.clone()),
            "subset" => match value.parse() {
                Ok(0) | Err(_) => return Err(wrong(text, "subset is a number from 1 on")),
                Ok(size) => self.subset = Some(size),
            },
            "timeout" => self.timeout = Some(duration(text, key, value)?),
            "connect_timeout" => self.connect_timeout = Some(duration(text, key, value)?),
            "tls" if value.is_empty() => return Err(wrong(text, "tls is `system`, or the PEM file of an issuer")),
            "tls" => self.tls = Some(value.clone()),
            "tls_name" => self.tls_name = Some(value.clone()),
            "tls_cert" => self.tls_cert = Some(value.clone()),
            "tls_key" => self.tls_key = Some(value.clone()),
            _ => match key.strip_prefix("metadata.") {
                Some("") => return Err(wrong(text, "metadata. lacks a key, as in metadata.env=prod")),
                Some(key) => drop(self.metadata.insert(key.into(), value.clone())),
                None => drop(registry.params.insert(key.clone(), value.clone())),
            },
        }
        Ok(())
    }

    fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let mut put = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                pairs.push((key.to_owned(), value));
            }
        };
        let text = |value: &Option<Arc<str>>| value.as_deref().map(str::to_owned);
        put("policy", text(&self.policy));
        put("version", text(&self.version));
        put("zone", text(&self.zone));
        put("subset", self.subset.map(|size| size.to_string()));
        put("timeout", self.timeout.map(print_duration));
        put("connect_timeout", self.connect_timeout.map(print_duration));
        put("tls", text(&self.tls));
        put("tls_name", text(&self.tls_name));
        put("tls_cert", text(&self.tls_cert));
        put("tls_key", text(&self.tls_key));
        for (key, value) in &self.metadata {
            put(&format!("metadata.{key}"), Some(value.to_string()));
        }
        pairs
    }
}

impl fmt::Display for RegistryUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f, None, &[])
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registry.print(f, Some(&self.service), &self.params.pairs())
    }
}

impl RegistryUri {
    fn print(
        &self,
        f: &mut fmt::Formatter<'_>,
        service: Option<&ServiceName>,
        more: &[(String, String)],
    ) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, encode(&self.authority, AUTHORITY), encode(&self.path, PATH))?;
        if let Some(service) = service {
            write!(f, "/{}", encode(service.as_str(), SEGMENT))?;
        }
        let own = self.params.iter().map(|(key, value)| (&**key, &**value));
        let more = more.iter().map(|(key, value)| (&**key, &**value));
        for (n, (key, value)) in more.chain(own).enumerate() {
            write!(f, "{}{}={}", if n == 0 { '?' } else { '&' }, encode(key, QUERY), encode(value, QUERY))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RegistryUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The authority and the keys of a registry may carry a password or a token.
        let authority = self.authority.rsplit_once('@').map_or(&*self.authority, |(_, host)| host);
        write!(f, "{}://{authority}{}", self.scheme, self.path)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.registry, self.service)
    }
}

#[cfg(test)]
mod tests;
