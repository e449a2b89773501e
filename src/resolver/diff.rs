//! The difference between the set that is held and the set that should be.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tower::discover::Change;

use crate::{
    endpoint::{Endpoint, EndpointKey},
    instance::ServiceInstance,
};

/// So many changes at once are looked at one by one; with more it is as quick to look at all.
const FEW: usize = 64;

/// The endpoints that were told of, and what is still to tell.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// What the endpoints are of, in the registry's order.
    instances: Vec<Arc<ServiceInstance>>,
    endpoints: BTreeMap<EndpointKey, Endpoint>,
    /// Whether some instances had a key that another had, too.
    ambiguous: bool,
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
    /// Makes the set what it should be, the endpoints of these instances; of those with one key the
    /// first stays.
    ///
    /// Most registries hand out the same allocation for what has not changed, in the same order: then
    /// only what lies between the first and the last change is looked at.
    pub(super) fn replace(
        &mut self,
        instances: Vec<Arc<ServiceInstance>>,
        project: impl Fn(&Arc<ServiceInstance>) -> Option<Endpoint>,
    ) {
        debug_assert!(self.pending.is_empty(), "a set is told of before the next comes");
        let kept = |pair: &(&Arc<_>, &Arc<_>)| Arc::ptr_eq(pair.0, pair.1);
        let before = self.instances.iter().zip(&instances).take_while(kept).count();
        let (old, new) = (&self.instances[before..], &instances[before..]);
        let behind = old.iter().rev().zip(new.iter().rev()).take_while(kept).count();
        let old: Vec<_> = old[..old.len() - behind].iter().filter_map(&project).collect();
        let new: Vec<_> = new[..new.len() - behind].iter().filter_map(&project).collect();
        let clashes = |endpoint: &Endpoint| {
            self.endpoints.contains_key(endpoint.key()) && !old.iter().any(|old| old.key() == endpoint.key())
        };
        // Where keys meet, which instance is the first may change: look at all.
        let (mut gone, new) = if self.ambiguous || old.len() > FEW || new.iter().any(clashes) {
            self.ambiguous = false;
            (std::mem::take(&mut self.endpoints), instances.iter().filter_map(&project).collect())
        } else {
            let gone = old.iter().filter_map(|endpoint| self.endpoints.remove_entry(endpoint.key())).collect();
            (gone, new)
        };
        self.instances = instances;
        for endpoint in new {
            if self.endpoints.contains_key(endpoint.key()) {
                self.ambiguous = true;
                continue;
            }
            match gone.remove(endpoint.key()) {
                None => self.pending.push_back(Changed::Inserted(endpoint.clone())),
                Some(before) if same(&before, &endpoint) => {}
                Some(_) => self.pending.push_back(Changed::Updated(endpoint.clone())),
            }
            self.endpoints.insert(endpoint.key().clone(), endpoint);
        }
        self.pending.extend(gone.into_values().map(Changed::Removed));
    }

    pub(super) fn next(&mut self) -> Option<Changed> {
        self.pending.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.endpoints.len()
    }
}

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
