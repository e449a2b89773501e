//! Asking servers how busy they are before a call is sent.

use std::time::Duration;

/// Endpoints to ask how busy they are, and how long to wait for what they say.
#[derive(Debug, Clone)]
pub struct Probes {
    at: [usize; Self::MOST],
    count: usize,
    wait: Duration,
    announced: Duration,
}

impl Probes {
    /// So many are asked at most.
    pub const MOST: usize = 8;

    /// Asks those at these positions, of which what is more than [`MOST`](Self::MOST) is left out.
    pub fn new(at: impl IntoIterator<Item = usize>, wait: Duration) -> Self {
        let (mut all, mut count) = ([0; Self::MOST], 0);
        for (place, at) in all.iter_mut().zip(at) {
            *place = at;
            count += 1;
        }
        Self { at: all, count, wait, announced: Duration::ZERO }
    }

    /// Tells each that the call will come to one of them in about so long, and whoever asks meanwhile hears of it. Default 0,
    /// which tells nothing.
    #[must_use]
    pub fn announcing(mut self, within: Duration) -> Self {
        self.announced = within;
        self
    }

    /// The same, of other positions.
    pub(crate) fn with(&self, at: impl IntoIterator<Item = usize>) -> Self {
        Self::new(at, self.wait).announcing(self.announced)
    }

    /// The positions.
    pub fn at(&self) -> &[usize] {
        &self.at[..self.count]
    }

    /// In about how long the call comes to one of them, after it was asked; 0 if it is not told.
    pub fn announced(&self) -> Duration {
        self.announced
    }

    /// How long to wait for all of them.
    pub fn wait(&self) -> Duration {
        self.wait
    }
}

/// What came of [`Probes`]. What was said is in the endpoints' loads.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Probed<'a> {
    /// Who was asked.
    pub asked: &'a [usize],
    /// Who answered in time.
    pub answered: &'a [usize],
    /// How long it took until the first of these had; or, if none did, until the wait was over.
    pub first: Duration,
    /// How long the call has waited for them.
    pub waited: Duration,
}

impl<'a> Probed<'a> {
    /// Who was asked and did not answer in time.
    pub(crate) fn silent(&self) -> impl Iterator<Item = usize> + Clone + use<'a> {
        let answered = self.answered;
        self.asked.iter().copied().filter(move |at| !answered.contains(at))
    }

    /// These were asked, of which these answered, the first after so long; that the call has waited no longer is taken
    /// for granted.
    pub fn new(asked: &'a [usize], answered: &'a [usize], first: Duration) -> Self {
        Self { asked, answered, first, waited: first }
    }

    /// Sets how long the call has waited.
    #[must_use]
    pub fn waited(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_asked_in_the_same_way() {
        let probes = Probes::new([1, 2], Duration::from_millis(3)).announcing(Duration::from_millis(1)).with([7]);
        assert_eq!(probes.at(), [7]);
        assert_eq!((probes.wait(), probes.announced()), (Duration::from_millis(3), Duration::from_millis(1)));
    }
}
