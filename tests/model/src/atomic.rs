//! Loom's atomics. Loom takes `SeqCst` for `AcqRel`, except in fences: so each such access stands
//! between two of them, which is how processors carry it out.

pub(crate) use std::sync::atomic::Ordering;

use loom::sync::atomic::fence;

fn between_fences<T>(ordering: Ordering, access: impl FnOnce() -> T) -> T {
    if ordering != Ordering::SeqCst {
        return access();
    }
    fence(ordering);
    let value = access();
    fence(ordering);
    value
}

macro_rules! atomic {
    ($name:ident, $of:ty) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        #[allow(dead_code, reason = "the same for all")]
        impl $name {
            pub(crate) fn new(value: $of) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, ordering: Ordering) -> $of {
                between_fences(ordering, || self.0.load(ordering))
            }

            pub(crate) fn store(&self, value: $of, ordering: Ordering) {
                between_fences(ordering, || self.0.store(value, ordering));
            }

            pub(crate) fn swap(&self, value: $of, ordering: Ordering) -> $of {
                between_fences(ordering, || self.0.swap(value, ordering))
            }

            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                update: impl FnMut($of) -> Option<$of>,
            ) -> Result<$of, $of> {
                between_fences(set, || self.0.fetch_update(set, fetch, update))
            }
        }
    };
}

macro_rules! counter {
    ($name:ident, $of:ty) => {
        atomic!($name, $of);

        #[allow(dead_code, reason = "the same for all")]
        impl $name {
            pub(crate) fn fetch_add(&self, value: $of, ordering: Ordering) -> $of {
                between_fences(ordering, || self.0.fetch_add(value, ordering))
            }

            pub(crate) fn fetch_sub(&self, value: $of, ordering: Ordering) -> $of {
                between_fences(ordering, || self.0.fetch_sub(value, ordering))
            }
        }
    };
}

atomic!(AtomicBool, bool);
counter!(AtomicU32, u32);
counter!(AtomicU64, u64);
counter!(AtomicUsize, usize);
