//! Some numbers, of which the middle one is wanted.

use super::fleet::SEEN;

/// At most [`SEEN`].
pub(super) struct Sample {
    values: [f32; SEEN],
    count: usize,
}

impl Default for Sample {
    fn default() -> Self {
        Self { values: [0.0; SEEN], count: 0 }
    }
}

impl Sample {
    pub(super) fn push(&mut self, value: f32) {
        if let Some(place) = self.values.get_mut(self.count) {
            *place = value;
            self.count += 1;
        }
    }

    /// The mean square of how far they are from one.
    pub(super) fn square(&self, from: f32) -> f32 {
        let values = &self.values[..self.count];
        values.iter().map(|value| (value - from).powi(2)).sum::<f32>() / values.len() as f32
    }

    /// The middle one; none of none.
    pub(super) fn median(&mut self) -> Option<f32> {
        let values = &mut self.values[..self.count];
        let middle = self.count.checked_sub(1)? / 2;
        Some(*values.select_nth_unstable_by(middle, f32::total_cmp).1)
    }
}
