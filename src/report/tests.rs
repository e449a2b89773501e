//! Against the messages that prost makes of the published definition.

use std::time::Duration;

use proptest::{collection::btree_map, prelude::*};
use prost::Message as _;

use super::*;
use crate::load::BriefReport;

#[allow(missing_docs, missing_debug_implementations, unnameable_types, clippy::all, reason = "generated")]
mod proto {
    #![allow(unreachable_pub)]
    tonic::include_proto!("xds.data.orca.v3");
}

use proto::OrcaLoadReport;

/// With what a server may say by mistake.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), 0.0..1e6, any::<f64>()]
}

fn map() -> impl Strategy<Value = std::collections::HashMap<String, f64>> {
    let key = prop_oneof![Just("callsign.in_flight".to_owned()), Just("callsign.latency_ms".to_owned()), ".{0,9}"];
    btree_map(key, number(), 0..5).prop_map(|map| map.into_iter().collect())
}

prop_compose! {
    fn report()(numbers in prop::array::uniform5(number()), maps in prop::array::uniform3(map()), rps: u64) -> OrcaLoadReport {
        let [cpu_utilization, mem_utilization, rps_fractional, eps, application_utilization] = numbers;
        let [request_cost, utilization, named_metrics] = maps;
        #[allow(deprecated)]
        OrcaLoadReport { cpu_utilization, mem_utilization, rps, request_cost, utilization, rps_fractional, eps, named_metrics, application_utilization }
    }
}

/// What is left of a report of prost's.
fn sound(theirs: &OrcaLoadReport) -> LoadReport {
    let number = |value: f64| if is_sound(value) { value } else { 0.0 };
    let map = |map: &std::collections::HashMap<String, f64>| {
        map.iter().filter(|entry| is_sound(*entry.1)).map(|(key, value)| (key.clone(), *value)).collect()
    };
    LoadReport {
        cpu_utilization: number(theirs.cpu_utilization),
        memory_utilization: number(theirs.mem_utilization),
        application_utilization: number(theirs.application_utilization),
        requests_per_second: number(theirs.rps_fractional),
        errors_per_second: number(theirs.eps),
        utilization: map(&theirs.utilization),
        request_cost: map(&theirs.request_cost),
        named_metrics: map(&theirs.named_metrics),
    }
}

proptest! {
    #[test]
    fn reads_what_prost_writes_and_writes_what_prost_reads(theirs in report()) {
        let bytes = theirs.encode_to_vec();
        let ours = LoadReport::decode(&bytes).expect("well-formed");
        prop_assert_eq!(&ours, &sound(&theirs));
        prop_assert_eq!(BriefReport::decode(&bytes), Some(BriefReport::from(&ours)));
        let back = OrcaLoadReport::decode(ours.encode().as_slice()).expect("well-formed");
        prop_assert_eq!(sound(&back), ours);
    }

    #[test]
    fn whatever_comes_is_read_as_prost_reads_it_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let brief = BriefReport::decode(&bytes);
        if let Some(ours) = LoadReport::decode(&bytes) {
            let theirs = OrcaLoadReport::decode(bytes.as_slice()).expect("ours read it");
            prop_assert_eq!(&ours, &sound(&theirs));
            prop_assert_eq!(brief, Some(BriefReport::from(&ours)));
        }
    }

    #[test]
    fn a_report_that_was_changed_on_the_way_is_read_as_prost_reads_it(theirs in report(), at: prop::sample::Index, to: u8) {
        let mut bytes = theirs.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        let _ = BriefReport::decode(&bytes);
        if let Some(ours) = LoadReport::decode(&bytes) {
            prop_assert_eq!(ours, sound(&OrcaLoadReport::decode(bytes.as_slice()).expect("ours read it")));
        }
    }
}

#[test]
fn what_the_layer_measures_is_read_from_the_header() {
    let latency = Some(Duration::from_micros(12_500));
    let measured = Measured { requests_per_second: 120.5, errors_per_second: 2.0, in_flight: 7.0, latency };
    let mut message = Message::new();
    message.measured(&measured);
    assert!(message.bytes().len() <= 96, "{}", message.bytes().len());
    message.append(&LoadReport { cpu_utilization: 0.5, ..LoadReport::default() }.encode());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    assert_eq!(brief(&trailers), None);
    trailers.insert(HEADER, message.header().expect("short"));
    let expected = BriefReport {
        utilization: 0.5,
        requests_per_second: 120.5,
        errors_per_second: 2.0,
        in_flight: Some(7.0),
        latency,
        answers_probes: false,
    };
    assert_eq!(brief(&trailers), Some(expected));
    let report = LoadReport::from_headers(&trailers).expect("it is there");
    assert_eq!(BriefReport::from(&report), expected);
}

#[test]
fn headers_are_read_with_padding_and_without_and_what_is_none_is_none() {
    let read = |text: &str| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        trailers.insert(HEADER, text.parse().expect("a header"));
        brief(&trailers)
    };
    // cpu_utilization: 0.5
    assert_eq!(read("CQAAAAAAAOA/").map(|brief| brief.utilization), Some(0.5));
    // An empty entry of utilization, which is nothing.
    for text in ["KgA=", "KgA"] {
        assert_eq!(read(text), Some(BriefReport::default()), "{text}");
    }
    for text in ["*", "CQAA", "KgA==", "a b"] {
        assert_eq!(read(text), None, "{text}");
    }
    assert_eq!(read(&"A".repeat(6000)), None);
    assert_eq!(read(""), Some(BriefReport::default()));
}

#[test]
fn maps_are_bounded() {
    let mut report = LoadReport::default();
    for at in 0..100 {
        report.named_metrics.insert(format!("metric-{at:02}"), 1.0);
    }
    let read = LoadReport::decode(&report.encode()).expect("well-formed");
    assert_eq!(read.named_metrics.len(), MAX_ENTRIES);
    report.named_metrics.insert("k".repeat(MAX_BYTES), 1.0);
    assert_eq!(LoadReport::decode(&report.encode()), None);
}
