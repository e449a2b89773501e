//! A policy out of gRPC's service config.

use serde_json::{Map, Value};

use super::{Policy, policy::Options};
use crate::error::{Error, Result};

/// gRPC's names, ours, and gRPC's names of options with ours.
type Known = (&'static [&'static str], &'static str, &'static [(&'static str, &'static str)]);

const KNOWN: [Known; 8] = [
    (&["pick_first"], "pick_first", &[("shuffleAddressList", "shuffle")]),
    (&["round_robin"], "round_robin", &[]),
    (
        &["weighted_round_robin"],
        "weighted_round_robin",
        &[
            ("blackoutPeriod", "blackout_period"),
            ("weightExpirationPeriod", "weight_expiration_period"),
            ("weightUpdatePeriod", "weight_update_period"),
            ("errorUtilizationPenalty", "error_utilization_penalty"),
            ("enableOobLoadReport", "enable_oob_load_report"),
            ("oobReportingPeriod", "oob_reporting_period"),
        ],
    ),
    (&["least_request", "least_request_experimental"], "least_request", &[("choiceCount", "choices")]),
    (
        &["ring_hash", "ring_hash_experimental"],
        "ring_hash",
        &[("minRingSize", "min_ring_size"), ("maxRingSize", "max_ring_size"), ("requestHashHeader", "hash_header")],
    ),
    (&["maglev"], "maglev", &[("tableSize", "table_size"), ("requestHashHeader", "hash_header")]),
    (&["peak_ewma"], "peak_ewma", &[("choiceCount", "choices")]),
    (&["random"], "random", &[]),
];

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
        let list = list.as_array().ok_or_else(|| wrong(path, "is a list"))?;
        let mut unknown = Vec::new();
        for (at, entry) in list.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let entry = object(entry, &path)?;
            let mut fields = entry.iter();
            let (Some((name, options)), None) = (fields.next(), fields.next()) else {
                return Err(wrong(&path, "has one field: the name of a policy"));
            };
            match KNOWN.iter().find(|(names, ..)| names.contains(&name.as_str())) {
                Some((_, ours, known)) => return policy(ours, known, options, &format!("{path}.{name}")).map(Some),
                None => unknown.push(name.as_str()),
            }
        }
        Err(wrong(path, &format!("names no policy that is known here, but {:?}", unknown.join(", "))))
    }
}

fn policy(name: &str, known: &[(&str, &str)], options: &Value, path: &str) -> Result<Policy> {
    let given = object(options, path)?;
    let mut text = name.to_owned();
    for (theirs, ours) in known {
        let path = format!("{path}.{theirs}");
        let value = match given.get(*theirs) {
            None | Some(Value::Null) => continue,
            Some(Value::String(value)) => value.clone(),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            Some(_) => return Err(wrong(&path, "is a string, a number, true or false")),
        };
        if !Options::can_hold(&value) {
            return Err(wrong(&path, "holds a comma or an equals sign"));
        }
        let one = format!("{name},{ours}={value}");
        one.parse::<Policy>().map_err(|error| error.context(path))?;
        text += &format!(",{ours}={value}");
    }
    text.parse().map_err(|error: Error| error.context(path.to_owned()))
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
        ] {
            let error = format!("{:#}", read(list).expect_err(list));
            assert!(error.contains(path), "{list}: {error}");
        }
        assert!(format!("{:#}", Policy::from_service_config("{").expect_err("broken")).contains("no JSON"));
    }
}
