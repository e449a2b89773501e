//! A balancer whose endpoints the test can look at.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use callsign::balance::{Balancer, Node, Picker, Policy};

/// Keeps the nodes that were ready last.
#[derive(Debug, Clone, Default)]
pub struct Seen<B> {
    inner: B,
    nodes: Arc<Mutex<Vec<Node>>>,
}

impl<B: Balancer + Clone + Sync + 'static> Seen<B> {
    pub fn of(inner: B) -> Self {
        Self { inner, nodes: Arc::default() }
    }

    pub fn policy(&self) -> Policy {
        let made = self.clone();
        Policy::new("seen", move |_| made.clone())
    }

    pub fn nodes(&self) -> Vec<Node> {
        self.nodes.lock().unwrap().clone()
    }
}

impl<B: Balancer> Balancer for Seen<B> {
    fn name(&self) -> &str {
        "seen"
    }

    fn load_reports(&self) -> Option<Duration> {
        self.inner.load_reports()
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        *self.nodes.lock().unwrap() = ready.to_vec();
        self.inner.rebuild(ready)
    }
}
