//! One attempt of a call, on one stream to one endpoint.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;

use super::{
    pick::Picked,
    served::Served,
    transport::{Exchange, Failure, InFlight, Outgoing, ResponseBody, Stream, foreign},
};
use crate::{
    error::{Error, Kind},
    load::{CallGuard, LoadCell, Outcome},
    util::task,
};

/// A request under way, up to the head of its response.
pub(super) struct Attempt {
    exchange: Exchange,
    deadline: Option<Pin<Box<Sleep>>>,
    /// None once it is over.
    held: Option<Held>,
}

/// What an attempt ended with.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    pub(super) served: Served,
}

/// Or why it did not, and where.
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) served: Served,
    pub(super) load: Arc<LoadCell>,
}

/// What an attempt holds on to, and hands on to the response's body.
struct Held {
    served: Served,
    guard: CallGuard,
    stream: Stream,
}

impl Attempt {
    /// Queues the request's head.
    pub(super) fn start(
        picked: Picked,
        request: Request<()>,
        body: &Outgoing,
        deadline: Option<Instant>,
    ) -> Result<Self, Failed> {
        let Picked { served, guard, stream } = picked;
        let exchange = match Exchange::start(&stream, request, body) {
            Ok(exchange) => exchange,
            Err(failure) => return Err(Failed { failure, served, load: guard.cell().clone() }),
        };
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        Ok(Self { exchange, deadline, held: Some(Held { served, guard, stream }) })
    }

    /// Whether the deadline has passed, to the clock: timers are later.
    fn is_late(&self) -> bool {
        self.deadline.as_ref().is_some_and(|deadline| deadline.deadline() <= Instant::now())
    }

    /// Sends what there is of the body, and looks for the response's head.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, body: &mut Outgoing) -> Poll<Result<Answer, Failed>> {
        let Some(held) = &self.held else { return Poll::Pending };
        let response = match self.exchange.poll_response(cx, &held.stream, body) {
            Poll::Ready(response) => response,
            Poll::Pending => match self.deadline.as_mut().map(|deadline| deadline.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => {
                    let late = "the deadline passed before the response";
                    Err(Failure::Failed(Error::new(Kind::DeadlineExceeded, late)))
                }
                _ => return Poll::Pending,
            },
        };
        let Some(Held { served, guard, stream }) = self.held.take() else { return Poll::Pending };
        let (head, recv) = match response {
            Ok(response) => {
                stream.answered();
                let (head, recv) = response.into_parts();
                if let Some((code, why)) = foreign(&head) {
                    let load = guard.cell().clone();
                    guard.finish(Outcome::Failure, Instant::now().into_std());
                    return Poll::Ready(Err(Failed { failure: Failure::Foreign(code, why), served, load }));
                }
                (head, recv)
            }
            Err(failure) => {
                let failure = if self.is_late() { failure.late() } else { failure };
                let outcome = match &failure {
                    Failure::Failed(error) if error.kind() == Kind::DeadlineExceeded => Outcome::Late,
                    Failure::Failed(_) => Outcome::Failure,
                    _ => Outcome::Cancelled,
                };
                let load = guard.cell().clone();
                guard.finish(outcome, Instant::now().into_std());
                return Poll::Ready(Err(Failed { failure, served, load }));
            }
        };
        let rest = self.exchange.take_request();
        let pump = rest.map(|rest| task::spawn(std::mem::take(body).pump(rest)));
        let call = InFlight { guard, deadline: self.deadline.take(), _pump: pump, stream };
        let body = ResponseBody::new(recv, &head.headers, served.clone(), call);
        Poll::Ready(Ok(Answer { response: Response::from_parts(head, Body::new(body)), served }))
    }
}
