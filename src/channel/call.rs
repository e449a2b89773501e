//! One call: an attempt, and another elsewhere if the server has not seen it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, Version,
    header::{CONTENT_TYPE, HeaderName, TE, USER_AGENT},
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use tokio::time::Instant;
use tonic::{Status, body::Body};

use super::{
    attempt::{Answer, Attempt, Failed},
    cell::Cell,
    idle::Use,
    kept::{GRPC, Kept, TRAILERS},
    line::Line,
    pick::Picked,
    published::Published,
    timeout,
    transport::{Failure, Outgoing},
};
use crate::{error::Error, instance::ServiceName, load::LoadCell, registry::BoxFuture, util::rng::Draws};

/// What all calls of a channel share.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) service: ServiceName,
    pub(super) scheme: Scheme,
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
    pub(super) cell: Cell<Published>,
    pub(super) line: Arc<Line>,
    pub(super) used: Use,
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

impl Calls {
    pub(super) fn failed(&self, error: Error) -> Status {
        error.context(self.service.to_string()).into()
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

    /// The URI that HTTP/2 wants, of the one that tonic gives.
    fn uri(&self, path: &Uri) -> Uri {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(path.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        Uri::from_parts(uri).unwrap_or_default()
    }

    /// The head of a request as it goes out.
    pub(super) fn request(&self, path: &Uri, headers: HeaderMap) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri(path);
        *request.headers_mut() = headers;
        self.complete(request.headers_mut());
        request
    }

    /// Puts what a call's headers need beside the application's own.
    fn complete(&self, headers: &mut HeaderMap) {
        let user_agent = match headers.get(USER_AGENT) {
            None => self.user_agent.clone(),
            Some(own) => {
                let both = [own.as_bytes(), b" ", self.user_agent.as_bytes()].concat();
                HeaderValue::from_bytes(&both).unwrap_or_else(|_| self.user_agent.clone())
            }
        };
        headers.insert(USER_AGENT, user_agent);
        // Generated code sets both; who calls without it need not know.
        if !headers.contains_key(TE) {
            headers.insert(TE, HeaderValue::from_static(TRAILERS));
        }
        if !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
        }
    }
}

/// One call, between its attempts.
struct Call {
    calls: Arc<Calls>,
    head: Parts,
    body: Outgoing,
    begun: Instant,
    deadline: Option<Instant>,
    /// The application's headers, while an attempt has them.
    kept: Kept,
    /// It refused the call: go elsewhere if there is an elsewhere.
    refused: Option<Arc<LoadCell>>,
}

impl Call {
    fn new(calls: Arc<Calls>, request: Request<Body>) -> Result<Self, Status> {
        let (mut head, body) = request.into_parts();
        let begun = Instant::now();
        calls.used.begin();
        let deadline = calls.deadline(&mut head.headers, begun)?;
        let body = Outgoing::new(body);
        Ok(Self { calls, head, body, begun, deadline, kept: Kept::default(), refused: None })
    }

    /// Begins an attempt at what was picked.
    fn attempt(&mut self, picked: Picked) -> Result<Attempt, Failed> {
        if let Some(deadline) = self.deadline
            && self.begun.elapsed() > Duration::from_millis(1)
        {
            let left = deadline.saturating_duration_since(Instant::now());
            self.head.headers.insert(GRPC_TIMEOUT, timeout::format(left));
        }
        self.kept.keep(&self.head.headers);
        let request = self.calls.request(&self.head.uri, std::mem::take(&mut self.head.headers));
        Attempt::start(picked, request, &self.body, self.deadline)
    }

    /// Gets ready to try again after an attempt that failed, if that may be.
    ///
    /// What never left is free, and what was refused unprocessed once
    /// ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#transparent-retries)).
    /// What crossed an old connection's end is free too: the server refused nothing, a client that sends all in its
    /// order would not have sent it, and as the connection had answered, calls get on.
    fn again(&mut self, Failed { failure, served, load }: Failed) -> Result<(), Status> {
        let error = match failure {
            Failure::Request(status) => return Err(status),
            Failure::Foreign(code, why) => return Err(served.status(code, &why)),
            Failure::Failed(error) => return Err(served.failed(error)),
            Failure::Refused(error) if self.refused.is_some() => return Err(served.failed(error)),
            Failure::Refused(error) => {
                self.refused = Some(load);
                error
            }
            Failure::Unseen(error) => error,
        };
        if !self.body.rewind() {
            return Err(served.failed(error.context("too much of the request was sent to send it again")));
        }
        self.kept.put_back(&mut self.head.headers);
        Ok(())
    }

    /// Goes on as long as it takes.
    async fn run(mut self) -> Result<Response<Body>, Status> {
        loop {
            let picked = self.calls.pick(&self.head, self.begun, self.deadline, self.refused.as_ref()).await?;
            let ended = match self.attempt(picked) {
                Ok(mut attempt) => poll_fn(|cx| attempt.poll(cx, &mut self.body)).await,
                Err(failed) => Err(failed),
            };
            match ended {
                Ok(answer) => return Ok(self.answer(answer)),
                Err(failed) => self.again(failed)?,
            }
        }
    }

    fn answer(&mut self, Answer { mut response, served }: Answer) -> Response<Body> {
        if self.calls.report_endpoint {
            // What room there is for extensions is used again.
            let mut extensions = std::mem::take(&mut self.head.extensions);
            extensions.clear();
            extensions.insert(served.endpoint().clone());
            *response.extensions_mut() = extensions;
        }
        response
    }
}

/// A call up to the head of its response. One that finds an endpoint at once, and is answered,
/// costs no allocation for itself; and it stays where it is, as what is large is slow to move.
pub(super) struct Calling {
    /// Until it is over, or goes on in a place of its own.
    call: Option<Call>,
    attempt: Option<Attempt>,
    slow: Option<BoxFuture<'static, Result<Response<Body>, Status>>>,
    wrong: Option<Status>,
}

impl Calling {
    pub(super) fn new(calls: &Arc<Calls>, request: Request<Body>) -> Self {
        let (call, wrong) = match Call::new(calls.clone(), request) {
            Ok(call) => (Some(call), None),
            Err(wrong) => (None, Some(wrong)),
        };
        Self { call, attempt: None, slow: None, wrong }
    }

    fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, Status>> {
        loop {
            let Some(call) = &mut self.call else {
                if let Some(slow) = &mut self.slow {
                    return slow.as_mut().poll(cx);
                }
                let status = self.wrong.take();
                let status = status.unwrap_or_else(|| Status::internal("a call is over, and polled again"));
                return Poll::Ready(Err(status));
            };
            let failed = match &mut self.attempt {
                Some(attempt) => match ready!(attempt.poll(cx, &mut call.body)) {
                    Ok(answer) => return Poll::Ready(Ok(call.answer(answer))),
                    Err(failed) => Some(failed),
                },
                None => match call.calls.pick_now(&call.head, call.begun).transpose()? {
                    None => None,
                    Some(picked) => match call.attempt(picked) {
                        Ok(attempt) => {
                            self.attempt = Some(attempt);
                            continue;
                        }
                        Err(failed) => Some(failed),
                    },
                },
            };
            failed.map_or(Ok(()), |failed| call.again(failed))?;
            // It waits, or tries again, in a place of its own.
            self.attempt = None;
            self.slow = self.call.take().map(|call| Box::pin(call.run()) as _);
        }
    }
}

impl Future for Calling {
    type Output = Result<Response<Body>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(self.poll_call(cx));
        (self.call, self.attempt, self.slow) = (None, None, None);
        Poll::Ready(ended)
    }
}
