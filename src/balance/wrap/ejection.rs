//! Sets outliers aside for a while.

use std::time::Instant;

use super::{
    Balancer, Fleet, Memory, Node, OutlierEjection, Part, Picker, Standing, Sweep, Wrapper, is_below, mix,
    outliers::Answers,
};

/// A balancer that sees who is not set aside.
#[derive(Debug)]
pub(super) struct Ejecting {
    settings: OutlierEjection,
    inner: Box<dyn Balancer>,
    known: Memory<Known>,
    /// When the interval ends.
    due: Option<Instant>,
    /// Too few are left: those set aside take calls as well.
    panic: bool,
    random: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// What its load counted when the interval began.
    succeeded: u64,
    failed: u64,
    ejected: Option<Instant>,
    /// How often it was set aside, less the intervals that went well.
    times: u32,
}

impl Ejecting {
    pub(super) fn new(settings: OutlierEjection, inner: Box<dyn Balancer>, seed: u64) -> Self {
        Self { settings, inner, known: Memory::default(), due: None, panic: false, random: seed }
    }

    /// The interval ends: tells whether anybody went aside or came back.
    fn interval(&mut self, now: Instant) -> bool {
        let answers: Vec<_> = self.known.iter_mut().map(|(load, _, known)| known.answers(load)).collect();
        let settings = &self.settings;
        let rules = [
            (settings.success_rate.enforcement, settings.success_rate.below_the_mean(&answers)),
            (settings.failure_percentage.enforcement, settings.failure_percentage.above_the_bound(&answers)),
        ];
        let all = answers.len();
        let mut known: Vec<_> = self.known.iter_mut().map(|(.., known)| known).collect();
        let mut aside = known.iter().filter(|known| known.ejected.is_some()).count();
        let mut changed = false;
        for (enforcement, outliers) in rules {
            for at in outliers {
                // As gRPC does, one more goes as long as the share is not reached.
                if known[at].ejected.is_some() || !is_below(aside, settings.most_percent, all) {
                    continue;
                }
                self.random = mix(self.random);
                if self.random % 100 < u64::from(enforcement) {
                    known[at].ejected = Some(now);
                    known[at].times = known[at].times.saturating_add(1);
                    (aside, changed) = (aside + 1, true);
                }
            }
        }
        for known in &mut known {
            let Some(since) = known.ejected else {
                known.times = known.times.saturating_sub(1);
                continue;
            };
            let time = settings.base.saturating_mul(known.times).min(settings.base.max(settings.longest));
            if now.saturating_duration_since(since) > time {
                known.ejected = None;
                changed = true;
            }
        }
        changed
    }
}

fn is_aside(known: &Memory<Known>, node: &Node) -> bool {
    known.get(node).is_some_and(|known| known.ejected.is_some())
}

impl Known {
    /// What was answered since it was asked before.
    fn answers(&mut self, load: &crate::load::LoadCell) -> Answers {
        let (succeeded, failed) = (load.succeeded(), load.failed());
        let answers =
            Answers { succeeded: succeeded.saturating_sub(self.succeeded), failed: failed.saturating_sub(self.failed) };
        (self.succeeded, self.failed) = (succeeded, failed);
        answers
    }
}

impl Wrapper for Ejecting {
    fn inner(&self) -> Option<&dyn Balancer> {
        Some(&*self.inner)
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        let aside: Vec<_> = ready.iter().map(|node| !self.panic && is_aside(&self.known, node)).collect();
        // With nobody left who is not aside, those are better than none.
        let none = aside.iter().all(|aside| *aside);
        Part::of(&mut *self.inner, ready, |at| none || !aside[at])
    }

    fn sweep(&mut self, fleet: &Fleet<'_>) -> Sweep {
        let now = fleet.now();
        self.known.follow(fleet, |node| {
            let mut known = Known::default();
            known.answers(node.load());
            known
        });
        let mut changed = false;
        if self.due.is_some_and(|due| due <= now) {
            changed = self.interval(now);
            self.due = None;
        }
        // The channel bounds intervals to what a clock can hold.
        let due = *self.due.get_or_insert(now + self.settings.interval);
        let (mut left, mut all) = (0, 0);
        for (standing, known) in self.known.iter() {
            left += usize::from(standing == Standing::Ready && known.ejected.is_none());
            all += 1;
        }
        let panic = is_below(left, self.settings.panic_percent, all);
        changed |= std::mem::replace(&mut self.panic, panic) != panic;
        let each = |visit: &mut dyn FnMut(&Node, Standing)| {
            fleet.each(|node, standing| match standing {
                Standing::Ready if is_aside(&self.known, node) => visit(node, Standing::Ejected),
                standing => visit(node, standing),
            });
        };
        self.inner.sweep(&Fleet::new(now, &each)).and(Sweep::new(changed, Some(due)))
    }
}
