//! Asks a few servers before each call, and takes the one that will answer soonest of those that are not hot.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    Balancer, Node, Pick, PickInfo, Picker, Probed, Probes,
    number::Number,
    weights::{Drawn, Weights},
};
use crate::load::{LoadCell, Standing, micros, millis};

/// Asks some servers before each call how busy they are, and takes the best that answers:
/// [Prequal](https://www.usenix.org/conference/nsdi24/presentation/wydrowski) in its synchronous mode.
///
/// A server is hot if it has more requests in flight, for its weight, than 84 % of those that answered last, of which
/// 128 are remembered. Of those that are not the one with the least latency takes the call, by what it says of
/// answers with about as many in flight; if all are hot, the one with the fewest.
///
/// Servers answer by this crate's [layer](crate::server::RegistrationLayer::probes). One that knows of no probes is not
/// asked again, and takes its share of calls by chance; one that does not answer in time does not get the call. Who
/// failed is asked after a while only, as with [`Adaptive`](super::Adaptive): what fails at once looks idle.
#[derive(Debug, Clone)]
pub struct Prequal {
    probes: usize,
    wait: Duration,
    hot_percent: u32,
    recent: Arc<Recent>,
}

impl Prequal {
    /// Asks so many servers, from 2 to 8.
    pub fn new(probes: usize) -> Self {
        Self {
            probes: probes.clamp(2, Probes::MOST),
            wait: Duration::from_millis(3),
            hot_percent: 84,
            recent: Arc::default(),
        }
    }

    /// Sets for how long a call waits for answers. Default 3 ms; a second at most.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait.min(Duration::from_secs(1));
        self
    }

    /// Sets than how many percent of answers a server must have more in flight to be hot. Default 84. With 0 all are
    /// hot, and the fewest in flight decide; with 100 none is, and the latency does.
    #[must_use]
    pub fn hot_percentile(mut self, percent: u32) -> Self {
        self.hot_percent = percent.min(100);
        self
    }

    /// The same settings, with nothing remembered.
    pub(super) fn anew(&self) -> Self {
        Self { recent: Arc::default(), ..*self }
    }
}

/// Three probes.
impl Default for Prequal {
    fn default() -> Self {
        Self::new(3)
    }
}

impl Balancer for Prequal {
    fn name(&self) -> &str {
        "prequal"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        Box::new(Asking {
            settings: self.clone(),
            weights: Weights::of(ready),
            loads: ready.iter().map(|node| node.load().clone()).collect(),
        })
    }
}

/// What the last probes found in flight.
#[derive(Debug)]
struct Recent {
    /// Negative where there was none yet.
    in_flight: [Number; Self::MOST],
    next: AtomicUsize,
    /// What is more is hot.
    hot: Number,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            in_flight: [(); Self::MOST].map(|()| Number::new(-1.0)),
            next: AtomicUsize::new(0),
            hot: Number::new(f32::INFINITY),
        }
    }
}

impl Recent {
    const MOST: usize = 128;
    /// So often it is looked what is hot, once there are some.
    const EVERY: usize = 8;

    fn take(&self, in_flight: f32, percent: u32) {
        let next = self.next.fetch_add(1, Relaxed);
        self.in_flight[next % Self::MOST].set(in_flight);
        if next < Self::EVERY || next.is_multiple_of(Self::EVERY) {
            let mut all = [0.0; Self::MOST];
            let mut count = 0;
            let known = self.in_flight.iter().map(Number::get).filter(|is| *is >= 0.0);
            for (place, is) in all.iter_mut().zip(known) {
                *place = is;
                count += 1;
            }
            let rank = (count * percent as usize / 100).min(count.saturating_sub(1));
            let hot = match percent {
                0 => -1.0,
                100 => f32::INFINITY,
                _ => *all[..count].select_nth_unstable_by(rank, f32::total_cmp).1,
            };
            self.hot.set(hot);
        }
    }

    fn hot(&self) -> f32 {
        self.hot.get()
    }
}

struct Asking {
    settings: Prequal,
    weights: Weights,
    loads: Box<[Arc<LoadCell>]>,
}

/// What a server said.
#[derive(Clone, Copy)]
struct Said {
    at: usize,
    in_flight: f32,
    latency: f32,
}

impl Asking {
    /// Some by chance, none twice, none that was tried, nor asked before; those first that did not fail.
    fn draw(&self, info: &PickInfo<'_>) -> Drawn {
        let asked = info.probed.unwrap_or_default().asked;
        let millis = millis(micros(info.now));
        let is_new = |at: usize| !info.tried.contains(&at) && !asked.contains(&at);
        let is_good = |at: usize| matches!(self.loads[at].look(millis).1, Standing::Good | Standing::Trial);
        // Each may be drawn some times in vain.
        let times = if self.loads.is_empty() { 0 } else { 4 * self.settings.probes as u64 };
        let draws = (1..=times).map(|nth| nth + asked.len() as u64);
        let some =
            self.weights.draw_some(info.random, draws.clone(), self.settings.probes, |at| is_new(at) && is_good(at));
        if some.at().is_empty() { self.weights.draw_some(info.random, draws, 1, is_new) } else { some }
    }

    /// The best of those that answered.
    fn best_of(&self, probed: &Probed<'_>, info: &PickInfo<'_>) -> Option<usize> {
        let micros = micros(info.now);
        let (mut coldest, mut quickest) = (None::<Said>, None::<Said>);
        for at in probed.answered.iter().copied().filter(|at| *at < self.loads.len() && !info.tried.contains(at)) {
            let Some(queued) = self.loads[at].queued(micros) else { continue };
            let there = queued.others + self.loads[at].in_flight() as f32;
            let said = Said { at, in_flight: there * self.weights.lightness(at), latency: queued.latency };
            self.settings.recent.take(said.in_flight, self.settings.hot_percent);
            if coldest.is_none_or(|best| said.in_flight < best.in_flight) {
                coldest = Some(said);
            }
            let is_cold = said.in_flight <= self.settings.recent.hot();
            if is_cold && quickest.is_none_or(|best| said.latency < best.latency) {
                quickest = Some(said);
            }
        }
        quickest.or(coldest).map(|said| said.at)
    }
}

impl Picker for Asking {
    fn pick(&self, info: &PickInfo<'_>) -> Pick {
        let drawn = self.draw(info);
        let drawn = drawn.at();
        if let Some(probed) = &info.probed {
            let another = || drawn.first().copied();
            let any = || info.draw(info.random, self.loads.len());
            return self.best_of(probed, info).or_else(another).or_else(any).map_or(Pick::Queue, Pick::At);
        }
        match drawn {
            [] => info.draw(info.random, self.loads.len()).map_or(Pick::Queue, Pick::At),
            [one] => Pick::At(*one),
            // The first one's share of calls is its own, whether it answers or not.
            [first, ..] if self.loads[*first].answers_probes() == Some(false) => Pick::At(*first),
            _ => {
                let asked = drawn.iter().copied().filter(|at| self.loads[*at].answers_probes() != Some(false));
                Pick::Probe(Probes::new(asked, self.settings.wait))
            }
        }
    }
}
