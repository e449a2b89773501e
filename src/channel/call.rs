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
    published::{PickerCell, Published},
    timeout,
    transport::{Connection, Exchange, Failure, InFlight, Outgoing, ResponseBody},
};
use crate::{
    balance::{Node, Pick, PickInfo},
    endpoint::Endpoint,
    error::{Error, Kind},
    instance::ServiceName,
    load::{CallGuard, Outcome},
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
    pub(super) draws: Draws,
    pub(super) cell: PickerCell,
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

/// A picked endpoint, the call counted in.
struct Picked {
    served: Served,
    guard: CallGuard,
    connection: Connection,
}

/// Connections that turned the call away.
#[derive(Default)]
struct Tried {
    /// They take nothing any more.
    dead: Vec<Connection>,
    /// It took nothing just now: go elsewhere if there is an elsewhere.
    refused: Option<Connection>,
}

impl Tried {
    fn positions(&self, ready: &[Connection]) -> Vec<usize> {
        let at = |tried: &Connection| ready.iter().position(|ready| ready.is(tried));
        let mut positions: Vec<_> = self.dead.iter().filter_map(at).collect();
        positions.extend(self.refused.as_ref().and_then(at).filter(|_| positions.len() + 1 < ready.len()));
        positions
    }
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

impl Calls {
    /// Carries out a call up to the response's head.
    pub(super) async fn call(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (mut head, body) = request.into_parts();
        let begun = Instant::now();
        let deadline = self.deadline(&mut head.headers, begun)?;
        self.complete(&mut head);

        let mut body = Outgoing::new(body);
        let mut tried = Tried::default();
        loop {
            let picked = self.pick(&head, begun, deadline, &tried).await?;
            if let Some(left) = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
                && begun.elapsed() > Duration::from_millis(1)
            {
                head.headers.insert(GRPC_TIMEOUT, timeout::format(left));
            }
            let (served, connection) = (picked.served.clone(), picked.connection.clone());
            let error = match attempt(picked, &head, &mut body, deadline).await {
                Ok(response) => return Ok(response),
                Err(Failure::Request(status)) => return Err(status),
                Err(Failure::Failed(error)) => return Err(served.failed(error)),
                // gRFC A6, transparent retries: what never left is free, refused unprocessed once.
                Err(Failure::Refused(error)) if tried.refused.is_some() => return Err(served.failed(error)),
                Err(Failure::Refused(error)) => {
                    tried.refused = Some(connection);
                    error
                }
                Err(Failure::NotSent(error)) => {
                    tried.dead.push(connection);
                    error
                }
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
        head.method = Method::POST;
        head.version = Version::HTTP_2;
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
        tried: &Tried,
    ) -> Result<Picked, Status> {
        // Nearly always at once; only who waits pays for waiting.
        if let Some(picked) = self.try_pick(&self.cell.load(), head, tried) {
            return picked;
        }
        let patience = (!self.waits_for_ready(head)).then(|| begun + self.patience);
        let picked = self.cell.wait_for(|published| self.try_pick(published, head, tried));
        let Some(until) = [deadline, patience].into_iter().flatten().min() else { return picked.await };
        match timeout_at(until, picked).await {
            Ok(picked) => picked,
            Err(_) => Err(self.waited(until - begun, deadline == Some(until))),
        }
    }

    /// Picks from one state; none to wait for the next.
    fn try_pick(&self, published: &Published, head: &Parts, tried: &Tried) -> Option<Result<Picked, Status>> {
        let (picker, nodes, connections) = match published {
            Published::Ready { picker, nodes, connections } => (picker, nodes, connections),
            Published::Waiting(_) => return None,
            Published::Failing(_) if self.waits_for_ready(head) => return None,
            Published::Failing(error) => return Some(Err(self.failed(error.clone()))),
        };
        let tried = tried.positions(connections);
        let mut info = PickInfo::new(head.uri.path(), &head.headers, Instant::now().into_std(), self.draws.next_u64());
        info.tried = &tried;
        match picker.pick(&info) {
            Pick::At(at) if !tried.contains(&at) => {
                let (node, connection) = (nodes.get(at)?, connections.get(at)?);
                Some(Ok(self.picked(node, connection)))
            }
            Pick::At(_) | Pick::Queue => None,
            Pick::Fail(_) if self.waits_for_ready(head) => None,
            Pick::Fail(error) | Pick::Drop(error) => Some(Err(self.failed(error))),
        }
    }

    fn picked(&self, node: &Node, connection: &Connection) -> Picked {
        Picked {
            served: Served { service: self.service.clone(), endpoint: node.endpoint().clone() },
            guard: node.load().start(),
            connection: connection.clone(),
        }
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
            Published::Waiting(why) | Published::Failing(why) => Error::with_source(kind, context, why.clone()),
            Published::Ready { .. } => Error::new(kind, format!("{context}: the balancer picked none")),
        })
    }
}

/// Sends the request on its connection and waits for the response's head.
async fn attempt(
    picked: Picked,
    head: &Parts,
    body: &mut Outgoing,
    deadline: Option<Instant>,
) -> Result<Response<Body>, Failure> {
    let Picked { served, guard, connection } = picked;
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers.clone();

    let mut exchange = Exchange::start(connection.sender(), request, body)?;
    let response = poll_fn(|cx| exchange.poll_response(cx, body));
    let response = match deadline {
        None => response.await,
        Some(deadline) => timeout_at(deadline, response).await.unwrap_or_else(|_| {
            Err(Failure::Failed(Error::new(Kind::DeadlineExceeded, "the deadline passed before the response")))
        }),
    };
    let (mut head, recv) = match response {
        Ok(response) => response.into_parts(),
        Err(failure) => {
            let outcome = if matches!(failure, Failure::Failed(_)) { Outcome::Failure } else { Outcome::Cancelled };
            guard.finish(outcome, Instant::now().into_std());
            return Err(failure);
        }
    };
    let pump = exchange.into_request().map(|stream| task::spawn(std::mem::take(body).pump(stream)));
    head.extensions.insert(served.endpoint.clone());
    let call = InFlight { guard, deadline, _pump: pump, _connection: connection };
    let body = ResponseBody::new(recv, &head.headers, served, call);
    Ok(Response::from_parts(head, Body::new(body)))
}
