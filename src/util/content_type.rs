//! What a content-type says.

/// `application/grpc`, alone or with `+proto` or `;charset` and the like behind it.
pub(crate) fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let (Some(head), rest) = (content_type.get(..GRPC.len()), content_type.get(GRPC.len())) else { return false };
    head.eq_ignore_ascii_case(GRPC) && matches!(rest, None | Some(b'+' | b';' | b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_told_apart() {
        for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;v=1", "Application/GRPC"] {
            assert!(is_grpc(grpc.as_bytes()), "{grpc}");
        }
        for other in ["", "text/html", "application/grpc-web", "application/grpcx", "application/grp"] {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }
}
