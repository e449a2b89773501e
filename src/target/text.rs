//! Reading and writing the parts of targets.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::RegistryUri;
use crate::error::{Error, Result};

pub(super) fn split_scheme(text: &str) -> Result<(Arc<str>, &str)> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| {
        wrong(text, "it has no scheme; write it as memory:///greeter or file:///run/services/greeter")
    })?;
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(ok) {
        return Err(wrong(text, "what stands before :// is no scheme"));
    }
    Ok((scheme.to_ascii_lowercase().into(), rest))
}

pub(super) fn query_pairs(text: &str, query: &str) -> Result<BTreeMap<Arc<str>, Arc<str>>> {
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

pub(super) fn decode(text: &str, part: &str) -> Result<Arc<str>> {
    let decoded = percent_decode_str(part).decode_utf8().map_err(|_| wrong(text, "its escapes are no UTF-8"))?;
    if decoded.chars().any(char::is_control) {
        return Err(wrong(text, "it holds a control character"));
    }
    Ok(decoded.as_ref().into())
}

pub(super) fn encode<'a>(text: &'a str, set: &'static AsciiSet) -> impl fmt::Display + 'a {
    utf8_percent_encode(text, set)
}

pub(super) const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'?').add(b'#').add(b'%');
pub(super) const AUTHORITY: &AsciiSet = &PATH.add(b'/');
pub(super) const SEGMENT: &AsciiSet = AUTHORITY;
pub(super) const QUERY: &AsciiSet =
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

/// A time above 0 under another key of a registry.
#[cfg(any(feature = "consul", feature = "kubernetes", feature = "zookeeper"))]
pub(crate) fn duration_param(uri: &RegistryUri, key: &str) -> Result<Option<Duration>> {
    let wrong = || Error::invalid(format!("{uri:?}: {key} is a time above 0 such as 10s or 5m"));
    let read = |text| parse_duration(text).filter(|duration| !duration.is_zero()).ok_or_else(wrong);
    uri.param(key).map(read).transpose()
}

/// A key of a registry that is true or false, which is what it is where it is not set.
#[cfg(any(feature = "consul", feature = "etcd", feature = "zookeeper"))]
pub(crate) fn flag_param(uri: &RegistryUri, key: &str) -> Result<bool> {
    match uri.param(key) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Error::invalid(format!("{uri:?}: {key} is not true or false"))),
    }
}

const MIN_TTL: Duration = Duration::from_millis(10);

pub(super) fn print_duration(duration: Duration) -> String {
    match duration.as_micros() {
        0 => "0s".to_owned(),
        micros if micros % 1_000_000 == 0 => format!("{}s", micros / 1_000_000),
        micros if micros % 1_000 == 0 => format!("{}ms", micros / 1_000),
        micros => format!("{micros}us"),
    }
}

pub(super) fn duration(text: &str, key: &str, value: &str) -> Result<Duration> {
    parse_duration(value)
        .filter(|duration| !duration.is_zero())
        .map(|duration| Duration::from_micros(duration.as_micros().max(1) as u64))
        .ok_or_else(|| wrong(text, format_args!("{key} is a time above 0 such as 250ms, 1s or 2m")))
}

pub(super) fn wrong(text: &str, why: impl fmt::Display) -> Error {
    Error::invalid(format!("{} is no target: {why}", shown(text)))
}

/// As much of a target as an error may show: no query and no user, which may hold a secret.
pub(super) fn shown(text: &str) -> String {
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
