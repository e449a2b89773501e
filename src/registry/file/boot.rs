//! How long this machine has been up: a clock that nobody sets, and that its processes share.

use std::{fs, sync::OnceLock, time::Duration};

use super::ledger::Now;

/// Both of the below.
pub(super) fn now() -> Now<'static> {
    Now { boot: id(), uptime: uptime() }
}

/// Which boot of which machine this is; none where the system tells none.
pub(super) fn id() -> Option<&'static str> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty() && id.len() <= 64)
    };
    ID.get_or_init(read).as_deref()
}

/// The time since then, to a hundredth of a second.
pub(super) fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()
}
