//! Calls of the channel's own, on one connection, which are nobody's load.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower_service::Service;

use super::{
    attempt::{Attempt, Failed},
    call::Calls,
    pick::Picked,
    served::Served,
    transport::{Connection, Failure, Outgoing},
};
use crate::{load::LoadCell, registry::BoxFuture};

/// One connection to one endpoint, and how to call on it.
#[derive(Clone)]
pub(super) struct Direct {
    pub(super) calls: Arc<Calls>,
    pub(super) served: Served,
    pub(super) connection: Connection,
}

impl Service<Request<Body>> for Direct {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { calls, served, connection } = self.clone();
        Box::pin(async move {
            let Some(stream) = connection.open(false) else {
                return Err(Status::unavailable("every stream of the connection is taken"));
            };
            let (head, body) = request.into_parts();
            let request = calls.request(&head.uri, head.headers);
            let mut body = Outgoing::new(body);
            // It is no call of the application's: what is in flight and how long it takes is counted apart.
            let guard = Arc::<LoadCell>::default().start(Instant::now().into_std());
            let attempt = Attempt::start(Picked { served, guard, stream }, request, &body, None);
            let ended = match attempt {
                Ok(mut attempt) => poll_fn(|cx| attempt.poll(cx, &mut body)).await,
                Err(failed) => Err(failed),
            };
            ended.map(|answer| answer.response).map_err(|Failed { failure, served, .. }| match failure {
                Failure::Request(status) => status,
                Failure::Foreign(code, why) => served.status(code, &why),
                Failure::Failed(error) | Failure::Refused(error) | Failure::Unseen(error) => served.failed(error),
            })
        })
    }
}
