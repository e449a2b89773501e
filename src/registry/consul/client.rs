//! Requests to Consul's agents and their answers.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode, header::HeaderMap};
use rustls::{CertificateError, Error as TlsError};
use serde::Deserialize;
use serde_json::json;

use super::{
    codec::{Read, check_id},
    config::Config,
};
use crate::{
    error::{Error, Kind, Result},
    instance::ServiceName,
    tls::{HttpTls, cause},
    util::task,
};

/// One registry's agents. Which one answered last is asked first.
pub(super) struct Client {
    http: HttpTls<reqwest::Client>,
    config: Config,
    at: AtomicUsize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

/// An answer to a question for a service's instances.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) index: u64,
    /// Which way the server took; indexes of two are not to be compared.
    pub(super) backend: String,
    pub(super) body: Vec<u8>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// The server asks not to be asked for so long.
    pub(super) after: Option<Duration>,
    /// Whether another server may know better.
    pub(super) elsewhere: bool,
    status: Option<StatusCode>,
}

/// No answer is longer.
const MOST: usize = 64 << 20;

/// From here on an answer takes milliseconds to read.
const LONG: usize = 256 << 10;

/// How long a request may take that waits for nothing.
const WITHIN: Duration = Duration::from_secs(3);

impl Client {
    pub(super) fn new(config: Config) -> Result<Self> {
        let http = HttpTls::new(config.tls.clone(), config.observer.clone(), |tls| {
            let builder = reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(WITHIN)
                .tcp_keepalive(Duration::from_secs(10))
                .tls_backend_preconfigured(tls);
            builder
                .build()
                .map_err(|source| Error::with_source(Kind::InvalidInput, "HTTP cannot be set up for Consul", source))
        })?;
        Ok(Self { http, config, at: AtomicUsize::new(0) })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The agent that is asked first.
    pub(super) fn current(&self) -> usize {
        self.at.load(Relaxed) % self.config.agents.len()
    }

    /// Asks another one first from now on, unless somebody has said so already.
    pub(super) fn go_on_from(&self, agent: usize) {
        let _ = self.at.compare_exchange(agent, (agent + 1) % self.config.agents.len(), Relaxed, Relaxed);
    }

    /// Begins to ask one agent after the other until one answers.
    pub(super) fn tour(&self) -> Tour<'_> {
        Tour { client: self, agent: self.current(), left: self.config.agents.len() }
    }

    pub(super) async fn register(&self, agent: usize, body: Vec<u8>) -> Result<(), Failed> {
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.ask(Method::PUT, agent, path, body, WITHIN).await.map(drop)
    }

    /// Takes a service out; one that is not there is out.
    pub(super) async fn deregister(&self, agent: usize, id: &str) -> Result<(), Failed> {
        let path = format!("/v1/agent/service/deregister/{}", encode(id));
        match self.ask(Method::PUT, agent, &path, Vec::new(), WITHIN).await {
            Err(failed) if failed.status == Some(StatusCode::NOT_FOUND) => Ok(()),
            done => done.map(drop),
        }
    }

    /// The ids, and the service of each, that Consul would take for this id: the catalog knows no case.
    pub(super) async fn alike(&self, agent: usize, id: &str) -> Result<Vec<(String, String)>, Failed> {
        #[derive(Deserialize)]
        struct Known {
            #[serde(rename = "Service")]
            service: String,
        }
        let mut pattern = String::new();
        for char in id.chars() {
            match char {
                // It would end the pattern; any other there is told apart below.
                '`' => pattern.push('.'),
                _ if char.is_ascii() && !char.is_ascii_alphanumeric() => pattern.extend(['\\', char]),
                _ => pattern.push(char),
            }
        }
        let path = format!("/v1/agent/services?filter={}", encode(&format!("ID matches `(?i)^{pattern}$`")));
        let (_, body) = self.ask(Method::GET, agent, &path, Vec::new(), WITHIN).await?;
        let known = parse::<BTreeMap<String, Known>>(&body)?.into_iter();
        let alike = known.filter(|(known, _)| known.to_lowercase() == id.to_lowercase());
        Ok(alike.map(|(id, known)| (id, known.service)).collect())
    }

    /// The notes of the TTL check of a service; none where there is no such check.
    pub(super) async fn notes_of(&self, agent: usize, id: &str) -> Result<Option<String>, Failed> {
        #[derive(Deserialize)]
        struct Known {
            #[serde(rename = "Notes", default)]
            notes: String,
        }
        let check = check_id(id);
        let filter = format!("CheckID == {}", json!(check));
        let path = format!("/v1/agent/checks?filter={}", encode(&filter));
        let (_, body) = self.ask(Method::GET, agent, &path, Vec::new(), WITHIN).await?;
        Ok(parse::<BTreeMap<String, Known>>(&body)?.remove(&check).map(|known| known.notes))
    }

    /// Says that a service is alive; false if the agent knows no such check.
    pub(super) async fn pass(&self, agent: usize, id: &str) -> Result<bool, Failed> {
        let path = format!("/v1/agent/check/update/{}", encode(&check_id(id)));
        let body = br#"{"Status":"passing","Output":"pass"}"#;
        match self.ask(Method::PUT, agent, &path, body.to_vec(), WITHIN).await {
            Ok(_) => Ok(true),
            // Old agents answer 500.
            Err(failed)
                if failed.status == Some(StatusCode::NOT_FOUND) || says(&failed, "does not have associated TTL") =>
            {
                Ok(false)
            }
            Err(failed) => Err(failed),
        }
    }

    /// The passing instances of a service; waits for a change after `index`, 0 for none.
    pub(super) async fn health(
        &self,
        agent: usize,
        service: &ServiceName,
        datacenter: Option<&str>,
        index: u64,
    ) -> Result<Answer, Failed> {
        let config = &self.config;
        let mut path = format!("/v1/health/service/{}?passing=1", encode(service.as_str()));
        let mut within = WITHIN;
        if index > 0 {
            path += &format!("&index={index}&wait={}ms", config.wait.as_millis());
            // The server adds a sixteenth to spread its answers.
            within = config.wait + config.wait / 16 + Duration::from_secs(10);
        }
        let filter = config.tag.as_ref().map(|tag| format!("{} in Service.Tags", json!(tag)));
        for (key, value) in [("dc", datacenter), ("near", config.near.as_deref()), ("filter", filter.as_deref())] {
            path += &value.map_or_else(String::new, |value| format!("&{key}={}", encode(value)));
        }
        path += if config.stale { "&stale=" } else { "" };
        let asked = self.ask(Method::GET, agent, &path, Vec::new(), within).await;
        let (headers, body) = asked.map_err(|failed| {
            // The agent is well if it says that another datacenter is not: so nobody leaves it.
            let not_here = datacenter.is_some() && failed.status == Some(StatusCode::INTERNAL_SERVER_ERROR);
            let elsewhere = failed.elsewhere && (!not_here || says(&failed, "No cluster leader"));
            Failed { elsewhere, ..failed }
        })?;
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = |why: &str| Failed {
            error: Error::new(Kind::PermissionDenied, format!("{}: {why}", config.name)),
            after: None,
            elsewhere: false,
            status: None,
        };
        if header("x-consul-results-filtered-by-acls") == "true" {
            return Err(refused(
                "its ACLs hide a part of the answer: the token needs service:read on the service and node:read",
            ));
        }
        let nothing = body.trim_ascii() == b"[]";
        if nothing && header("x-consul-default-acl-policy") == "deny" && config.token.is_none() {
            return Err(refused(
                "it denies who has no token, and none was given: set token_file= or CONSUL_HTTP_TOKEN",
            ));
        }
        let backend = header("x-consul-query-backend");
        // An answer from the stream of changes says so always.
        if config.stale && backend != "streaming" && header("x-consul-knownleader") == "false" {
            let error = Error::unavailable(format!("{} has no leader: what it knows may be old", config.name));
            return Err(Failed { error, after: None, elsewhere: true, status: None });
        }
        let index = header("x-consul-index").parse().unwrap_or(0);
        Ok(Answer { index, backend: backend.to_owned(), body })
    }

    /// Why an agent does not answer, and what of TLS to change if that is it.
    fn why(&self, base: &str, error: &reqwest::Error) -> String {
        let peer = base.rsplit('/').next().unwrap_or(base);
        let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host).trim_matches(['[', ']']);
        let Some(why) = self.http.explain(peer, host, error) else { return format!("{base} does not answer") };
        let mend = match cause(error) {
            Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => "; ca= names the issuers to trust",
            Some(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => "; server_name= says whom to expect",
            Some(TlsError::AlertReceived(_)) => "; cert= and key= are what we show",
            _ => "",
        };
        why + mend
    }

    /// Reads an answer's instances, a long one beside what else this program does.
    pub(super) async fn read(&self, service: &ServiceName, body: Vec<u8>) -> Result<Read> {
        let reading = self.config.reading.clone();
        if body.len() < LONG {
            return reading.decode(service, &body);
        }
        let service = service.clone();
        task::blocking(move || reading.decode(&service, &body)).await
    }

    async fn ask(
        &self,
        method: Method,
        agent: usize,
        path: &str,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<(HeaderMap, Vec<u8>), Failed> {
        let config = &self.config;
        let Some(base) = config.agents.get(agent) else { return Err(Failed::of(Error::invalid("no such agent"))) };
        let mut url = format!("{base}{path}");
        for (key, value) in [("ns", &config.namespace), ("partition", &config.partition)] {
            if let Some(value) = value {
                url += &format!("{}{key}={}", if url.contains('?') { '&' } else { '?' }, encode(value));
            }
        }
        let mut request = self.http.current().await?.request(method, url).timeout(within).body(body);
        if let Some(token) = &config.token {
            let token = token.read("Consul's token").await?;
            let mut token = http::HeaderValue::from_str(&token)
                .map_err(|_| Error::new(Kind::PermissionDenied, "Consul's token holds what no header can"))?;
            token.set_sensitive(true);
            request = request.header("x-consul-token", token);
        }
        let unreachable = |source: reqwest::Error| {
            // Without the URL: of that the base is enough.
            let error = Error::with_source(Kind::Unavailable, self.why(base, &source), source.without_url());
            Failed { error, after: None, elsewhere: true, status: None }
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > MOST {
                return Err(Failed::of(Error::new(Kind::Exhausted, format!("{base} answers more than {MOST} bytes"))));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() { Ok((headers, bytes)) } else { Err(refused(base, status, &headers, &bytes)) }
    }
}

/// One agent after the other, each once.
#[derive(Debug)]
pub(super) struct Tour<'a> {
    client: &'a Client,
    agent: usize,
    left: usize,
}

impl Tour<'_> {
    pub(super) fn agent(&self) -> usize {
        self.agent
    }

    /// Goes on to the next one, if there is one and it may know better.
    pub(super) fn goes_on(&mut self, failed: &Failed) -> bool {
        self.left -= 1;
        if self.left == 0 || !failed.elsewhere {
            return false;
        }
        self.client.go_on_from(self.agent);
        self.agent = self.client.current();
        true
    }
}

/// What a status that is no success means.
fn refused(base: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failed {
    let text: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
    let (kind, hint) = match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
            (Kind::PermissionDenied, "; the token needs service:write to register, service:read and node:read to watch")
        }
        StatusCode::BAD_REQUEST if text.contains("HTTPS server") => {
            (Kind::InvalidInput, "; ca= names the issuer of its certificate")
        }
        StatusCode::BAD_REQUEST => (Kind::InvalidInput, ""),
        StatusCode::NOT_FOUND => (Kind::NotFound, ""),
        _ => (Kind::Unavailable, ""),
    };
    let after = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
    let elsewhere = kind == Kind::Unavailable;
    let error = Error::new(kind, format!("{base} answers {}: {text}{hint}", status.as_u16()));
    Failed { error, after, elsewhere, status: Some(status) }
}

fn says(failed: &Failed, text: &str) -> bool {
    failed.error.to_string().contains(text)
}

impl Failed {
    fn of(error: Error) -> Self {
        Self { error, after: None, elsewhere: false, status: None }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::of(error)
    }
}

fn parse<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(body)
        .map_err(|source| Failed::of(Error::with_source(Kind::Corrupt, "Consul's answer makes no sense", source)))
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
