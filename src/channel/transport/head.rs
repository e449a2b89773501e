//! Whether the head of a response is gRPC's, and what to make of it if not.

use http::{HeaderMap, StatusCode, header::CONTENT_TYPE, response::Parts};
use tonic::Code;

use crate::util::content_type::is_grpc;

/// The code and the reason for a response that no gRPC server sent
/// ([gRPC's table](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md)).
pub(in crate::channel) fn foreign(head: &Parts) -> Option<(Code, String)> {
    let content_type = head.headers.get(CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|value| is_grpc(value.as_bytes()));
    if is_grpc && (head.status == StatusCode::OK || has_status(&head.headers)) {
        return None;
    }
    let code = match head.status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    let what = content_type.map_or_else(
        || "without a content-type".to_owned(),
        |value| {
            format!(
                "with content-type {:?}",
                String::from_utf8_lossy(value.as_bytes()).chars().take(64).collect::<String>()
            )
        },
    );
    Some((code, format!("the response is not gRPC: HTTP status {} {what}", head.status.as_u16())))
}

/// Whether these headers, or trailers, carry a call's status.
pub(in crate::channel) fn has_status(headers: &HeaderMap) -> bool {
    headers.contains_key("grpc-status")
}
