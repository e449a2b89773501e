//! The header that carries a report: base64 of a message, as all that ends in `-bin`.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::MAX_BYTES;
use crate::load::BriefReport;

/// Where servers put their reports ([A51](https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md)).
pub(crate) const HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// Written without padding, read with or without.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What trailers say of the server's load; most say nothing but the status.
pub(crate) fn brief(trailers: &HeaderMap) -> Option<BriefReport> {
    if trailers.len() < 2 {
        return None;
    }
    message(trailers.get(HEADER)?, BriefReport::decode)
}

/// Decodes a header's message, in place.
pub(super) fn message<T>(value: &HeaderValue, decode: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    // Nearly all are short, and what is long takes long to clear.
    if value.len() <= 320 { within::<256, T>(value, decode) } else { within::<{ MAX_BYTES + 3 }, T>(value, decode) }
}

fn within<const ROOM: usize, T>(value: &HeaderValue, decode: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let mut bytes = [0; ROOM];
    let length = BASE64.decode_slice(value, &mut bytes).ok()?;
    decode(&bytes[..length])
}
