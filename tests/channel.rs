//! What a channel does for its calls, over real sockets.

mod support;

use std::{convert::Infallible, sync::Arc};

use callsign::{Address, Channel, Endpoint, EndpointKey, ServiceInstance};
use futures_util::{StreamExt, stream};
use support::echo::{Echo, EchoClient, EchoRequest};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tower::discover::Change;

async fn server(name: &str) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = format!("grpc://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = tonic::transport::Server::builder().add_service(Echo::new(name));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let instance = ServiceInstance::builder("echo", name).unwrap().address(address.clone()).build().unwrap();
    Endpoint::new(address.into(), Arc::new(instance))
}

fn channel(endpoints: Vec<Endpoint>) -> Channel {
    let inserts = endpoints
        .into_iter()
        .map(|endpoint| Ok::<_, Infallible>(Change::<EndpointKey, _>::Insert(endpoint.key().clone(), endpoint)));
    Channel::builder("echo").discover(stream::iter(inserts).chain(stream::pending())).connect_lazy().unwrap()
}

#[tokio::test]
async fn a_unary_call_is_answered() {
    let channel = channel(vec![server("a").await]);
    let request = EchoRequest { payload: vec![7; 100], ..EchoRequest::default() };
    let reply = EchoClient::new(channel).unary(request).await.unwrap().into_inner();
    assert_eq!((reply.payload, reply.server.as_str()), (vec![7; 100], "a"));
}
