//! Two numbers in one word, which change as one.

/// One above, one below.
pub(crate) fn pack(high: f32, low: f32) -> u64 {
    u64::from(high.to_bits()) << 32 | u64::from(low.to_bits())
}

/// The one above, and the one below.
pub(crate) fn unpack(both: u64) -> (f32, f32) {
    (f32::from_bits((both >> 32) as u32), f32::from_bits(both as u32))
}
