//! Requests and answers, no policy.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Response;
use http_body::Body as _;
use kube::{
    client::Body,
    core::{
        Request,
        params::{GetParams, ListParams, Patch, PatchParams, WatchParams},
    },
};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::error::{Error, Kind};

/// How long an answer may take to begin, and a list to end.
const ANSWER: Duration = Duration::from_secs(10);

/// No page of a list, and no event, is longer.
const MAX_BODY: usize = 64 << 20;
const MAX_LINE: usize = 4 << 20;

const PAGE: u32 = 250;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    EndpointSlices,
    Pods,
}

impl Resource {
    fn name(self) -> &'static str {
        match self {
            Self::EndpointSlices => "endpointslices",
            Self::Pods => "pods",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::EndpointSlices => "discovery.k8s.io",
            Self::Pods => "",
        }
    }

    fn request(self, namespace: &str) -> Request {
        Request::new(match self {
            Self::EndpointSlices => format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
            Self::Pods => format!("/api/v1/namespaces/{namespace}/pods"),
        })
    }
}

/// What went wrong, as far as it matters for what to do next.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// The HTTP status; 0 where there was no answer.
    pub(super) code: u16,
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn unanswered(error: Error) -> Self {
        Self { error, code: 0, retry_after: None }
    }

    /// What was asked for is too old: list again.
    pub(super) fn is_gone(&self) -> bool {
        self.code == 410
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    rest: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    metadata: ListMeta,
    items: Option<Vec<Value>>,
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct WatchEvent {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) object: Value,
}

/// A client of one namespace.
#[derive(Clone)]
pub(super) struct Client {
    inner: kube::Client,
    pub(super) namespace: String,
    /// Set once the server does not know its credentials.
    stranger: Arc<AtomicBool>,
}

impl Client {
    pub(super) fn new(inner: kube::Client, namespace: String) -> Self {
        Self { inner, namespace, stranger: Arc::default() }
    }

    pub(super) fn in_namespace(self, namespace: String) -> Self {
        Self { namespace, ..self }
    }

    /// Whether its credentials are no longer known: kept in memory for a minute, they may be newer in their files.
    pub(super) fn is_stranger(&self) -> bool {
        self.stranger.load(Ordering::Relaxed)
    }

    /// All objects with these labels, page by page, and the version to watch from; one more than `most` where there
    /// are more.
    pub(super) async fn list(
        &self,
        resource: Resource,
        labels: &str,
        most: usize,
    ) -> Result<(Vec<Value>, String), Failure> {
        let mut params = ListParams::default().labels(labels).limit(PAGE);
        let mut all = Vec::new();
        loop {
            let request = resource.request(&self.namespace).list(&params).map_err(unsent)?;
            let response = self.send("list", resource, request).await?;
            let body = timeout(ANSWER, read(response.into_body(), MAX_BODY)).await.map_err(|_| slow())??;
            let list: List = serde_json::from_slice(&body).map_err(garbled)?;
            all.extend(list.items.unwrap_or_default());
            let rest = list.metadata.rest.filter(|rest| !rest.is_empty() && all.len() <= most);
            all.truncate(most.saturating_add(1));
            match rest {
                Some(rest) => params.continue_token = Some(rest),
                None => return Ok((all, list.metadata.resource_version)),
            }
        }
    }

    /// What changes after a version, for so long at most.
    pub(super) async fn watch(
        &self,
        resource: Resource,
        labels: &str,
        version: &str,
        seconds: u32,
    ) -> Result<Lines, Failure> {
        let params = WatchParams { bookmarks: true, ..WatchParams::default() }.labels(labels).timeout(seconds);
        let request = resource.request(&self.namespace).watch(&params, version).map_err(unsent)?;
        let response = self.send("watch", resource, request).await?;
        Ok(Lines { body: Box::pin(response.into_body()), buffer: Vec::new(), searched: 0 })
    }

    pub(super) async fn pod(&self, name: &str) -> Result<Value, Failure> {
        let request = Resource::Pods.request(&self.namespace).get(name, &GetParams::default()).map_err(unsent)?;
        self.object("get", request).await
    }

    pub(super) async fn patch(&self, name: &str, patch: &Value) -> Result<Value, Failure> {
        let params = PatchParams::default();
        let request = Resource::Pods.request(&self.namespace).patch(name, &params, &Patch::Strategic(patch));
        self.object("patch", request.map_err(unsent)?).await
    }

    async fn object(&self, verb: &str, request: http::Request<Vec<u8>>) -> Result<Value, Failure> {
        let response = self.send(verb, Resource::Pods, request).await?;
        let body = timeout(ANSWER, read(response.into_body(), MAX_LINE)).await.map_err(|_| slow())??;
        serde_json::from_slice(&body).map_err(garbled)
    }

    async fn send(
        &self,
        verb: &str,
        resource: Resource,
        request: http::Request<Vec<u8>>,
    ) -> Result<Response<Body>, Failure> {
        let response = timeout(ANSWER, self.inner.send(request.map(Body::from))).await.map_err(|_| slow())?;
        let response = response.map_err(|source| {
            let context = "the Kubernetes API server does not answer";
            Failure::unanswered(Error::with_source(Kind::Unavailable, context, source))
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        if code == 401 {
            self.stranger.store(true, Ordering::Relaxed);
        }
        let retry_after = response.headers().get(http::header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|text| text.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let body = timeout(ANSWER, read(response.into_body(), 64 << 10)).await.ok().and_then(Result::ok);
        let status: Status = body.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        Err(Failure { error: self.refused(verb, resource, code, &status.message), code, retry_after })
    }

    /// An error of the server, with what there is to do about it.
    fn refused(&self, verb: &str, resource: Resource, code: u16, message: &str) -> Error {
        let (what, namespace) = (resource.name(), &self.namespace);
        let said = || Error::new(Kind::Unavailable, format!("the API server says: {message}"));
        match code {
            401 => Error::with_source(
                Kind::PermissionDenied,
                format!(
                    "the API server does not know our credentials ({verb} {what}): renew the token of the kubeconfig or service account"
                ),
                said(),
            ),
            403 => Error::with_source(
                Kind::PermissionDenied,
                format!(
                    "not allowed to {verb} {what} in namespace {namespace}: bind a Role there with the rule \
                     {{apiGroups: [{:?}], resources: [{what:?}], verbs: [{}]}}",
                    resource.group(),
                    if matches!(verb, "get" | "patch") { "get, patch" } else { "list, watch" },
                ),
                said(),
            ),
            404 => Error::new(Kind::NotFound, format!("cannot {verb} {what} in namespace {namespace}: {message}")),
            409 => Error::new(Kind::Conflict, format!("cannot {verb} {what} in namespace {namespace}: {message}")),
            400 | 422 => Error::new(Kind::InvalidInput, format!("the API server refuses to {verb} {what}: {message}")),
            429 => Error::new(Kind::Exhausted, format!("the API server is asked too much ({verb} {what}): {message}")),
            _ => Error::unavailable(format!("the API server answers {code} to {verb} {what}: {message}")),
        }
    }
}

fn unsent(source: kube::core::request::Error) -> Failure {
    Failure::unanswered(Error::with_source(Kind::InvalidInput, "such a request cannot be made", source))
}

fn slow() -> Failure {
    let context = format!("the Kubernetes API server does not answer within {ANSWER:?}");
    Failure::unanswered(Error::new(Kind::DeadlineExceeded, context))
}

fn garbled(source: serde_json::Error) -> Failure {
    Failure::unanswered(Error::with_source(Kind::Corrupt, "the API server's answer makes no sense", source))
}

fn broken(source: kube::Error) -> Failure {
    Failure::unanswered(Error::with_source(Kind::Unavailable, "the API server broke off its answer", source))
}

fn long(most: usize) -> Failure {
    Failure::unanswered(Error::new(Kind::Exhausted, format!("the API server's answer has more than {most} bytes")))
}

async fn read(body: Body, most: usize) -> Result<Vec<u8>, Failure> {
    let (mut body, mut bytes) = (Box::pin(body), Vec::new());
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > most {
            return Err(long(most));
        }
    }
    Ok(bytes)
}

/// The events of a watch, one a line.
pub(super) struct Lines {
    body: Pin<Box<Body>>,
    buffer: Vec<u8>,
    searched: usize,
}

impl Lines {
    /// The next event; none at the end. One that was broken off is as good as too old: behind the next connection may
    /// be a server that lost its data, which would wait for our version in silence. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<WatchEvent>, Failure> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + at).collect();
                self.searched = 0;
                let event: WatchEvent = serde_json::from_slice(&line).map_err(garbled)?;
                if event.kind != "ERROR" {
                    return Ok(Some(event));
                }
                let Status { code, message } = serde_json::from_value(event.object).unwrap_or_default();
                let error = Error::unavailable(format!("the API server ends the watch with {code}: {message}"));
                return Err(Failure { error, code, retry_after: None });
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE {
                return Err(long(MAX_LINE));
            }
            match poll_fn(|cx| self.body.as_mut().poll_frame(cx)).await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(source)) => return Err(Failure { code: 410, ..broken(source) }),
                None => return Ok(None),
            }
        }
    }
}
