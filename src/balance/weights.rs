//! What endpoints weigh, one beside the other.

use super::Node;

/// By position.
pub(super) struct Weights {
    /// How many times heavier the heaviest is.
    lightness: Box<[f32]>,
    /// Where each one's part of a line ends; none if all weigh the same.
    ends: Option<Box<[u64]>>,
}

impl Weights {
    pub(super) fn of(ready: &[Node]) -> Self {
        let heaviest = ready.iter().map(Node::weight).max().unwrap_or(1);
        let uneven = ready.iter().any(|node| node.weight() < heaviest);
        let mut upto = 0;
        let ends = ready.iter().map(|node| {
            upto += u64::from(node.weight());
            upto
        });
        Self {
            ends: uneven.then(|| ends.collect()),
            lightness: ready.iter().map(|node| heaviest as f32 / node.weight() as f32).collect(),
        }
    }

    /// Whether all weigh the same.
    pub(super) fn are_even(&self) -> bool {
        self.ends.is_none()
    }

    /// How many times heavier the heaviest is than this one.
    pub(super) fn lightness(&self, at: usize) -> f32 {
        self.lightness[at]
    }

    /// Draws one by chance, as they weigh. There is one at least.
    pub(super) fn draw(&self, random: u64) -> usize {
        let within = |length: u64| ((u128::from(random) * u128::from(length)) >> 64) as u64;
        match self.ends.as_deref() {
            None => within(self.lightness.len() as u64) as usize,
            Some(ends) => {
                let place = within(ends.last().copied().unwrap_or(0));
                ends.partition_point(|end| *end <= place)
            }
        }
    }
}
