//! What endpoints weigh, one beside the other.

use super::{Node, Probes, mix};

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

    /// The same of all.
    pub(super) fn all(&self) -> &[f32] {
        &self.lightness
    }

    /// Draws one by chance, as they weigh. There is one at least.
    #[inline(always)]
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

    /// Draws up to so many that are wanted, none twice, by these draws of one random number. There is one at least.
    pub(super) fn draw_some(
        &self,
        random: u64,
        draws: impl Iterator<Item = u64>,
        most: usize,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Drawn {
        let mut drawn = Drawn { at: [usize::MAX; Probes::MOST], count: 0 };
        for nth in draws {
            if drawn.count == most {
                break;
            }
            let at = self.draw(mix(random ^ nth << 56));
            if !drawn.at().contains(&at) && is_wanted(at) {
                drawn.at[drawn.count] = at;
                drawn.count += 1;
            }
        }
        drawn
    }
}

/// Some positions.
pub(super) struct Drawn {
    at: [usize; Probes::MOST],
    count: usize,
}

impl Drawn {
    pub(super) fn at(&self) -> &[usize] {
        &self.at[..self.count]
    }
}
