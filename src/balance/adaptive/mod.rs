//! The default: the endpoint that will be done soonest, by what calls tell of each.

mod draw;
mod fleet;
mod holds;
mod probing;
mod reports;
mod sample;
mod scan;
mod speeds;
mod strain;
mod waits;

use std::sync::Arc;

use self::{
    draw::Draw,
    fleet::{Fleet, SEEN},
    probing::Past,
    scan::Scan,
};
use super::{Balancer, Node, Picker};

/// Picks the endpoint with the fewest requests in flight for its weight, where one that is slower than the
/// others counts as busier, one that fails is set aside, and one that is new begins with less.
///
/// Nothing has to be set. What it does, of up to 128 endpoints for all of them, of more for five drawn
/// at random:
///
/// - The score of an endpoint is the requests in flight there and this one, by its weight, times how slow it
///   is; the lowest wins, and chance among equals. With unequal weights, idle endpoints are drawn as they weigh.
/// - In flight are this channel's own calls. Of servers that [report](crate::server::RegistrationLayer) what they
///   have in flight, of all their clients, it is that of the others too; as the report gets older it
///   becomes what others have at all servers, within the time in which a server gets another call; and it counts for
///   as much as such reports were found to tell of the next ones. Where all servers take as long as each other, little
///   is believed of what chance explains, and nothing of less than a request: that is of the moment, and what is sent evenly
///   stays even.
/// - It is slow as far as its [typical latency](crate::load::LoadCell::typical_latency) is above 1.3 times the
///   median of all and 0.25 ms; that counts to the power of 1.2. Not being asked makes it more like the others, with a time
///   constant of 5 s, so that it is tried again. The same holds for what a server reports of its latency, as far as that
///   is not because more waits there, and squared. Both count for this channel's calls alone, as all clients see it at once;
///   and to the power of 1 where all calls are this channel's, as then who is slow shows in what waits, too.
/// - One that is faster or slower than the median by all that it reported of its latency counts as if it weighed as many
///   times more or less, as far as that is more than chance, and than what its weight says already.
/// - Where calls are few, so that less than half of the servers were heard of within three tenths of the time that a
///   call takes, a quarter of what is in flight is others', and a call takes no more than 2.5 times as long as at the server, it
///   [asks](super::Pick::Probe) four before each call, and takes the best that answers, or that spoke within a
///   call's time: those with the lowest scores of half of all, or any of more than 128; only of servers that
///   [answer](crate::server::RegistrationLayer::probes); for 3 ms, or twice as long as a first answer takes if that is
///   longer, and half of a call's time at most; each is told [how soon](super::Probes::announcing) the call may come, for who asks
///   meanwhile; and only where the worst of them takes longer than the best by twice as
///   long as it is waited for them, or by less where all are alike. One that was slow when it spoke last, long ago, is asked
///   alone before it gets a call again.
/// - A call that fails (`UNAVAILABLE`, a broken connection) sets it aside for 1 s,
///   twice as long each further time, at most 60 s, ± 20 %, and for less the more calls it answered since the
///   failure before; so does a fault (`INTERNAL`, `UNKNOWN`, `DATA_LOSS`) if more than a fifth of its last answers were,
///   and only where the others do not fail as often. Afterwards one call at a time tries it, until fewer than a fifth of at
///   least five fail; 0.1 s after it failed where more than a fifth of those in use fail too. Who fails less than that is
///   set aside for a tenth of the time at most, and counts as busier. Never is more than half of all set aside: then they
///   are picked by how often they fail. Where calls take four times as long as they did at best, and some come too late, as the
///   others cannot take all, those that are set aside get up to their share of what comes.
/// - A deadline that passed makes it slow, and does not set it aside; for about half of the time that was waited it counts twice
///   as busy, as it does after `RESOURCE_EXHAUSTED` for the time that a call takes, 250 ms at most.
/// - One that comes later than 10 s after the first call has a tenth of its share of this channel's calls at first, all of it
///   after 10 s, by chance where all are idle; unless most are new, or it says how long its answers take.
#[derive(Debug, Clone)]
pub struct Adaptive {
    past: Arc<Past>,
    probes: bool,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { past: Arc::default(), probes: true }
    }
}

impl Adaptive {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether servers are asked how busy they are, where they answer. Default true.
    #[must_use]
    pub fn probes(mut self, probes: bool) -> Self {
        self.probes = probes;
        self
    }
}

impl Balancer for Adaptive {
    fn name(&self) -> &str {
        "adaptive"
    }

    fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
        let fleet = Fleet::new(ready, self.past.clone(), self.probes);
        if ready.len() <= SEEN {
            return Box::new(Scan::new(fleet));
        }
        Box::new(Draw(fleet))
    }
}

#[cfg(test)]
mod tests;
