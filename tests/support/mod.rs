//! What the tests share.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "each test uses its part")]

pub mod dir;
pub mod echo;
pub mod frames;
pub mod raw;
pub mod seen;

use std::{convert::Infallible, sync::Arc};

use callsign::{Address, Channel, ChannelBuilder, Endpoint, EndpointKey, ServiceInstance, testing::net::Net};
use futures_util::Stream;
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::discover::Change;

pub fn endpoint(id: &str, address: &str) -> Endpoint {
    let address: Address = format!("grpc://{address}").parse().unwrap();
    let instance = ServiceInstance::builder("echo", id).unwrap().address(address.clone()).build().unwrap();
    Endpoint::new(address.into(), Arc::new(instance))
}

/// Serves echo on an address of the net until aborted.
pub fn serve(net: &Net, name: &str, address: &str) -> AbortHandle {
    let server = tonic::transport::Server::builder().add_service(
        echo::Echo::new(name)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .send_compressed(tonic::codec::CompressionEncoding::Gzip)
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20),
    );
    let listener = net.listen(address);
    tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() }).abort_handle()
}

/// A `Discover` that the test feeds.
#[derive(Clone)]
pub struct Feed(mpsc::UnboundedSender<Result<Change<EndpointKey, Endpoint>, Infallible>>);

impl Feed {
    pub fn new() -> (Self, impl Stream<Item = Result<Change<EndpointKey, Endpoint>, Infallible>> + Send + 'static) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), UnboundedReceiverStream::new(receiver))
    }

    pub fn insert(&self, endpoint: &Endpoint) {
        let _ = self.0.send(Ok(Change::Insert(endpoint.key().clone(), endpoint.clone())));
    }

    pub fn remove(&self, endpoint: &Endpoint) {
        let _ = self.0.send(Ok(Change::Remove(endpoint.key().clone())));
    }
}

/// A channel on the net, and what feeds it endpoints.
pub fn fed(net: &Net, endpoints: &[Endpoint]) -> (ChannelBuilder, Feed) {
    let (feed, discover) = Feed::new();
    endpoints.iter().for_each(|endpoint| feed.insert(endpoint));
    (Channel::builder("echo").connector(net.connector()).discover(discover).seed(1), feed)
}
