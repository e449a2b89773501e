//! Numbers that look random, made of others.

/// 2⁶⁴ by the golden ratio: of all steps round a circle, multiples of this one fill it most evenly
/// (Knuth, The Art of Computer Programming, volume 3, section 6.4, theorem S).
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The next of a series of random numbers ([SplitMix64](https://prng.di.unimi.it/splitmix64.c)).
pub(crate) fn mix(random: u64) -> u64 {
    let z = random.wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Of a random number a part of one.
pub(crate) fn fraction(random: u64) -> f32 {
    (random >> 40) as f32 / (1_u64 << 24) as f32
}
