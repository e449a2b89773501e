//! Like calls to like endpoints, by a ring of hashes.

use http::HeaderName;

use super::{
    Balancer, Node, Pick, PickInfo, Picker,
    hash::{HashBy, by_name, hash},
};

/// Sends the calls of one key to one endpoint; when endpoints come and go, the keys of those move, and
/// few of the others
/// ([gRFC A42](https://github.com/grpc/proposal/blob/master/A42-xds-ring-hash-lb-policy.md)).
///
/// The key is a [`HashKey`](super::HashKey) in the request's extensions, else the values of a header,
/// else random. Weights are shares of the ring. The ring is that of gRPC and Envoy for the same
/// addresses: XXH64 of `host:port_n`.
#[derive(Debug, Clone)]
pub struct RingHash {
    by: HashBy,
    smallest: usize,
    largest: usize,
}

/// As many places as gRPC's, unless set.
const SMALLEST: usize = 1024;
const LARGEST: usize = 4096;

/// No ring is larger, whatever is asked for: it takes 16 bytes a place.
const MOST: usize = 8 << 20;

impl Default for RingHash {
    fn default() -> Self {
        Self { by: HashBy::default(), smallest: SMALLEST, largest: LARGEST }
    }
}

impl RingHash {
    /// Hashes a key of each call's own; calls without one go anywhere.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Hashes this header, where a call has no key of its own.
    #[must_use]
    pub fn by_header(mut self, header: HeaderName) -> Self {
        self.by.header = Some(header);
        self
    }

    /// Sets how many places the ring has at least, and at most; there is one for each endpoint all the
    /// same. More are more even, and cost memory and time at each change. Default 1,024 and 4,096; at
    /// most 8,388,608.
    #[must_use]
    pub fn ring_size(mut self, smallest: usize, largest: usize) -> Self {
        self.largest = largest.clamp(1, MOST);
        self.smallest = smallest.clamp(1, self.largest);
        self
    }
}

impl Balancer for RingHash {
    fn name(&self) -> &str {
        "ring_hash"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        Box::new(Ring { by: self.by.clone(), places: places(ready, self.smallest, self.largest), count: ready.len() })
    }
}

fn places(ready: &[Node], smallest: usize, largest: usize) -> Box<[(u64, u32)]> {
    let weights: f64 = ready.iter().map(|node| f64::from(node.weight())).sum();
    let lightest = ready.iter().map(|node| f64::from(node.weight()) / weights).fold(f64::INFINITY, f64::min);
    // So many that the lightest has a whole number of them.
    let scale = ((lightest * smallest as f64).ceil() / lightest).min(largest as f64);
    let mut places = Vec::new();
    let (mut wanted, mut made) = (0.0, 0.0);
    let mut name = String::new();
    // In that order rounding favours the same ones in each process.
    for (host, at) in by_name(ready) {
        wanted += scale * f64::from(ready[at].weight()) / weights;
        let mut n = 0;
        while made < wanted || n == 0 {
            name.clear();
            name.push_str(&host);
            name.push('_');
            name.push_str(&n.to_string());
            places.push((hash(name.as_bytes()), at as u32));
            n += 1;
            made += 1.0;
        }
    }
    places.sort_unstable();
    places.into()
}

struct Ring {
    by: HashBy,
    places: Box<[(u64, u32)]>,
    count: usize,
}

impl Picker for Ring {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        if info.tried.len() >= self.count {
            return Pick::Queue;
        }
        let hash = self.by.of(info);
        let first = self.places.partition_point(|(place, _)| *place < hash);
        info.around(self.places.len(), first, |place| self.places[place].1 as usize)
    }

    fn affinity(&self, info: &PickInfo<'_>) -> Option<u64> {
        self.by.key(info)
    }
}
