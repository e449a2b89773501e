//! The difference between the set that is held and the set that should be.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tower::discover::Change;

use crate::endpoint::{Endpoint, EndpointKey};

/// The endpoints that were told of, and what is still to tell.
#[derive(Debug, Default)]
pub(super) struct Held {
    endpoints: BTreeMap<EndpointKey, Endpoint>,
    // No longer than the set before and the set after together: telling goes on only from one
    // whole set to the next.
    pending: VecDeque<Changed>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Changed {
    Inserted(Endpoint),
    Updated(Endpoint),
    Removed(Endpoint),
}

impl Held {
    /// Makes the set what it should be; of endpoints with one key the first stays.
    pub(super) fn replace(&mut self, endpoints: impl Iterator<Item = Endpoint>) {
        debug_assert!(self.pending.is_empty(), "a set is told of before the next comes");
        let mut old = std::mem::take(&mut self.endpoints);
        let mut fresh = Vec::new();
        let mut after = BTreeMap::new();
        for endpoint in endpoints {
            if after.contains_key(endpoint.key()) {
                continue;
            }
            match old.remove(endpoint.key()) {
                None => fresh.push(Changed::Inserted(endpoint.clone())),
                Some(before) if same(&before, &endpoint) => {}
                Some(_) => fresh.push(Changed::Updated(endpoint.clone())),
            }
            after.insert(endpoint.key().clone(), endpoint);
        }
        self.endpoints = after;
        self.pending.extend(fresh);
        self.pending.extend(old.into_values().map(Changed::Removed));
    }

    pub(super) fn next(&mut self) -> Option<Changed> {
        self.pending.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.endpoints.len()
    }
}

/// Most registries hand out the same allocation for what has not changed.
fn same(before: &Endpoint, after: &Endpoint) -> bool {
    Arc::ptr_eq(before.instance(), after.instance()) || before == after
}

impl From<Changed> for Change<EndpointKey, Endpoint> {
    fn from(changed: Changed) -> Self {
        match changed {
            Changed::Inserted(endpoint) | Changed::Updated(endpoint) => Self::Insert(endpoint.key().clone(), endpoint),
            Changed::Removed(endpoint) => Self::Remove(endpoint.key().clone()),
        }
    }
}
