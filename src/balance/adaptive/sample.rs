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

    pub(super) fn extend(&mut self, value: Option<f32>) {
        value.into_iter().for_each(|value| self.push(value));
    }

    /// The mean square of how far those that count are from one; 0 of none.
    pub(super) fn square(&self, from: f32, counts: impl Fn(f32) -> bool) -> f32 {
        let values = self.values[..self.count].iter().filter(|value| counts(**value));
        let (sum, count) =
            values.fold((0.0, 0.0_f32), |(sum, count), value| (sum + (value - from).powi(2), count + 1.0));
        sum / count.max(1.0)
    }

    /// The middle one; none of none.
    pub(super) fn median(&mut self) -> Option<f32> {
        median(&mut self.values[..self.count])
    }
}

/// The middle one; none of none.
pub(super) fn median(values: &mut [f32]) -> Option<f32> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable_by(middle, f32::total_cmp).1)
}
