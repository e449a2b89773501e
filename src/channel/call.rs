//! One call: pick, send, and again elsewhere if the server has not seen it.

use std::{future::poll_fn, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, Version,
    header::{HeaderName, USER_AGENT},
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use tokio::time::{Instant, timeout_at};
use tonic::{Status, body::Body};

use super::{
    CallOptions,
    idle::Use,
    kept::Kept,
    line::Line,
    published::{PickerCell, Published},
    timeout,
    transport::{Exchange, Failure, InFlight, Outgoing, ResponseBody, Stream},
};
use crate::{
    balance::{Pick, PickInfo},
    endpoint::Endpoint,
    error::{Error, Kind},
    instance::ServiceName,
    load::{CallGuard, LoadCell, Outcome},
    util::{rng::Draws, task},
};

/// What all calls of a channel share.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) service: ServiceName,
    pub(super) authority: Authority,
    pub(super) user_agent: HeaderValue,
    /// For calls that set no deadline themselves.
    pub(super) timeout: Option<Duration>,
    /// How long a call that does not wait for readiness may wait for a pick all the same.
    pub(super) patience: Duration,
    pub(super) wait_for_ready: bool,
    /// Whether responses say who served them.
    pub(super) report_endpoint: bool,
    pub(super) draws: Draws,
    pub(super) cell: PickerCell,
    pub(super) line: Arc<Line>,
    pub(super) used: Use,
}

/// Who serves a call, for its errors.
#[derive(Debug, Clone)]
pub(super) struct Served {
    service: ServiceName,
    endpoint: Endpoint,
}

impl Served {
    pub(super) fn failed(&self, error: Error) -> Status {
        error.context(format!("{} at {}", self.service, self.endpoint)).into()
    }

    pub(super) fn deadline_exceeded(&self) -> Status {
        self.failed(Error::new(Kind::DeadlineExceeded, "the deadline passed during the call"))
    }
}

/// A picked endpoint, the call counted in, with a stream to it.
struct Picked {
    served: Served,
    guard: CallGuard,
    stream: Stream,
}

/// What a look for an endpoint finds.
enum Look {
    Picked(Picked),
    Failed(Status),
    /// Nothing, until something else is published.
    NotReady,
    /// Endpoints, but every stream to them is taken.
    Full,
}

/// So many endpoints are asked for a stream before a call waits for one.
const ASKED: usize = 16;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

impl Calls {
    /// Waits until an endpoint is ready, whatever happens.
    pub(super) async fn ready(&self) {
        let look = |published: &Arc<Published>| match **published {
            Published::Ready { .. } => Some(()),
            Published::Idle => {
                self.used.wake();
                None
            }
            Published::Waiting(_) | Published::Failing(_) => None,
        };
        self.cell.wait_for(look).await;
    }

    /// Carries out a call up to the response's head.
    pub(super) async fn call(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (mut head, body) = request.into_parts();
        let begun = Instant::now();
        self.used.begin();
        let deadline = self.deadline(&mut head.headers, begun)?;
        self.complete(&mut head);

        let mut body = Outgoing::new(body);
        let mut kept = Kept::default();
        // It refused the call: go elsewhere if there is an elsewhere.
        let mut refused: Option<Arc<LoadCell>> = None;
        loop {
            let picked = self.pick(&head, begun, deadline, refused.as_ref()).await?;
            kept.put_back(&mut head.headers);
            if let Some(left) = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
                && begun.elapsed() > Duration::from_millis(1)
            {
                head.headers.insert(GRPC_TIMEOUT, timeout::format(left));
            }
            let (served, load) = (picked.served.clone(), picked.guard.cell().clone());
            kept.keep(&head.headers);
            let mut request = Request::new(());
            *request.method_mut() = Method::POST;
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = head.uri.clone();
            *request.headers_mut() = std::mem::take(&mut head.headers);
            let error = match attempt(picked, request, &mut body, deadline).await {
                Ok(mut response) => {
                    if self.report_endpoint {
                        // What room there is for extensions is used again.
                        head.extensions.clear();
                        head.extensions.insert(served.endpoint);
                        *response.extensions_mut() = head.extensions;
                    }
                    return Ok(response);
                }
                Err(Failure::Request(status)) => return Err(status),
                Err(Failure::Failed(error)) => return Err(served.failed(error)),
                // gRFC A6, transparent retries: what never left is free, refused unprocessed once.
                Err(Failure::Refused(error)) if refused.is_some() => return Err(served.failed(error)),
                Err(Failure::Refused(error)) => {
                    refused = Some(load);
                    error
                }
                Err(Failure::NotSent(error)) => error,
            };
            if !body.rewind() {
                return Err(served.failed(error.context("too much of the request was sent to send it again")));
            }
        }
    }

    /// The call's deadline, and the header that tells the server.
    fn deadline(&self, headers: &mut HeaderMap, now: Instant) -> Result<Option<Instant>, Status> {
        let timeout = match headers.get(GRPC_TIMEOUT) {
            Some(value) => Some(timeout::parse(value).ok_or_else(|| {
                Status::invalid_argument(format!(
                    "grpc-timeout {value:?} is no timeout: write 1 to 8 digits and one of H M S m u n"
                ))
            })?),
            None => self.timeout.inspect(|timeout| drop(headers.insert(GRPC_TIMEOUT, timeout::format(*timeout)))),
        };
        Ok(timeout.and_then(|timeout| now.checked_add(timeout)))
    }

    /// Makes a request of tonic's a request of HTTP/2's.
    fn complete(&self, head: &mut Parts) {
        let path = head.uri.path_and_query().cloned();
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(uri).unwrap_or_default();
        let user_agent = match head.headers.get(USER_AGENT) {
            None => self.user_agent.clone(),
            Some(own) => {
                let both = [own.as_bytes(), b" ", self.user_agent.as_bytes()].concat();
                HeaderValue::from_bytes(&both).unwrap_or_else(|_| self.user_agent.clone())
            }
        };
        head.headers.insert(USER_AGENT, user_agent);
    }

    /// Waits for a pick, as long as the call may.
    async fn pick(
        &self,
        head: &Parts,
        begun: Instant,
        deadline: Option<Instant>,
        refused: Option<&Arc<LoadCell>>,
    ) -> Result<Picked, Status> {
        // Nearly always at once; only who waits pays for waiting.
        let full = match self.look(&self.cell.load(), head, refused, false) {
            Look::Picked(picked) => return Ok(picked),
            Look::Failed(status) => return Err(status),
            Look::NotReady => false,
            Look::Full => true,
        };
        let patience = (!self.waits_for_ready(head)).then(|| begun + self.patience);
        let picked = self.wait(head, refused, full);
        let Some(until) = [deadline, patience].into_iter().flatten().min() else { return picked.await };
        match timeout_at(until, picked).await {
            Ok(picked) => picked,
            Err(_) => Err(self.waited(until - begun, deadline == Some(until))),
        }
    }

    /// Waits for an endpoint to be ready; and, where it is streams that are missing, in line.
    async fn wait(&self, head: &Parts, refused: Option<&Arc<LoadCell>>, full: bool) -> Result<Picked, Status> {
        let mut place = if full { Some(self.line.join().await) } else { None };
        loop {
            let look = |published: &Arc<Published>| match self.look(published, head, refused, place.is_some()) {
                Look::NotReady => None,
                Look::Full if place.is_some() => None,
                found => Some(found),
            };
            let found = match &place {
                None => Some(self.cell.wait_for(look).await),
                Some(place) => tokio::select! {
                    biased;
                    found = self.cell.wait_for(look) => Some(found),
                    () = place.freed() => None,
                },
            };
            match found {
                Some(Look::Picked(picked)) => return Ok(picked),
                Some(Look::Failed(status)) => return Err(status),
                Some(Look::Full) => place = Some(self.line.join().await),
                Some(Look::NotReady) | None => {}
            }
        }
    }

    /// Looks in one state for an endpoint with a free stream.
    fn look(&self, published: &Published, head: &Parts, refused: Option<&Arc<LoadCell>>, first_in_line: bool) -> Look {
        let (picker, nodes, connections) = match published {
            Published::Ready { picker, nodes, connections } => (picker, nodes, connections),
            Published::Waiting(_) => return Look::NotReady,
            Published::Idle => {
                self.used.wake();
                return Look::NotReady;
            }
            Published::Failing(_) if self.waits_for_ready(head) => return Look::NotReady,
            Published::Failing(error) => return Look::Failed(self.failed(error.clone())),
        };
        let mut tried = Vec::new();
        if let Some(refused) = refused.filter(|_| nodes.len() > 1) {
            tried.extend(nodes.iter().position(|node| Arc::ptr_eq(node.load(), refused)));
        }
        let now = Instant::now().into_std();
        let mut nothing = Look::NotReady;
        for _ in 0..ASKED {
            let mut info = PickInfo::new(head.uri.path(), &head.headers, now, self.draws.next_u64());
            info.tried = &tried;
            let at = match picker.pick(&info) {
                Pick::At(at) if !tried.contains(&at) => at,
                Pick::At(_) | Pick::Queue => return nothing,
                Pick::Fail(_) if self.waits_for_ready(head) || matches!(nothing, Look::Full) => return nothing,
                Pick::Fail(error) | Pick::Drop(error) => return Look::Failed(self.failed(error)),
            };
            let (Some(node), Some(connections)) = (nodes.get(at), connections.get(at)) else { return nothing };
            if let Some(stream) = connections.open(first_in_line) {
                let served = Served { service: self.service.clone(), endpoint: node.endpoint().clone() };
                return Look::Picked(Picked { served, guard: node.load().start(), stream });
            }
            tried.push(at);
            nothing = Look::Full;
        }
        nothing
    }

    fn waits_for_ready(&self, head: &Parts) -> bool {
        let options = head.extensions.get::<CallOptions>();
        options.and_then(|options| options.wait_for_ready).unwrap_or(self.wait_for_ready)
    }

    fn failed(&self, error: Error) -> Status {
        error.context(self.service.to_string()).into()
    }

    /// The status of a call that waited in vain: for what, and how long.
    fn waited(&self, waited: Duration, deadline: bool) -> Status {
        let kind = if deadline { Kind::DeadlineExceeded } else { Kind::Unavailable };
        let context = format!("waited {waited:.1?} for a ready endpoint");
        self.failed(match &**self.cell.load() {
            Published::Idle => Error::new(kind, context),
            Published::Waiting(why) | Published::Failing(why) => Error::with_source(kind, context, why.clone()),
            Published::Ready { nodes, .. } => {
                let ready = nodes.len();
                let why = "the policy picks none, or as many calls are open as the servers allow";
                Error::new(kind, format!("waited {waited:.1?} for a stream to one of {ready} ready endpoints: {why}"))
            }
        })
    }
}

/// Sends the request on its connection and waits for the response's head.
async fn attempt(
    picked: Picked,
    request: Request<()>,
    body: &mut Outgoing,
    deadline: Option<Instant>,
) -> Result<Response<Body>, Failure> {
    let Picked { served, guard, stream } = picked;
    let mut exchange = Exchange::start(&stream, request, body)?;
    let response = poll_fn(|cx| exchange.poll_response(cx, &stream, body));
    let response = match deadline {
        None => response.await,
        Some(deadline) => timeout_at(deadline, response).await.unwrap_or_else(|_| {
            Err(Failure::Failed(Error::new(Kind::DeadlineExceeded, "the deadline passed before the response")))
        }),
    };
    let (head, recv) = match response {
        Ok(response) => response.into_parts(),
        Err(failure) => {
            let outcome = if matches!(failure, Failure::Failed(_)) { Outcome::Failure } else { Outcome::Cancelled };
            guard.finish(outcome, Instant::now().into_std());
            return Err(failure);
        }
    };
    let pump = exchange.into_request().map(|rest| task::spawn(std::mem::take(body).pump(rest)));
    let call = InFlight { guard, deadline, _pump: pump, stream };
    let body = ResponseBody::new(recv, &head.headers, served, call);
    Ok(Response::from_parts(head, Body::new(body)))
}
