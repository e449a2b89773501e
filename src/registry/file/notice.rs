//! The system's word that something changed in a directory.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Wakes those who wait for a change in a directory; where the system cannot tell, nobody is woken.
///
/// The watcher's own thread takes the lock on the directories, and whoever asks something of the
/// watcher waits for that thread: so nobody does both at once.
#[derive(Default)]
pub(super) struct Notices {
    directories: Arc<Mutex<Directories>>,
    // One for all directories: a user may have no more than 128 of them on Linux.
    watcher: Mutex<Option<RecommendedWatcher>>,
}

/// Who left is taken out when the next one comes.
type Directories = HashMap<PathBuf, Vec<Weak<Notify>>>;

impl Notices {
    /// Wakes the one given when something changes in a directory, which must be there.
    pub(super) fn subscribe(&self, directory: &Path, wake: &Arc<Notify>) {
        let waiting = self.directories.clone();
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if watcher.is_none() {
            *watcher = notify::recommended_watcher(move |event| on_event(&waiting, event)).ok();
        }
        let Some(watcher) = watcher.as_mut() else { return };
        for gone in take_unused(&self.directories) {
            drop(watcher.unwatch(&gone));
        }
        // The directory may be another one than the last time under this name.
        drop(watcher.unwatch(directory));
        if watcher.watch(directory, RecursiveMode::NonRecursive).is_ok() {
            let mut directories = lock(&self.directories);
            let waiting = directories.entry(directory.to_owned()).or_default();
            let wake = Arc::downgrade(wake);
            if !waiting.iter().any(|other| other.ptr_eq(&wake)) {
                waiting.push(wake);
            }
        }
    }
}

/// Takes out the directories that nobody waits for.
fn take_unused(directories: &Mutex<Directories>) -> Vec<PathBuf> {
    let mut unused = Vec::new();
    lock(directories).retain(|directory, waiting| {
        waiting.retain(|other| other.strong_count() > 0);
        if waiting.is_empty() {
            unused.push(directory.clone());
        }
        !waiting.is_empty()
    });
    unused
}

fn on_event(directories: &Mutex<Directories>, event: notify::Result<notify::Event>) {
    let directories = lock(directories);
    let wake_all = |paths: &mut dyn Iterator<Item = &Path>| {
        for wake in paths.filter_map(|path| directories.get(path)).flatten().filter_map(Weak::upgrade) {
            wake.notify_one();
        }
    };
    match event {
        // Our own reading is no change.
        Ok(event) if event.kind.is_access() => {}
        Ok(event) if !event.need_rescan() => {
            wake_all(&mut event.paths.iter().flat_map(|path| [Some(path.as_path()), path.parent()]).flatten());
        }
        // Something was missed.
        Ok(_) | Err(_) => wake_all(&mut directories.keys().map(PathBuf::as_path)),
    }
}

fn lock(directories: &Mutex<Directories>) -> MutexGuard<'_, Directories> {
    directories.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.directories).keys()).finish()
    }
}
