//! What a wrapper remembers of each endpoint, for as long as the channel knows it.

use std::{collections::HashMap, sync::Arc};

use super::{Fleet, Node, Standing};
use crate::load::LoadCell;

/// Something for each endpoint of a fleet, in the fleet's order.
#[derive(Debug)]
pub(super) struct Memory<T> {
    // The cell is what an endpoint is known by: a new weight makes another node of the same cell.
    entries: Vec<Entry<T>>,
    places: HashMap<usize, usize>,
}

#[derive(Debug)]
struct Entry<T> {
    load: Arc<LoadCell>,
    standing: Standing,
    kept: T,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), places: HashMap::new() }
    }
}

/// The address of a cell, which is its own as long as somebody holds it.
fn name(load: &Arc<LoadCell>) -> usize {
    Arc::as_ptr(load).addr()
}

impl<T> Memory<T> {
    /// Takes the fleet in: forgets who is not known any more, and makes something of who is new.
    pub(super) fn follow(&mut self, fleet: &Fleet<'_>, mut fresh: impl FnMut(&Node) -> T) {
        let (mut count, mut same) = (0, true);
        fleet.each(|node, standing| {
            match self.entries.get_mut(count) {
                Some(entry) if Arc::ptr_eq(&entry.load, node.load()) => entry.standing = standing,
                _ => same = false,
            }
            count += 1;
        });
        if same && count == self.entries.len() {
            return;
        }
        let mut old: HashMap<_, _> = self.entries.drain(..).map(|entry| (name(&entry.load), entry)).collect();
        fleet.each(|node, standing| {
            let kept = old.remove(&name(node.load())).map(|entry| entry.kept);
            let kept = kept.unwrap_or_else(|| fresh(node));
            self.entries.push(Entry { load: node.load().clone(), standing, kept });
        });
        self.places = self.entries.iter().enumerate().map(|(at, entry)| (name(&entry.load), at)).collect();
    }

    /// What is kept of an endpoint; none of one that is not known.
    pub(super) fn get(&self, node: &Node) -> Option<&T> {
        self.places.get(&name(node.load())).map(|at| &self.entries[*at].kept)
    }

    /// All that is kept, with its load and how it stands.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&LoadCell, Standing, &mut T)> {
        self.entries.iter_mut().map(|entry| (&*entry.load, entry.standing, &mut entry.kept))
    }

    /// All that is kept, and how each stands.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Standing, &T)> {
        self.entries.iter().map(|entry| (entry.standing, &entry.kept))
    }
}
