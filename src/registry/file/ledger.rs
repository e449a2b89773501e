//! Who is there, judged from what files said and when. Pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::record::{LeaseRecord, Record};
use crate::instance::ServiceInstance;

/// The records of one service, and since when each lease was not renewed.
///
/// A lease ends in two ways only: its owner ends it, or nobody renews it for its TTL. A file that
/// is not there, or is torn, ends nothing; so a directory that is lost and written anew loses none
/// who lives. Time is this process's own, so no clock that is set matters.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    held: BTreeMap<String, Held>,
    taken: Option<Instant>,
    interrupted: bool,
}

#[derive(Debug)]
struct Held {
    record: Record,
    renewed: Instant,
    /// From when it got another TTL although nobody renewed it.
    spared: Instant,
    in_place: bool,
}

/// Which boot of which machine reads, and how long it has been up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Now<'a> {
    pub(super) boot: Option<&'a str>,
    pub(super) uptime: Option<Duration>,
}

/// So much two clocks may seem to differ that are one.
const SAME_TIME: Duration = Duration::from_millis(100);

/// One who took nothing in for so long was not running.
const ASLEEP: Duration = Duration::from_secs(3);

impl Ledger {
    /// Notes that there is nothing to read: the next time, all get another TTL, as also when this
    /// process slept. Who renewed meanwhile, or could not, is not known.
    pub(super) fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// Takes in what was read just now: every record there is, by the name of its file.
    pub(super) fn take(&mut self, records: impl IntoIterator<Item = (String, Record)>, at: Instant, now: Now<'_>) {
        let before = self.taken.replace(at).unwrap_or(at);
        let blind = std::mem::take(&mut self.interrupted) || at - before > ASLEEP;
        for held in self.held.values_mut() {
            held.in_place = false;
            if blind && held.lives(before) {
                held.spared = at;
            }
        }
        for (name, record) in records {
            let before = self.held.get(&name);
            let renewed = match (before, &record.lease) {
                (Some(held), _) if held.record == record => held.renewed,
                (Some(Held { record: Record { lease: Some(old), .. }, .. }), Some(new))
                    if old.token == new.token && old.beat < new.beat =>
                {
                    at
                }
                (_, Some(lease)) => at.checked_sub(age(lease, now)).unwrap_or(at),
                (_, None) => at,
            };
            // An old file put back is no word of the one who renewed since.
            if before.is_some_and(|held| held.record.lease.is_some() && renewed + SAME_TIME < held.renewed) {
                continue;
            }
            let spared = before.map_or(renewed, |held| held.spared);
            self.held.insert(name, Held { record, renewed, spared, in_place: true });
        }
        self.held.retain(|_, held| held.in_place || (held.record.lease.is_some() && held.lives(at)));
    }

    /// The instances that live.
    pub(super) fn live(&self, at: Instant) -> impl Iterator<Item = Arc<ServiceInstance>> {
        self.held.values().filter(move |held| held.lives(at)).map(|held| held.record.instance.clone())
    }

    /// When the next lease ends, if nobody renews it.
    pub(super) fn next_end(&self, at: Instant) -> Option<Instant> {
        self.held.values().filter(|held| held.lives(at)).filter_map(Held::ends).min()
    }
}

impl Held {
    fn ends(&self) -> Option<Instant> {
        self.record.lease.as_ref().map(|lease| self.renewed.max(self.spared) + lease.ttl())
    }

    fn lives(&self, at: Instant) -> bool {
        let ended = self.record.lease.as_ref().is_some_and(|lease| lease.ended);
        !ended && self.ends().is_none_or(|ends| ends > at)
    }
}

/// How old a renewal is that is seen for the first time: known only on the machine it was made on.
fn age(lease: &LeaseRecord, now: Now<'_>) -> Duration {
    let here = now.boot.is_some() && lease.boot.as_deref() == now.boot;
    let age = now.uptime.map(|uptime| uptime.saturating_sub(Duration::from_millis(lease.uptime_ms)));
    age.filter(|_| here).unwrap_or_default().min(lease.ttl())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const HERE: Option<&str> = Some("here");

    fn record(id: &str, token: &str, beat: u64, boot: Option<&str>, uptime_ms: u64) -> (String, Record) {
        let instance = ServiceInstance::builder("s", id).and_then(|builder| builder.build()).expect("valid");
        let lease = LeaseRecord {
            token: token.into(),
            beat,
            ttl_ms: 5_000,
            ended: false,
            boot: boot.map(Into::into),
            uptime_ms,
        };
        (id.to_owned(), Record { instance: Arc::new(instance), lease: Some(lease) })
    }

    fn live(ledger: &Ledger, at: Instant) -> Vec<String> {
        ledger.live(at).map(|instance| instance.id().to_string()).collect()
    }

    fn up(seconds: u64) -> Now<'static> {
        Now { boot: HERE, uptime: Some(Duration::from_secs(seconds)) }
    }

    #[test]
    fn a_lease_ends_by_its_ttl_since_it_was_last_renewed() {
        let (mut ledger, t) = (Ledger::default(), Instant::now());
        for second in 0..4u32 {
            let beats = record("b", "1", second.into(), HERE, 100_000);
            ledger.take([record("a", "1", 0, HERE, 100_000), beats], t + S * second, up(100 + u64::from(second)));
        }
        assert_eq!(live(&ledger, t + S * 4), ["a", "b"]);
        assert_eq!(ledger.next_end(t + S * 4), Some(t + S * 5));
        assert_eq!(live(&ledger, t + S * 5), ["b"]);
        assert!(live(&ledger, t + S * 8).is_empty());
    }

    #[test]
    fn what_another_machine_wrote_is_fresh_when_first_seen_and_once_only() {
        let (mut ledger, t) = (Ledger::default(), Instant::now());
        let theirs = || record("a", "1", 3, Some("there"), 1);
        ledger.take([theirs()], t, up(100));
        assert_eq!(live(&ledger, t), ["a"]);
        for second in 1..9 {
            ledger.take([theirs()], t + S * second, up(100));
        }
        assert!(live(&ledger, t + S * 8).is_empty(), "it is not fresh again because the file is still there");
    }

    #[test]
    fn a_file_that_is_gone_ends_nothing_but_an_end_does() {
        let (mut ledger, t) = (Ledger::default(), Instant::now());
        ledger.take([record("a", "1", 0, HERE, 100_000), record("b", "1", 0, HERE, 100_000)], t, up(100));
        let mut ended = record("b", "1", 0, HERE, 100_000);
        ended.1.lease.as_mut().expect("leased").ended = true;
        ledger.take([ended], t + S, up(101));
        assert_eq!(live(&ledger, t + S), ["a"]);
        ledger.take([], t + S * 2, up(102));
        assert_eq!(live(&ledger, t + S * 2), ["a"]);
        assert!(live(&ledger, t + S * 5).is_empty());
        ledger.take([], t + S * 4, up(104));
        ledger.take([], t + S * 6, up(106));
        assert!(ledger.held.is_empty(), "nothing is left");
    }

    #[test]
    fn one_who_slept_gives_all_another_chance() {
        let (mut ledger, t) = (Ledger::default(), Instant::now());
        let a = || record("a", "1", 0, HERE, 100_000);
        ledger.take([a()], t, up(100));
        ledger.take([a()], t + S * 60, up(160));
        assert_eq!(live(&ledger, t + S * 60), ["a"]);
        for second in 61..67 {
            ledger.take([a()], t + S * second, up(100 + u64::from(second)));
        }
        assert!(live(&ledger, t + S * 66).is_empty());
    }

    #[test]
    fn an_old_file_put_back_ends_nothing() {
        let (mut ledger, t) = (Ledger::default(), Instant::now());
        let old = || record("a", "1", 7, HERE, 95_000);
        ledger.take([old()], t, up(96));
        ledger.take([record("a", "2", 0, HERE, 99_000)], t + S * 3, up(99));
        let mut dead = old();
        dead.1.lease.as_mut().expect("leased").ended = true;
        ledger.take([dead], t + S * 5, up(101));
        ledger.take([old()], t + S * 6, up(102));
        assert_eq!(live(&ledger, t + S * 6), ["a"], "who renewed since lives");
        ledger.take([record("a", "2", 1, HERE, 103_000)], t + S * 7, up(103));
        assert_eq!(live(&ledger, t + S * 11), ["a"]);
        ledger.take([old()], t + S * 9, up(105));
        ledger.take([old()], t + S * 11, up(107));
        assert!(live(&ledger, t + S * 12).is_empty(), "and no longer than his TTL");
    }

    #[test]
    fn an_interruption_gives_those_who_lived_another_ttl() {
        let (mut ledger, t) = (Ledger::default(), Instant::now());
        ledger.take([record("a", "1", 0, HERE, 99_000), record("b", "1", 0, HERE, 95_500)], t, up(100));
        ledger.take([record("a", "1", 0, HERE, 99_000)], t + S, up(101));
        ledger.interrupt();
        ledger.take([], t + S * 2, up(102));
        assert_eq!(live(&ledger, t + S * 6), ["a"], "b was dead before");
        assert!(live(&ledger, t + S * 7).is_empty());
    }

    #[test]
    fn a_first_look_finds_nobody_who_is_long_dead() {
        let (mut ledger, t) = (Ledger::default(), Instant::now());
        ledger.take([record("a", "1", 0, HERE, 10_000), record("b", "1", 0, HERE, 97_000)], t, up(100));
        assert_eq!(live(&ledger, t), ["b"]);
        assert_eq!(ledger.next_end(t), Some(t + S * 2));
        let (_, mut by_hand) = record("c", "1", 0, None, 0);
        by_hand.lease = None;
        ledger.take([("c".to_owned(), by_hand)], t + S, up(101));
        assert_eq!(live(&ledger, t + S), ["b", "c"]);
        assert_eq!(live(&ledger, t + S * 1000), ["c"], "a file without a lease is no lease");
        ledger.take([], t + S * 2, up(102));
        assert!(live(&ledger, t + S * 2).is_empty(), "and goes with its file");
    }
}
