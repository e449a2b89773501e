//! What a client asks for: a registry, a service in it, and how to call it.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

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
/// | `policy` | how to balance: a name, and options behind it as in `least_request,choices=3` | `least_request` |
/// | `version` | only instances of this very version | all |
/// | `zone` | only instances in this zone | all |
/// | `subset` | at most so many instances, chosen by this channel at random | all |
/// | `metadata.KEY` | only instances whose metadata has this value under `KEY` | all |
/// | `timeout` | how long a call may take that sets no deadline itself, such as `1s` or `250ms` | no bound |
/// | `connect_timeout` | how long one try to connect may take | `5s` |
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

const KEYS: [&str; 7] = ["policy", "version", "zone", "subset", "metadata.KEY", "timeout", "connect_timeout"];

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
        for (key, value) in query_pairs(text, query)? {
            params.set(text, &key, &value, &mut registry)?;
        }
        Ok(Self { registry, service, params })
    }
}

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

fn split_scheme(text: &str) -> Result<(Arc<str>, &str)> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| {
        wrong(text, "it has no scheme; write it as memory:///greeter or file:///run/services/greeter")
    })?;
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(ok) {
        return Err(wrong(text, "what stands before :// is no scheme"));
    }
    Ok((scheme.to_ascii_lowercase().into(), rest))
}

fn query_pairs(text: &str, query: &str) -> Result<BTreeMap<Arc<str>, Arc<str>>> {
    let mut pairs = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| wrong(text, "its query is not of the form key=value&key=value"))?;
        if pairs.insert(decode(text, key)?, decode(text, value)?).is_some() {
            return Err(wrong(text, format_args!("it has the key {key} twice")));
        }
    }
    Ok(pairs)
}

fn decode(text: &str, part: &str) -> Result<Arc<str>> {
    let decoded = percent_decode_str(part).decode_utf8().map_err(|_| wrong(text, "its escapes are no UTF-8"))?;
    if decoded.chars().any(char::is_control) {
        return Err(wrong(text, "it holds a control character"));
    }
    Ok(decoded.as_ref().into())
}

fn encode<'a>(text: &'a str, set: &'static AsciiSet) -> impl fmt::Display + 'a {
    utf8_percent_encode(text, set)
}

const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'?').add(b'#').add(b'%');
const AUTHORITY: &AsciiSet = &PATH.add(b'/');
const SEGMENT: &AsciiSet = AUTHORITY;
const QUERY: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'#').add(b'%').add(b'&').add(b'=').add(b'+');

/// Reads `250ms`, `1.5s`, `2m`: a number from 0 on and a unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|char: char| !char.is_ascii_digit() && char != '.')?;
    let (number, unit) = text.split_at(unit);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    // Through nanoseconds, so that what is printed reads back as it was.
    let nanos = (number.parse::<f64>().ok()? * scale * 1e9).round();
    (nanos <= MAX_DURATION.as_secs_f64() * 1e9).then(|| Duration::from_nanos(nanos as u64))
}

const MAX_DURATION: Duration = Duration::from_secs(30 * 24 * 3600);

/// The key `ttl` of a registry that has leases.
pub(crate) fn ttl_param(uri: &RegistryUri) -> Result<Option<Duration>> {
    let Some(text) = uri.param("ttl") else { return Ok(None) };
    match parse_duration(text) {
        Some(ttl) if ttl >= MIN_TTL => Ok(Some(ttl)),
        _ => Err(Error::invalid(format!("{uri:?} has the ttl {text:?}: it is a time of at least 10ms, such as 5s"))),
    }
}

const MIN_TTL: Duration = Duration::from_millis(10);

fn print_duration(duration: Duration) -> String {
    match duration.as_micros() {
        0 => "0s".to_owned(),
        micros if micros % 1_000_000 == 0 => format!("{}s", micros / 1_000_000),
        micros if micros % 1_000 == 0 => format!("{}ms", micros / 1_000),
        micros => format!("{micros}us"),
    }
}

fn duration(text: &str, key: &str, value: &str) -> Result<Duration> {
    parse_duration(value)
        .filter(|duration| !duration.is_zero())
        .map(|duration| Duration::from_micros(duration.as_micros().max(1) as u64))
        .ok_or_else(|| wrong(text, format_args!("{key} is a time above 0 such as 250ms, 1s or 2m")))
}

fn wrong(text: &str, why: impl fmt::Display) -> Error {
    Error::invalid(format!("{} is no target: {why}", shown(text)))
}

/// As much of a target as an error may show: no query and no user, which may hold a secret.
fn shown(text: &str) -> String {
    let text = text.split('?').next().unwrap_or(text);
    let text = match text.split_once("://") {
        Some((scheme, rest)) => {
            let slash = rest.find('/').unwrap_or(rest.len());
            let host = rest[..slash].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[host..])
        }
        None => text.to_owned(),
    };
    format!("{:?}", text.chars().take(200).collect::<String>())
}

#[cfg(test)]
mod tests;
