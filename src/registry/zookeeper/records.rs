//! What is under a service's node.

use std::{collections::BTreeMap, sync::Arc};

use super::{client::Session, codec::ZooKeeperLayout};
use crate::{
    error::{Error, Kind, Result},
    instance::{ServiceInstance, ServiceName},
    registry::Snapshot,
};

/// Where a service's instances are, and how they are laid out.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) service: ServiceName,
    pub(super) path: String,
    pub(super) layout: ZooKeeperLayout,
    /// So many are held.
    pub(super) most: usize,
}

/// The children of a service's node, each an instance or why it is none.
#[derive(Debug, Default)]
pub(super) struct Records {
    by_name: BTreeMap<String, Result<Arc<ServiceInstance>>>,
    /// How many there are beside those held.
    beyond: usize,
}

impl Records {
    /// All children; none at all if there is no such node.
    pub(super) async fn list(session: &Session, place: &Place) -> Result<Option<Self>> {
        let Some(names) = session.children(&place.path).await? else { return Ok(None) };
        let mut records = Self::default();
        let names = records.keep(place, names);
        records.reread(session, place, names).await?;
        Ok(Some(records))
    }

    /// Forgets all but these, of which as many as are held are returned.
    pub(super) fn keep(&mut self, place: &Place, mut names: Vec<String>) -> Vec<String> {
        names.sort_unstable();
        self.beyond = names.len().saturating_sub(place.most);
        names.truncate(place.most);
        self.by_name.retain(|name, _| names.binary_search(name).is_ok());
        names
    }

    pub(super) async fn reread(&mut self, session: &Session, place: &Place, names: Vec<String>) -> Result<()> {
        for (name, data) in session.read(&place.path, names).await? {
            self.put(place, name, data.as_deref());
        }
        Ok(())
    }

    /// Takes in what a node has by now; none where there is no node any more.
    pub(super) fn put(&mut self, place: &Place, name: String, data: Option<&[u8]>) {
        match data {
            None => drop(self.by_name.remove(&name)),
            Some(_) if self.by_name.len() >= place.most && !self.by_name.contains_key(&name) => self.beyond += 1,
            Some(data) => drop(self.by_name.insert(name, place.layout.decode(&place.service, data))),
        }
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether there are some that are not held, and one of those that are may be gone.
    pub(super) fn lacks_some(&self) -> bool {
        self.beyond > 0
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let skipped = self.by_name.values().filter(|read| read.is_err()).count() + self.beyond;
        Snapshot::new(self.by_name.values().filter_map(|read| read.as_ref().ok()).cloned()).with_skipped(skipped)
    }

    /// What is no instance, by its path; the sum of what was too much under one name.
    pub(super) fn skipped(&self, Place { path, most, .. }: &Place) -> BTreeMap<String, Error> {
        let wrong = |(name, read): (&String, &Result<_>)| {
            read.as_ref().err().map(|error| (format!("{path}/{name}"), error.clone()))
        };
        let mut skipped: BTreeMap<_, _> = self.by_name.iter().filter_map(wrong).collect();
        if self.beyond > 0 {
            let context = format!("more than {most} records: some are not read");
            skipped.insert(format!("{path}/*"), Error::new(Kind::Exhausted, context));
        }
        skipped
    }
}
