//! What threads share. The model checks build the same files with loom's atomics in its place.

pub(crate) use std::sync::{Arc, OnceLock, atomic};
