//! Wrappers: balancers that hold another one and give it a part of the endpoints, or ask it once more.
//!
//! Each composes with every policy, one's own too, and with each other. By text they are nested in one
//! order, whatever the order of the options: ejection outermost, for all that is inside goes by who is
//! left; then slow start, which remembers endpoints of all levels and zones; then failover, region and zone.

mod ejection;
mod failover;
mod memory;
mod near;
mod options;
mod outliers;
mod part;
mod slow_start;

use std::{fmt, time::Duration};

pub(super) use self::options::take_wrappers;
use self::{
    ejection::Ejecting, failover::FailingOver, memory::Memory, near::Near, part::Part, slow_start::SlowStarting,
};
pub use self::{failover::Failover, near::Prefer, outliers::OutlierEjection, slow_start::SlowStart};
use super::{Balancer, ConnectMode, Fleet, Node, Pick, PickInfo, Picker, Policy, Probed, Standing, Sweep, mix};

/// Envoy's panic threshold, in percent.
const PANIC: u32 = 50;

/// Whether a part is less than so many percent of the whole.
fn is_below(part: usize, percent: u32, whole: usize) -> bool {
    (part as u64).saturating_mul(100) < (whole as u64).saturating_mul(u64::from(percent))
}

/// Random bits as a number from 0 up to, not including, 1.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// A balancer that holds others, all of one policy, which is what the channel sees of it.
trait Wrapper: fmt::Debug + Send + 'static {
    /// One of those it holds.
    fn inner(&self) -> Option<&dyn Balancer>;

    /// See [`Balancer::rebuild`].
    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker>;

    /// See [`Balancer::sweep`].
    fn sweep(&mut self, fleet: &Fleet<'_>) -> Sweep;
}

#[derive(Debug)]
struct Wrapped<W>(W);

impl<W: Wrapper> Balancer for Wrapped<W> {
    fn name(&self) -> &str {
        self.0.inner().map_or("", Balancer::name)
    }

    fn connect_mode(&self) -> ConnectMode {
        self.0.inner().map_or(ConnectMode::All, Balancer::connect_mode)
    }

    fn load_reports(&self) -> Option<Duration> {
        self.0.inner().and_then(Balancer::load_reports)
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        self.0.rebuild(ready)
    }

    fn sweep(&mut self, fleet: &Fleet<'_>) -> Sweep {
        self.0.sweep(fleet)
    }
}

impl Policy {
    /// This policy over the endpoints that are no outliers.
    #[must_use]
    pub fn with_outlier_ejection(self, settings: OutlierEjection) -> Self {
        let text = settings.text();
        self.wrap(&text, move |inner, seed| {
            Box::new(Wrapped(Ejecting::new(settings.clone(), inner.balancer(seed), seed)))
        })
    }

    /// This policy, with less for who is new.
    #[must_use]
    pub fn with_slow_start(self, settings: SlowStart) -> Self {
        let text = settings.text();
        self.wrap(&text, move |inner, seed| {
            Box::new(Wrapped(SlowStarting::new(settings.clone(), inner.balancer(seed))))
        })
    }

    /// This policy over the first level of endpoints that is there.
    #[must_use]
    pub fn with_failover(self, settings: Failover) -> Self {
        let text = settings.text();
        self.wrap(&text, move |inner, seed| Box::new(Wrapped(FailingOver::new(settings.clone(), inner.balancer(seed)))))
    }

    /// This policy in the caller's own zone or region first.
    #[must_use]
    pub fn with_preference(self, settings: Prefer) -> Self {
        let text = settings.text();
        self.wrap(&text, move |inner, seed| Box::new(Wrapped(Near::new(settings.clone(), inner.clone(), seed))))
    }
}
