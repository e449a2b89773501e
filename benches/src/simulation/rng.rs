//! Random numbers that a seed repeats, a stream for each purpose.

/// [xoshiro256++](https://prng.di.unimi.it/xoshiro256plusplus.c), seeded by SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng([u64; 4]);

/// The next of a series of random numbers ([SplitMix64](https://prng.di.unimi.it/splitmix64.c)).
fn mix(random: u64) -> u64 {
    let z = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// One of a seed's streams. What one stream is asked does not change what another answers, so
    /// all policies meet the same calls, bursts and events.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut state = mix(mix(seed) ^ stream);
        Self(std::array::from_fn(|_| {
            state = mix(state);
            state
        }))
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let next = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        next
    }

    /// From 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of `count` positions, each as likely as the other.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next_u64()) * count as u128) >> 64) as usize
    }

    /// Exponential of mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Normal of mean 0 and deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}
