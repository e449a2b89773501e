//! A server on bare HTTP/2, for what no gRPC server would do.

use std::future::Future;

use bytes::Bytes;
use callsign::testing::net::{MemIo, Net};
use futures_util::StreamExt;
use h2::{
    RecvStream,
    server::{Connection, SendResponse},
};
use http::{HeaderMap, Request, Response};

pub type Server = Connection<MemIo, Bytes>;

/// Gives each connection to `serve`, with its number, after the handshake.
pub fn listen<F>(net: &Net, address: &str, serve: impl Fn(usize, Server) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    listen_as(&h2::server::Builder::new(), net, address, serve);
}

/// The same with settings of its own.
pub fn listen_as<F>(
    builder: &h2::server::Builder,
    net: &Net,
    address: &str,
    serve: impl Fn(usize, Server) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let builder = builder.clone();
    let mut listener = net.listen(address);
    tokio::spawn(async move {
        let mut count = 0;
        while let Some(Ok(io)) = listener.next().await {
            let Ok(connection) = builder.handshake(io).await else { continue };
            tokio::spawn(serve(count, connection));
            count += 1;
        }
    });
}

/// Answers a call with an empty message and OK.
pub fn answer_ok((_, mut respond): (Request<RecvStream>, SendResponse<Bytes>)) {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    stream.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

/// Answers a call with a status and no message.
pub fn answer((_, mut respond): (Request<RecvStream>, SendResponse<Bytes>), code: &'static str) {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}
