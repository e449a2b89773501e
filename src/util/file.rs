//! Files that others may write too: read in bounds, replaced as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// What a temporary file's name ends in; it begins with a dot.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Reads a regular file of at most `max` bytes. No link is followed, no pipe waited for.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    let invalid = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if !metadata.is_file() {
        return invalid("it is not a regular file".to_owned());
    }
    if metadata.len() > max {
        return invalid(format!("it has {} bytes, at most {max} are read", metadata.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return invalid(format!("it grew past {max} bytes"));
    }
    Ok(bytes)
}

/// Puts a file in place of the one there is: a reader finds the one or the other, never a part.
///
/// With `sync` that also holds over a loss of power.
pub(crate) fn replace(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = format!(".{name}.{}-{}{TEMPORARY}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    let temporary = path.with_file_name(unique);
    // One who had this process's id before us, and crashed, may have left it.
    drop(fs::remove_file(&temporary));
    let write = || {
        let mut file = File::options().write(true).create_new(true).open(&temporary)?;
        file.write_all(bytes)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}
