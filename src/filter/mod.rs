//! Which of a service's instances a client uses.

mod subset;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    instance::{ServiceInstance, Status},
    target::Target,
};

/// What an instance must be to be used; everything passes by default.
///
/// Before these, the registry's own word counts: who is [`Down`](Status::Down) is out, and who is
/// [`Degraded`](Status::Degraded) or [`Draining`](Status::Draining) is in only where nobody better
/// passes.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Filters {
    version: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    metadata: BTreeMap<Arc<str>, Arc<str>>,
    subset: Option<usize>,
}

impl Filters {
    /// Lets everything pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets only this very version pass.
    pub fn version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Lets only this zone pass.
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Lets only those pass whose metadata has this value under this key.
    pub fn metadata(mut self, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Lets at most `size` pass: which ones, a client's seed decides, so that many clients use all
    /// evenly, and a change of the set changes little
    /// ([gRFC A68](https://github.com/grpc/proposal/blob/master/A68-random-subsetting.md)).
    pub fn subset(mut self, size: usize) -> Self {
        self.subset = Some(size);
        self
    }

    /// What passes, in the order given.
    pub(crate) fn apply(&self, instances: &[Arc<ServiceInstance>], seed: u64) -> Vec<Arc<ServiceInstance>> {
        let passing = || instances.iter().filter(|instance| self.passes(instance));
        let best = passing().map(|instance| rank(instance.status())).min();
        let mut passed: Vec<_> = passing().filter(|instance| Some(rank(instance.status())) == best).cloned().collect();
        if let Some(size) = self.subset {
            subset::keep(&mut passed, size, seed);
        }
        passed
    }

    fn passes(&self, instance: &ServiceInstance) -> bool {
        instance.status() != Status::Down
            && self.version.as_deref().is_none_or(|version| instance.version() == version)
            && self.zone.as_deref().is_none_or(|zone| instance.locality().zone() == Some(zone))
            && self.metadata.iter().all(|(key, value)| instance.metadata().get(key) == Some(value))
    }
}

/// The filters that a target asks for.
impl From<&Target> for Filters {
    fn from(target: &Target) -> Self {
        Self {
            version: target.version().map(Into::into),
            zone: target.zone().map(Into::into),
            metadata: target.metadata().clone(),
            subset: target.subset(),
        }
    }
}

fn rank(status: Status) -> u8 {
    match status {
        Status::Up => 0,
        Status::Degraded => 1,
        Status::Draining => 2,
        Status::Down => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, version: &str, status: Status) -> Arc<ServiceInstance> {
        let builder = ServiceInstance::builder("s", id).expect("valid").version(version).zone("z").status(status);
        Arc::new(builder.metadata("env", "prod").build().expect("valid"))
    }

    fn ids(filters: &Filters, instances: &[Arc<ServiceInstance>]) -> String {
        let passed = filters.apply(instances, 1);
        passed.iter().map(|instance| instance.id().as_str()).collect::<Vec<_>>().join("")
    }

    #[test]
    fn only_what_matches_passes() {
        let all = [instance("a", "v1", Status::Up), instance("b", "v2", Status::Up), instance("c", "v2", Status::Down)];
        assert_eq!(ids(&Filters::new(), &all), "ab");
        assert_eq!(ids(&Filters::new().version("v2"), &all), "b");
        assert_eq!(ids(&Filters::new().zone("z").metadata("env", "prod"), &all), "ab");
        assert_eq!(ids(&Filters::new().zone("y"), &all), "");
        assert_eq!(ids(&Filters::new().metadata("env", "dev"), &all), "");
    }

    #[test]
    fn the_degraded_serve_where_nobody_better_does() {
        let degraded = instance("d", "v2", Status::Degraded);
        let all = [instance("a", "v1", Status::Up), degraded, instance("x", "v2", Status::Draining)];
        assert_eq!(ids(&Filters::new(), &all), "a");
        assert_eq!(ids(&Filters::new().version("v2"), &all), "d");
        assert_eq!(ids(&Filters::new(), &all[2..]), "x");
    }
}
