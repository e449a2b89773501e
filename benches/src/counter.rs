//! What a piece of work costs this process: time on the CPU, and allocations.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// The system's allocator, which counts only when told to: shared counters would cost threads that
/// are being timed more than the allocations do.
#[derive(Debug)]
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    if COUNTING.load(Relaxed) {
        COUNT.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes, Relaxed);
    }
}

#[allow(unsafe_code, reason = "there is no other way to count allocations; each call goes to the system's as it came")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.saturating_sub(layout.size()));
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Counts the allocations of all threads while it lives, reallocations too.
#[derive(Debug)]
pub struct Allocations(());

impl Allocations {
    /// Begins at 0.
    #[must_use]
    pub fn count() -> Self {
        COUNT.store(0, Relaxed);
        BYTES.store(0, Relaxed);
        COUNTING.store(true, Relaxed);
        Self(())
    }

    /// How many so far, and of how many bytes together.
    #[must_use]
    pub fn so_far(&self) -> (usize, usize) {
        (COUNT.load(Relaxed), BYTES.load(Relaxed))
    }
}

impl Drop for Allocations {
    fn drop(&mut self) {
        COUNTING.store(false, Relaxed);
    }
}

/// The time that all threads of this process have been on a CPU.
#[must_use]
pub fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = |path| fs::read_to_string(path).ok()?.split(' ').next()?.parse::<u64>().ok();
    Duration::from_nanos(tasks.filter_map(|task| nanos(task.path().join("schedstat"))).sum())
}
