//! Records that are no instances: told once, not each time that they are met.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    error::Error,
    instance::ServiceName,
    observe::{Event, Observer},
};

/// What a watch has told its observer of.
#[derive(Debug)]
pub(super) struct Skips {
    registry: Arc<str>,
    observer: Arc<dyn Observer>,
    /// The record's name, and why it is skipped.
    told: BTreeMap<String, String>,
}

impl Skips {
    pub(super) fn new(registry: Arc<str>, observer: Arc<dyn Observer>) -> Self {
        Self { registry, observer, told: BTreeMap::new() }
    }

    /// Tells of all that is skipped now, each once; again when the reason changes.
    pub(super) fn tell(&mut self, service: &ServiceName, skipped: &BTreeMap<String, Error>) {
        self.told.retain(|record, _| skipped.contains_key(record));
        for (record, error) in skipped {
            let why = format!("{error:#}");
            if self.told.get(record) != Some(&why) {
                self.observer.on_event(&Event::RecordSkipped { registry: &self.registry, service, record, error });
                self.told.insert(record.clone(), why);
            }
        }
    }
}
