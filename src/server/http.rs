//! HTTP/1 and HTTP/2 on the connections of a listener, by hyper.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use hyper::{body::Incoming as RequestBody, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower_service::Service;

use super::BoxError;
use crate::util::task;

/// Who sends no request's head for so long is cut off.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// Serves until told to stop, then until every connection has finished what it had.
pub(super) async fn serve<S, B, I>(service: S, incoming: impl Stream<Item = I>, stop: impl Future<Output = ()>)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    server.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    let (mut incoming, mut stop) = (pin!(incoming), pin!(stop));
    loop {
        let connection = tokio::select! {
            Some(connection) = incoming.next() => connection,
            () = &mut stop => break,
        };
        let service = service.clone();
        let service = service_fn(move |request: Request<RequestBody>| call(service.clone(), request.map(Body::new)));
        let connection = server.serve_connection_with_upgrades(TokioIo::new(connection), service);
        let connection = graceful.watch(connection.into_owned());
        // Bounded by the knife that every connection is under.
        task::spawn_bounded(async {
            // How a connection ends is its peer's affair.
            drop(connection.await);
        });
    }
    graceful.shutdown().await;
}

async fn call<S: Service<Request<Body>>>(mut service: S, request: Request<Body>) -> Result<S::Response, S::Error> {
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}
