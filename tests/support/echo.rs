//! A tonic server that answers as it is told, and says who it is.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use tonic::{Code, Request, Response, Status, Streaming};

mod proto {
    #![allow(unused_qualifications, missing_docs, clippy::all, reason = "generated")]
    tonic::include_proto!("echo.v1");
}

#[allow(unused_imports, reason = "each test uses its part")]
pub use self::proto::{EchoReply, EchoRequest, echo_client::EchoClient, echo_server::EchoServer};

/// The echo service of the server with this name.
#[derive(Debug, Clone)]
pub struct Echo {
    name: String,
}

impl Echo {
    pub fn new(name: impl Into<String>) -> EchoServer<Self> {
        EchoServer::new(Self { name: name.into() })
    }

    async fn answer(&self, request: &EchoRequest) -> Result<EchoReply, Status> {
        tokio::time::sleep(Duration::from_millis(request.delay_ms.into())).await;
        match Code::from_i32(request.code) {
            Code::Ok => Ok(EchoReply { payload: request.payload.clone(), server: self.name.clone() }),
            code => Err(Status::new(code, "as you wish")),
        }
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

#[tonic::async_trait]
impl proto::echo_server::Echo for Echo {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let mut response = Response::new(self.answer(request.get_ref()).await?);
        // Metadata that begins with "echo-" comes back, as headers; and what the server saw.
        for header in ["echo-text", "user-agent", "grpc-timeout", "te"] {
            if let Some(value) = request.metadata().get(header) {
                let name: tonic::metadata::AsciiMetadataKey = format!("saw-{header}").parse().expect("valid");
                response.metadata_mut().insert(name, value.clone());
            }
        }
        if let Some(value) = request.metadata().get_bin("echo-bytes-bin") {
            response.metadata_mut().insert_bin("saw-bytes-bin", value.clone());
        }
        Ok(response)
    }

    type ServerStreamStream = Replies;

    async fn server_stream(&self, request: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        let (echo, request) = (self.clone(), request.into_inner());
        let code = request.code;
        let each = EchoRequest { code: 0, ..request.clone() };
        let replies = stream::iter(0..request.replies).then(move |_| {
            let (echo, each) = (echo.clone(), each.clone());
            async move { echo.answer(&each).await }
        });
        let end = stream::iter((code != 0).then(|| Err(Status::new(Code::from_i32(code), "as you wish"))));
        Ok(Response::new(Box::pin(replies.chain(end))))
    }

    async fn client_stream(&self, request: Request<Streaming<EchoRequest>>) -> Result<Response<EchoReply>, Status> {
        let mut requests = request.into_inner();
        let mut payload = Vec::new();
        while let Some(request) = requests.message().await? {
            payload.extend(self.answer(&request).await?.payload);
        }
        Ok(Response::new(EchoReply { payload, server: self.name.clone() }))
    }

    type BidiStream = Replies;

    async fn bidi(&self, request: Request<Streaming<EchoRequest>>) -> Result<Response<Replies>, Status> {
        let echo = self.clone();
        let replies = request.into_inner().then(move |request| {
            let echo = echo.clone();
            async move { echo.answer(&request?).await }
        });
        Ok(Response::new(Box::pin(replies)))
    }
}
