//! Latencies counted in buckets whose width is 1/256 of their value at most.

/// Counts of nanoseconds; a percentile is off by 0.4 % at most, and the mean is exact.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: f64,
    most: u64,
}

const BITS: u32 = 8;

/// Buckets: values below 2^9 each on its own, then 2^8 for each further power of two.
fn bucket(value: u64) -> usize {
    let shift = (63 - (value | 1).leading_zeros()).saturating_sub(BITS);
    ((u64::from(shift) << BITS) + (value >> shift)) as usize
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let shift = (bucket >> BITS).saturating_sub(1);
    let low = (bucket - (shift << BITS)) << shift;
    (low + ((1 << shift) >> 1)) as u64
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, nanos: u64) {
        let at = bucket(nanos);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.total += 1;
        self.sum += nanos as f64;
        self.most = self.most.max(nanos);
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.total += other.total;
        self.sum += other.sum;
        self.most = self.most.max(other.most);
    }

    /// How many were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The mean in milliseconds; not a number if there is none.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        self.sum / self.total as f64 / 1e6
    }

    /// The least milliseconds that this share of all does not exceed; not a number if there is none.
    #[must_use]
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        let last = bucket(self.most);
        // The last one's value is known: of calls that are late it is the deadline.
        let nanos = found.map(|found| if found == last { self.most } else { middle(found) });
        nanos.map_or(f64::NAN, |nanos| nanos as f64 / 1e6)
    }

    /// Whether buckets are where they should be: part of the model's check.
    ///
    /// # Errors
    ///
    /// If a value comes back more than 0.2 % off.
    pub fn check() -> Result<(), String> {
        let mut value = 1_u64;
        while value < 1 << 50 {
            let off = middle(bucket(value)).abs_diff(value);
            if off * 500 > value {
                return Err(format!("the histogram's bucket of {value} ns is {off} ns off"));
            }
            value += value / 7 + 1;
        }
        Ok(())
    }
}
