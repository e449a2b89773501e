//! What a piece of work costs this process: time on the CPU, and allocations.

use std::{alloc::System, fs, time::Duration};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What this process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    cpu: Duration,
    allocations: usize,
    bytes: usize,
}

impl Used {
    /// Reads the counters: CPU time of all threads, allocations and reallocations.
    #[must_use]
    pub fn now() -> Self {
        let stats = ALLOCATOR.stats();
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let nanos = |path| fs::read_to_string(path).ok()?.split(' ').next()?.parse::<u64>().ok();
        let cpu = tasks.filter_map(|task| nanos(task.path().join("schedstat"))).sum();
        Self {
            cpu: Duration::from_nanos(cpu),
            allocations: stats.allocations + stats.reallocations,
            bytes: stats.bytes_allocated,
        }
    }

    /// What was used since, for each of so many calls: microseconds of CPU, allocations, bytes.
    #[must_use]
    pub fn per_call(self, since: Self, calls: usize) -> [f64; 3] {
        let calls = calls as f64;
        [
            (self.cpu - since.cpu).as_secs_f64() * 1e6 / calls,
            (self.allocations - since.allocations) as f64 / calls,
            (self.bytes - since.bytes) as f64 / calls,
        ]
    }
}
