//! Calls without generated code: bytes as they are, on any channel, or on h2 itself.

use bytes::{Buf, BufMut, Bytes};
use http::{Request, uri::PathAndQuery};
use tonic::{
    Status,
    body::Body,
    client::{Grpc, GrpcService},
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Bytes in, bytes out.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// One unary call on a channel, as generated code makes it.
///
/// # Errors
///
/// Whatever the call fails with.
pub async fn unary<C>(channel: C, path: PathAndQuery, payload: Bytes) -> Result<Bytes, Status>
where
    C: GrpcService<Body>,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    C::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    <C::ResponseBody as tonic::codegen::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    Ok(grpc.unary(tonic::Request::new(payload), path, Raw).await?.into_inner())
}

/// One unary call on h2 itself: the least that a client could do.
///
/// # Errors
///
/// Whatever the connection fails with.
pub async fn on_h2(
    connection: &h2::client::SendRequest<Bytes>,
    request: Request<()>,
    payload: Bytes,
) -> Result<Bytes, h2::Error> {
    let mut ready = connection.clone().ready().await?;
    let (response, mut send) = ready.send_request(request, false)?;
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.put_u8(0);
    frame.put_u32(payload.len() as u32);
    frame.put(payload);
    send.send_data(frame.into(), true)?;
    let mut body = response.await?.into_body();
    let mut reply = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        reply.extend_from_slice(&data);
    }
    body.trailers().await?;
    Ok(Bytes::from(reply).slice(5..))
}
