//! Whether a file is the one it was.

use std::fs::Metadata;

/// What differs when a file was replaced or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    identity: u64,
    modified: Option<std::time::SystemTime>,
    length: u64,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { identity: identity(metadata), modified: metadata.modified().ok(), length: metadata.len() }
    }
}

/// A number that no other file of the same file system has now; 0 where the system tells none.
pub(crate) fn identity(metadata: &Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    {
        let _ = metadata;
        0
    }
}
