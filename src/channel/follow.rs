//! Follows what a server says of its load, out of band, for the policies that want it.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, uri::PathAndQuery};
use tokio::time::{Instant, sleep};
use tonic::{
    Code, Status,
    body::Body,
    client::{Grpc, GrpcService},
};
use tower_service::Service;

use super::{
    attempt::{Attempt, Failed},
    call::Calls,
    pick::Picked,
    served::Served,
    transport::{Connection, Failure, Outgoing},
};
use crate::{
    load::{BriefReport, LoadCell},
    registry::BoxFuture,
    report::{METHOD, request},
    util::{
        backoff::{Backoff, BackoffConfig},
        raw::Raw,
        rng::Rng,
    },
};

/// One connection to one endpoint, and how to call on it.
#[derive(Clone)]
pub(super) struct Followed {
    pub(super) calls: Arc<Calls>,
    pub(super) served: Served,
    pub(super) connection: Connection,
}

impl Followed {
    /// Takes in reports for as long as it is polled; begins again, with a backoff, when they end. Ends by itself where
    /// the server knows of none.
    pub(super) async fn run(self, every: Duration, backoff: BackoffConfig, seed: u64) {
        let (mut backoff, mut rng) = (Backoff::new(backoff), Rng::seeded(seed));
        loop {
            match reports(self.clone(), every).await {
                Ok(mut reports) => {
                    while let Ok(Some(report)) = reports.message().await {
                        if let Some(report) = BriefReport::decode(&report) {
                            backoff.reset();
                            self.served.node().load().report(&report, Instant::now().into_std());
                        }
                    }
                }
                Err(status) if status.code() == Code::Unimplemented => return,
                Err(_) => {}
            }
            sleep(backoff.next(&mut rng)).await;
        }
    }
}

/// Asks for reports so often.
pub(super) async fn reports<S>(service: S, every: Duration) -> Result<tonic::Streaming<Vec<u8>>, Status>
where
    S: GrpcService<Body, Error = Status, ResponseBody = Body>,
{
    let mut grpc = Grpc::new(service).max_decoding_message_size(64 << 10);
    grpc.ready().await?;
    let asked = tonic::Request::new(request(every));
    Ok(grpc.server_streaming(asked, PathAndQuery::from_static(METHOD), Raw).await?.into_inner())
}

impl Service<Request<Body>> for Followed {
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
            let request = calls.request(calls.uri(&head.uri), head.headers);
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
                Failure::Failed(error) | Failure::Refused(error) | Failure::NotSent(error) => served.failed(error),
            })
        })
    }
}
