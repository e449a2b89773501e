//! The calls that come: when, whose, and how much work.

use super::{
    queue::Nanos,
    rng::Rng,
    scenario::{Distribution, Scenario, Service},
};

/// Calls that come independently of each other, and of how those before them fare.
#[derive(Debug)]
pub struct Arrivals {
    random: Rng,
    /// Nanoseconds between two, in the mean.
    gap: f64,
    clients: usize,
    service: Service,
    at: f64,
}

impl Arrivals {
    /// The calls of a scenario. All clients together are a Poisson process, of which each call is
    /// any client's: that is the same as one process a client.
    #[must_use]
    pub fn new(scenario: &Scenario, random: Rng) -> Self {
        let (gap, clients) = (1e9 / scenario.rate(), scenario.clients);
        Self { random, gap, clients, service: scenario.service.clone(), at: 0.0 }
    }

    /// When the next one comes.
    pub fn next_at(&mut self) -> Nanos {
        self.at += self.gap * self.random.exponential();
        self.at as Nanos
    }

    /// Whose it is, and the seconds of work that it is.
    pub fn next_call(&mut self) -> (u32, f64) {
        let client = self.random.below(self.clients);
        (client as u32, self.work())
    }

    fn work(&mut self) -> f64 {
        let Service { distribution, mean_ms, sigma, share, factor } = self.service;
        let of_mean = match distribution {
            Distribution::Fixed => 1.0,
            Distribution::Exponential => self.random.exponential(),
            Distribution::Lognormal => {
                let sigma = sigma.unwrap_or(1.0);
                (sigma * self.random.normal() - sigma * sigma / 2.0).exp()
            }
            Distribution::Bimodal => {
                let (share, factor) = (share.unwrap_or(0.5), factor.unwrap_or(1.0));
                let short = 1.0 / (1.0 - share + share * factor);
                if self.random.unit() < share { short * factor } else { short }
            }
        };
        of_mean * mean_ms / 1e3
    }
}
