//! What is under a service's prefix, kept true by events.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::codec::{EtcdLayout, last_segment};
use crate::{
    error::{Error, Kind, Result},
    instance::{ServiceInstance, ServiceName},
    registry::Snapshot,
};

/// The keys of one service, each an instance or why it is none.
#[derive(Debug, Clone)]
pub(super) struct Records {
    layout: EtcdLayout,
    service: ServiceName,
    prefix: String,
    by_id: BTreeMap<String, Result<Arc<ServiceInstance>>>,
    /// How many keys there are beside those held.
    beyond: usize,
    /// Whether one of these could be held now.
    freed: bool,
    most: usize,
}

impl Records {
    pub(super) fn new(layout: EtcdLayout, service: ServiceName, prefix: String, most: usize) -> Self {
        Self { layout, service, prefix, by_id: BTreeMap::new(), beyond: 0, freed: false, most }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The same service's, with none yet.
    pub(super) fn afresh(&self) -> Self {
        Self::new(self.layout, self.service.clone(), self.prefix.clone(), self.most)
    }

    /// Takes in a key and its value; tells whether that changes anything.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Some(last) = last_segment(&self.prefix, key) else { return false };
        let (full, read) = (self.by_id.len() >= self.most, self.layout.decode(&self.service, &last, value));
        match self.by_id.entry(last) {
            Entry::Occupied(mut entry) => drop(entry.insert(read)),
            Entry::Vacant(_) if full => self.beyond += 1,
            Entry::Vacant(entry) => drop(entry.insert(read)),
        }
        true
    }

    /// Takes a key out; tells whether that changes anything.
    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        let Some(last) = last_segment(&self.prefix, key) else { return false };
        let held = self.by_id.remove(&last).is_some();
        if held {
            self.freed |= self.beyond > 0;
        } else {
            self.beyond = self.beyond.saturating_sub(1);
        }
        held
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn count_beyond(&mut self, keys: usize) {
        self.beyond += keys;
    }

    /// Whether there is room by now for keys that were not taken in.
    pub(super) fn lacks_some(&self) -> bool {
        self.freed && self.beyond > 0
    }

    pub(super) fn snapshot(&self, revision: i64) -> Snapshot {
        let skipped = self.by_id.values().filter(|read| read.is_err()).count() + self.beyond;
        Snapshot::new(self.by_id.values().filter_map(|read| read.as_ref().ok()).cloned())
            .with_revision(u64::try_from(revision).unwrap_or_default())
            .with_skipped(skipped)
    }

    /// What is no instance, by its key; the sum of what was too much under one name.
    pub(super) fn skipped(&self) -> BTreeMap<String, Error> {
        let wrong = |(last, read): (&String, &Result<_>)| {
            read.as_ref().err().map(|error| (format!("{}{last}", self.prefix), error.clone()))
        };
        let mut skipped: BTreeMap<_, _> = self.by_id.iter().filter_map(wrong).collect();
        if self.beyond > 0 {
            let context = format!("more than {} records: some are not read", self.most);
            skipped.insert(format!("{}*", self.prefix), Error::new(Kind::Exhausted, context));
        }
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_so_many_and_knows_that_there_are_more() {
        let service: ServiceName = "s".parse().expect("a name");
        let mut records = Records::new(EtcdLayout::GoZero, service, "s/".to_owned(), 2);
        for key in ["s/a", "s/b", "s/c", "s/d/e", "other/a"] {
            records.put(key.as_bytes(), b"h:1");
        }
        let counts = |records: &Records| {
            let set = records.snapshot(7);
            (set.instances().len(), set.skipped(), records.lacks_some())
        };
        assert_eq!(counts(&records), (2, 1, false));
        assert!(records.put(b"s/a", b"no address"), "what is held can change");
        assert_eq!(counts(&records), (1, 2, false));
        assert_eq!(records.skipped().keys().collect::<Vec<_>>(), ["s/*", "s/a"]);
        assert!(records.delete(b"s/b"));
        assert_eq!(counts(&records), (0, 2, true), "c may be read now");
        assert!(!records.delete(b"s/c"));
        assert_eq!(counts(&records), (0, 1, false));
    }

    /// One of 10,000 changes: the others are neither read nor built again.
    #[test]
    fn a_change_costs_what_changed() {
        let service: ServiceName = "s".parse().expect("a name");
        let mut records = Records::new(EtcdLayout::Kratos, service, "s/".to_owned(), 20_000);
        let value = |n: usize, version: &str| {
            format!(r#"{{"id":"{n}","name":"s","version":"{version}","endpoints":["grpc://h:1"]}}"#)
        };
        for n in 0..10_000 {
            records.put(format!("s/{n}").as_bytes(), value(n, "old").as_bytes());
        }
        let before = records.snapshot(1);
        records.put(b"s/7", value(7, "new").as_bytes());
        let after = records.snapshot(2);
        let pairs = before.instances().iter().zip(after.instances());
        assert_eq!(pairs.filter(|(before, after)| !Arc::ptr_eq(before, after)).count(), 1);
        assert_eq!(after.instances().len(), 10_000);
    }
}
