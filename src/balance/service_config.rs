//! A policy out of gRPC's service config.

use serde_json::{Map, Value};

use super::{Policy, policy::Options};
use crate::error::{Error, Result};

/// What a service config may name.
struct Known {
    /// gRPC's names, and ours.
    names: &'static [&'static str],
    makes: Makes,
    /// Where an option is among its own, and our name of it.
    options: &'static [(&'static str, &'static str)],
}

enum Makes {
    /// A policy of this name.
    Policy(&'static str),
    /// A wrapper of its `childPolicy`, which this option switches on.
    Wrapper(&'static str),
}

const fn known(
    names: &'static [&'static str],
    makes: Makes,
    options: &'static [(&'static str, &'static str)],
) -> Known {
    Known { names, makes, options }
}

const KNOWN: [Known; 14] = [
    known(&["adaptive"], Makes::Policy("adaptive"), &[("probes", "probes")]),
    known(
        &["prequal"],
        Makes::Policy("prequal"),
        &[("probes", "probes"), ("wait", "wait"), ("hotPercentile", "hot_percentile")],
    ),
    known(&["pick_first"], Makes::Policy("pick_first"), &[("shuffleAddressList", "shuffle")]),
    known(&["round_robin"], Makes::Policy("round_robin"), &[]),
    known(
        &["weighted_round_robin"],
        Makes::Policy("weighted_round_robin"),
        &[
            ("blackoutPeriod", "blackout_period"),
            ("weightExpirationPeriod", "weight_expiration_period"),
            ("weightUpdatePeriod", "weight_update_period"),
            ("errorUtilizationPenalty", "error_utilization_penalty"),
            ("enableOobLoadReport", "enable_oob_load_report"),
            ("oobReportingPeriod", "oob_reporting_period"),
        ],
    ),
    known(
        &["least_request", "least_request_experimental"],
        Makes::Policy("least_request"),
        &[("choiceCount", "choices")],
    ),
    known(
        &["ring_hash", "ring_hash_experimental"],
        Makes::Policy("ring_hash"),
        &[("minRingSize", "min_ring_size"), ("maxRingSize", "max_ring_size"), ("requestHashHeader", "hash_header")],
    ),
    known(&["maglev"], Makes::Policy("maglev"), &[("tableSize", "table_size"), ("requestHashHeader", "hash_header")]),
    known(&["peak_ewma"], Makes::Policy("peak_ewma"), &[("choiceCount", "choices")]),
    known(&["random"], Makes::Policy("random"), &[]),
    known(
        &["outlier_detection", "outlier_detection_experimental"],
        Makes::Wrapper("outlier_ejection=true"),
        &[
            ("interval", "ejection_interval"),
            ("baseEjectionTime", "base_ejection_time"),
            ("maxEjectionTime", "max_ejection_time"),
            ("maxEjectionPercent", "max_ejection_percent"),
            ("successRateEjection.stdevFactor", "success_rate_stdev_factor"),
            ("successRateEjection.enforcementPercentage", "success_rate_enforcement"),
            ("successRateEjection.minimumHosts", "success_rate_minimum_hosts"),
            ("successRateEjection.requestVolume", "success_rate_request_volume"),
            ("failurePercentageEjection.threshold", "failure_percentage_threshold"),
            ("failurePercentageEjection.enforcementPercentage", "failure_percentage_enforcement"),
            ("failurePercentageEjection.minimumHosts", "failure_percentage_minimum_hosts"),
            ("failurePercentageEjection.requestVolume", "failure_percentage_request_volume"),
            ("panicThreshold", "panic_threshold"),
        ],
    ),
    known(
        &["slow_start"],
        Makes::Wrapper(""),
        &[
            ("window", "slow_start"),
            ("aggression", "slow_start_aggression"),
            ("minWeightPercent", "slow_start_min_weight"),
        ],
    ),
    known(
        &["prefer_locality"],
        Makes::Wrapper(""),
        &[("zone", "prefer_zone"), ("region", "prefer_region"), ("panicThreshold", "panic_threshold")],
    ),
    known(
        &["failover"],
        Makes::Wrapper("failover=true"),
        &[("threshold", "failover_threshold"), ("timeout", "failover_timeout")],
    ),
];

/// Wrappers in wrappers are at most so deep.
const DEPTH: usize = 8;

impl Policy {
    /// Reads the policy of a
    /// [service config](https://github.com/grpc/grpc/blob/master/doc/service_config.md): the first of
    /// `loadBalancingConfig` that is known, with its options; none if there is no such list. What else
    /// stands in the config, and options that are not known, are left alone.
    ///
    /// ```
    /// use callsign::balance::Policy;
    ///
    /// let config = r#"{"loadBalancingConfig": [{"new_one": {}}, {"ring_hash": {"requestHashHeader": "x-user"}}]}"#;
    /// let policy = Policy::from_service_config(config)?.expect("there is one");
    /// assert_eq!(policy.name(), "ring_hash,hash_header=x-user");
    /// # Ok::<(), callsign::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput), with the path in the JSON of what is wrong; also if there
    /// is a list, and no policy of it is known.
    pub fn from_service_config(json: &str) -> Result<Option<Self>> {
        let config: Value = serde_json::from_str(json).map_err(|source| {
            Error::with_source(crate::error::Kind::InvalidInput, "this service config is no JSON", source)
        })?;
        let config = object(&config, "$")?;
        let Some(list) = config.get("loadBalancingConfig") else { return Ok(None) };
        let path = "$.loadBalancingConfig";
        let text = first_known(list, path, DEPTH)?;
        text.parse().map(Some).map_err(|error: Error| error.context(path))
    }
}

/// The text of the first policy in a list that is known.
fn first_known(list: &Value, path: &str, depth: usize) -> Result<String> {
    let list = list.as_array().ok_or_else(|| wrong(path, "is a list"))?;
    let mut unknown = Vec::new();
    for (at, entry) in list.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let entry = object(entry, &path)?;
        let mut fields = entry.iter();
        let (Some((name, options)), None) = (fields.next(), fields.next()) else {
            return Err(wrong(&path, "has one field: the name of a policy"));
        };
        match KNOWN.iter().find(|known| known.names.contains(&name.as_str())) {
            Some(known) => return known.text(options, &format!("{path}.{name}"), depth),
            None => unknown.push(name.as_str()),
        }
    }
    Err(wrong(path, &format!("names no policy that is known here, but {:?}", unknown.join(", "))))
}

impl Known {
    /// The policy's text, or that of the child with the wrapper's options behind it.
    fn text(&self, options: &Value, path: &str, depth: usize) -> Result<String> {
        let given = object(options, path)?;
        let (mut text, on) = match self.makes {
            Makes::Policy(name) => (name.to_owned(), ""),
            Makes::Wrapper(on) => {
                let path = format!("{path}.childPolicy");
                let depth = depth.checked_sub(1).ok_or_else(|| wrong(&path, "is too deep"))?;
                let child = given.get("childPolicy").ok_or_else(|| wrong(&path, "is missing"))?;
                (first_known(child, &path, depth)?, on)
            }
        };
        let child = text.clone();
        put(&mut text, on);
        for (theirs, ours) in self.options {
            let path = format!("{path}.{theirs}");
            let Some(value) = find(given, theirs, &path)? else { continue };
            if !Options::can_hold(&value) {
                return Err(wrong(&path, "holds a comma or an equals sign"));
            }
            put(&mut text, &format!("{ours}={value}"));
            // Each by itself, so that the error is of this one.
            text.parse::<Policy>().map_err(|error| error.context(path))?;
        }
        match (&self.makes, self.options) {
            (Makes::Wrapper(""), [(needed, _), ..]) if text == child => Err(wrong(path, &format!("lacks {needed:?}"))),
            _ => Ok(text),
        }
    }
}

/// Puts one more option behind a policy, unless it is there.
fn put(text: &mut String, option: &str) {
    if !option.is_empty() && !text.split(',').any(|is| is == option) {
        text.push(',');
        text.push_str(option);
    }
}

/// The value at a path of fields as text; none if it is not there.
fn find(given: &Map<String, Value>, fields: &str, path: &str) -> Result<Option<String>> {
    if let Some((field, rest)) = fields.split_once('.') {
        return match given.get(field) {
            // gRPC does without a rule that is not named.
            None | Some(Value::Null) => Ok(rest.ends_with("enforcementPercentage").then(|| "0".to_owned())),
            Some(inner) => find(object(inner, path.trim_end_matches(rest).trim_end_matches('.'))?, rest, path),
        };
    }
    match given.get(fields) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone())),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
        Some(_) => Err(wrong(path, "is a string, a number, true or false")),
    }
}

fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| wrong(path, "is an object"))
}

fn wrong(path: &str, should: &str) -> Error {
    Error::invalid(format!("service config: {path} {should}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Result<Option<Policy>> {
        Policy::from_service_config(&format!(r#"{{"methodConfig": [], "loadBalancingConfig": {list}}}"#))
    }

    #[test]
    fn the_first_known_one_counts_with_its_options() {
        for (list, name) in [
            (r#"[{"round_robin": {}}]"#, "round_robin"),
            (r#"[{"xds_new": {"a": []}}, {"round_robin": {}}, {"pick_first": 7}]"#, "round_robin"),
            (r#"[{"least_request_experimental": {"choiceCount": 3, "later": 1}}]"#, "least_request,choices=3"),
            (r#"[{"pick_first": {"shuffleAddressList": true}}]"#, "pick_first,shuffle=true"),
            (
                r#"[{"outlier_detection_experimental": {"interval": "5s", "maxEjectionPercent": 20,
                    "failurePercentageEjection": {"threshold": 50},
                    "childPolicy": [{"new": {}}, {"ring_hash": {"minRingSize": 64}}]}}]"#,
                "ring_hash,min_ring_size=64,outlier_ejection=true,ejection_interval=5s,max_ejection_percent=20,\
                 success_rate_enforcement=0,failure_percentage_threshold=50",
            ),
            (
                r#"[{"slow_start": {"window": "10s", "aggression": 2, "childPolicy": [
                    {"prefer_locality": {"zone": "a", "panicThreshold": 30, "childPolicy": [
                    {"failover": {"childPolicy": [{"random": {}}]}}]}}]}}]"#,
                "random,failover=true,prefer_zone=a,panic_threshold=30,slow_start=10s,slow_start_aggression=2",
            ),
            // Protobuf's JSON writes 64-bit numbers as strings.
            (
                r#"[{"ring_hash_experimental": {"minRingSize": "64", "maxRingSize": 128, "requestHashHeader": "x-a"}}]"#,
                "ring_hash,min_ring_size=64,max_ring_size=128,hash_header=x-a",
            ),
        ] {
            assert_eq!(read(list).expect(list).expect(list).name(), name);
        }
        assert!(Policy::from_service_config("{}").expect("empty").is_none());
    }

    #[test]
    fn errors_name_the_path() {
        for (list, path) in [
            ("{}", "$.loadBalancingConfig is a list"),
            ("[7]", "$.loadBalancingConfig[0] is an object"),
            (r#"[{"a": {}}, {}]"#, "$.loadBalancingConfig[1] has one field"),
            (r#"[{"a": {}, "b": {}}]"#, "$.loadBalancingConfig[0] has one field"),
            (r#"[{"round_robin": 1}]"#, "$.loadBalancingConfig[0].round_robin is an object"),
            (r#"[{"least_request": {"choiceCount": 1}}]"#, "$.loadBalancingConfig[0].least_request.choiceCount"),
            (r#"[{"least_request": {"choiceCount": []}}]"#, "$.loadBalancingConfig[0].least_request.choiceCount"),
            (r#"[{"maglev": {"requestHashHeader": "a,b=c"}}]"#, "$.loadBalancingConfig[0].maglev.requestHashHeader"),
            (r#"[{"a": {}}, {"b": {}}]"#, "\"a, b\""),
            ("[]", "no policy that is known"),
            (r#"[{"failover": {}}]"#, "$.loadBalancingConfig[0].failover.childPolicy is missing"),
            (r#"[{"failover": {"childPolicy": [{"a": {}}]}}]"#, "$.loadBalancingConfig[0].failover.childPolicy names"),
            (
                r#"[{"failover": {"childPolicy": [{"random": {}}], "threshold": 101}}]"#,
                "$.loadBalancingConfig[0].failover.threshold",
            ),
            (r#"[{"slow_start": {"childPolicy": [{"random": {}}]}}]"#, "$.loadBalancingConfig[0].slow_start lacks"),
            (
                r#"[{"outlier_detection": {"childPolicy": [{"random": {}}], "successRateEjection": 7}}]"#,
                "$.loadBalancingConfig[0].outlier_detection.successRateEjection is an object",
            ),
            (
                r#"[{"outlier_detection": {"successRateEjection": {"requestVolume": -1}, "childPolicy": [{"random": {}}]}}]"#,
                "$.loadBalancingConfig[0].outlier_detection.successRateEjection.requestVolume",
            ),
        ] {
            let error = format!("{:#}", read(list).expect_err(list));
            assert!(error.contains(path), "{list}: {error}");
        }
        assert!(format!("{:#}", Policy::from_service_config("{").expect_err("broken")).contains("no JSON"));
    }

    #[test]
    fn wrappers_in_wrappers_are_not_without_end() {
        let wrap = |child: String| format!(r#"[{{"failover": {{"childPolicy": {child}}}}}]"#);
        let deep = |depth| (0..depth).fold(r#"[{"random": {}}]"#.to_owned(), |child, _| wrap(child));
        assert_eq!(read(&deep(DEPTH)).expect("not too deep").expect("one").name(), "random,failover=true");
        assert!(format!("{:#}", read(&deep(DEPTH + 1)).expect_err("deep")).contains("is too deep"));
    }
}
