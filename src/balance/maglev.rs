//! Like calls to like endpoints, by a table.

use http::HeaderName;

use super::{
    Balancer, Node, Pick, PickInfo, Picker,
    hash::{HashBy, by_name, hash},
};
use crate::error::{Error, Result};

/// Sends the calls of one key to one endpoint, more evenly than [`RingHash`](super::RingHash) and in
/// constant time; when endpoints come and go, a few keys of the others move too
/// ([Maglev, section 3.4](https://research.google/pubs/maglev-a-fast-and-reliable-software-network-load-balancer/)).
///
/// The key is a [`HashKey`](super::HashKey) in the request's extensions, else the values of a header,
/// else random. Weights are shares of the table.
#[derive(Debug, Clone)]
pub struct Maglev {
    by: HashBy,
    size: usize,
}

/// Envoy's and the paper's smaller one; a prime, as each must be.
const SIZE: usize = 65_537;

/// No table is larger: it takes 4 bytes a place.
const MOST: usize = 5_000_011;

impl Default for Maglev {
    fn default() -> Self {
        Self { by: HashBy::default(), size: SIZE }
    }
}

impl Maglev {
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

    /// Sets how many places the table has: a prime, a hundred times as many as there are endpoints or
    /// more. Default 65,537; at most 5,000,011.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if it is no prime, or too large.
    pub fn table_size(mut self, size: usize) -> Result<Self> {
        if size > MOST || !is_prime(size) {
            return Err(Error::invalid(format!("a Maglev table of {size} places: it is a prime, at most {MOST}")));
        }
        self.size = size;
        Ok(self)
    }
}

fn is_prime(number: usize) -> bool {
    number > 1 && (2..).take_while(|by| by * by <= number).all(|by: usize| !number.is_multiple_of(by))
}

impl Balancer for Maglev {
    fn name(&self) -> &str {
        "maglev"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        Box::new(Table { by: self.by.clone(), places: places(ready, self.size), count: ready.len() })
    }
}

/// One endpoint's way through the table.
struct Filler {
    at: u32,
    weight: f64,
    next: usize,
    skip: usize,
    /// It takes its next place when the turns have come so far.
    due: f64,
}

const FREE: u32 = u32::MAX;

fn places(ready: &[Node], size: usize) -> Box<[u32]> {
    let mut places = vec![FREE; size];
    let heaviest = ready.iter().map(|node| f64::from(node.weight())).fold(0.0, f64::max);
    let mut fillers: Vec<_> = by_name(ready)
        .into_iter()
        .map(|(name, at)| {
            let first = hash(name.as_bytes());
            // Another function: the same one with a salt.
            let second = hash(&[name.as_bytes(), b"_skip"].concat());
            Filler {
                at: at as u32,
                weight: f64::from(ready[at].weight()),
                next: (first % size as u64) as usize,
                skip: (second % (size as u64 - 1)) as usize + 1,
                due: 0.0,
            }
        })
        .collect();
    let mut filled = 0;
    let mut turn = 1.0;
    while filled < size && !fillers.is_empty() {
        for filler in &mut fillers {
            // The heaviest takes one each turn, who weighs half as much one in two.
            if filler.weight * turn < filler.due {
                continue;
            }
            filler.due += heaviest;
            while places[filler.next] != FREE {
                filler.next = (filler.next + filler.skip) % size;
            }
            places[filler.next] = filler.at;
            filled += 1;
            if filled == size {
                break;
            }
        }
        turn += 1.0;
    }
    places.into()
}

struct Table {
    by: HashBy,
    places: Box<[u32]>,
    count: usize,
}

impl Picker for Table {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        if info.tried.len() >= self.count {
            return Pick::Queue;
        }
        let first = (self.by.of(info) % self.places.len() as u64) as usize;
        info.around(self.places.len(), first, |place| self.places[place] as usize)
    }

    fn affinity(&self, info: &PickInfo<'_>) -> Option<u64> {
        self.by.key(info)
    }
}
