use std::time::{Duration, Instant};

use http::HeaderMap;

use super::{nodes, weighing};
use crate::{
    balance::{Balancer, Node, Pick, PickInfo, Picker, Prequal, Probed, mix},
    load::{BriefReport, Outcome},
};

const MS: Duration = Duration::from_millis(1);

struct Bench {
    picker: Box<dyn Picker>,
    nodes: Vec<Node>,
    now: Instant,
    random: u64,
}

impl Bench {
    fn new(mut policy: Prequal, nodes: Vec<Node>) -> Self {
        Self { picker: policy.rebuild(&nodes), nodes, now: Instant::now(), random: 7 }
    }

    fn pick(&mut self, probed: Option<Probed<'_>>) -> Pick {
        self.random = mix(self.random);
        let headers = HeaderMap::new();
        let mut info = PickInfo::new("/s/m", &headers, self.now, self.random);
        info.probed = probed;
        self.picker.pick(&info)
    }

    fn says(&self, at: usize, in_flight: u32, latency: u32) {
        let report =
            BriefReport { in_flight: Some(in_flight.into()), latency: Some(MS * latency), ..BriefReport::default() };
        self.nodes[at].load().report(&report, self.now);
    }

    /// Where a call goes before which these were asked.
    fn goes(&mut self, asked: &[usize]) -> usize {
        let Pick::At(at) = self.pick(Some(Probed::new(asked, asked, MS))) else { panic!("it chooses") };
        at
    }
}

#[test]
fn some_are_asked_each_time_by_weight() {
    let mut bench = Bench::new(Prequal::new(4).wait(5 * MS), weighing(&[100, 100, 100, 100, 100, 1_000]));
    let mut asked = [0; 6];
    for _ in 0..1_000 {
        let Pick::Probe(probes) = bench.pick(None) else { panic!("it asks") };
        assert_eq!(probes.wait(), 5 * MS);
        let mut at = probes.at().to_vec();
        at.sort_unstable();
        at.dedup();
        assert!((2..=4).contains(&at.len()) && at.len() == probes.at().len());
        at.iter().for_each(|at| asked[*at] += 1);
    }
    assert!(asked[5] > 950 && asked[..5].iter().all(|asked| (400..800).contains(asked)), "{asked:?}");
}

#[test]
fn the_quickest_that_is_not_hot_gets_the_call_and_of_the_hot_the_least_busy() {
    let mut bench = Bench::new(Prequal::default(), nodes(8));
    // So that it is known what is hot: more than 8 in flight.
    for in_flight in 0..100 {
        (0..3).for_each(|at| bench.says(at, in_flight % 10, 10));
        bench.goes(&[0, 1, 2]);
    }
    bench.says(3, 5, 30);
    bench.says(4, 1, 40);
    bench.says(5, 9, 1);
    assert_eq!(bench.goes(&[3, 4, 5]), 3);
    bench.says(3, 11, 30);
    bench.says(4, 10, 40);
    bench.says(5, 12, 1);
    assert_eq!(bench.goes(&[3, 4, 5]), 4);
}

#[test]
fn who_does_not_answer_gets_no_call_and_who_knows_of_no_probes_its_share() {
    let mut bench = Bench::new(Prequal::default(), nodes(8));
    let asked = [1, 2, 3];
    for _ in 0..100 {
        let Pick::At(at) = bench.pick(Some(Probed::new(&asked, &[], MS))) else { panic!("it chooses") };
        assert!(!asked.contains(&at), "{at}");
    }
    bench.nodes[6..].iter().for_each(|node| node.load().refuse_probes());
    let (mut probed, mut picked) = (0, [0; 8]);
    for _ in 0..4_000 {
        match bench.pick(None) {
            Pick::At(at) => picked[at] += 1,
            Pick::Probe(probes) => {
                assert!(probes.at().iter().all(|at| *at < 6));
                probed += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(picked[..6], [0; 6]);
    assert!((2_800..3_200).contains(&probed) && picked[6..].iter().all(|got| (400..600).contains(got)), "{picked:?}");
    // And one endpoint needs no question.
    assert!(matches!(Bench::new(Prequal::default(), nodes(1)).pick(None), Pick::At(0)));
}

#[test]
fn who_fails_at_once_is_not_asked_for_a_while() {
    let mut bench = Bench::new(Prequal::default(), nodes(4));
    let failing = bench.nodes[2].load().clone();
    failing.start(bench.now).finish(Outcome::Failure, bench.now + MS);
    bench.now += 100 * MS;
    for _ in 0..500 {
        let Pick::Probe(probes) = bench.pick(None) else { panic!("it asks") };
        assert!(!probes.at().contains(&2));
    }
    bench.now += Duration::from_secs(2);
    let asked =
        (0..500).filter(|_| matches!(bench.pick(None), Pick::Probe(probes) if probes.at().contains(&2))).count();
    assert!(asked > 250, "{asked}");
    for node in &bench.nodes {
        (0..3).for_each(|_| node.load().start(bench.now).finish(Outcome::Failure, bench.now));
    }
    assert!(matches!(bench.pick(None), Pick::At(_) | Pick::Probe(_)), "one is as good as another");
}
