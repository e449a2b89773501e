//! What a call is hashed by, for policies that send like to like.

use std::hash::Hasher;

use http::HeaderName;
use twox_hash::XxHash64;

use super::{Node, PickInfo};

/// What [`RingHash`](super::RingHash) and [`Maglev`](super::Maglev) go by: calls of one key go to one
/// endpoint, as long as it is ready.
///
/// Put it into a request's extensions; it goes before the policy's header.
///
/// ```
/// use callsign::balance::HashKey;
///
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(HashKey::new("user-17"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashKey(u64);

impl HashKey {
    /// A key of these bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(hash(bytes.as_ref()))
    }

    /// A key that is a hash already, and should be as good as random.
    #[must_use]
    pub const fn from_hash(hash: u64) -> Self {
        Self(hash)
    }
}

/// As gRPC and Envoy do, so that their rings are ours.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// What endpoints are called, and where each is; in the order of the names, which is the same in each process.
pub(super) fn by_name(ready: &[Node]) -> Vec<(String, usize)> {
    let mut named: Vec<_> = ready.iter().enumerate().map(|(at, node)| (node.hash_name(), at)).collect();
    named.sort_unstable();
    named
}

/// Where a policy finds what to hash.
#[derive(Debug, Clone, Default)]
pub(super) struct HashBy {
    pub(super) header: Option<HeaderName>,
}

impl HashBy {
    /// By the call's own key, else by the header's values in their order, else at random
    /// ([gRFC A42](https://github.com/grpc/proposal/blob/master/A42-xds-ring-hash-lb-policy.md)).
    pub(super) fn of(&self, info: &PickInfo<'_>) -> u64 {
        self.key(info).unwrap_or(info.random)
    }

    /// The same, but none rather than chance.
    pub(super) fn key(&self, info: &PickInfo<'_>) -> Option<u64> {
        if let Some(HashKey(hash)) = info.extensions.and_then(|extensions| extensions.get()) {
            return Some(*hash);
        }
        let mut values = info.headers.get_all(self.header.as_ref()?).iter();
        let first = values.next()?;
        let mut hasher = XxHash64::with_seed(0);
        hasher.write(first.as_bytes());
        for value in values {
            hasher.write(b",");
            hasher.write(value.as_bytes());
        }
        Some(hasher.finish())
    }
}
