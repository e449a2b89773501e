use serde_json::json;

use super::*;

fn query(name: &str) -> Query {
    Query::parse(&name.parse().expect("a name")).expect(name)
}

#[allow(clippy::needless_pass_by_value, reason = "so that a literal needs no `&`")]
fn slice(name: &str, family: &str, ports: Value, endpoints: Value) -> Value {
    json!({"metadata": {"name": name}, "addressType": family, "ports": ports, "endpoints": endpoints})
}

fn all(slices: &[Value], name: &str, choice: &Choice) -> (Vec<Arc<ServiceInstance>>, BTreeMap<String, Error>) {
    let service = name.parse().expect("a name");
    let read = |slice: &Value| {
        let of = slice["metadata"]["name"].as_str().expect("a name").to_owned();
        (of, Slice::read(slice.clone(), &service, &query(name), choice).expect("a slice"))
    };
    let slices: Vec<_> = slices.iter().map(read).collect();
    merge(slices.iter().map(|(name, slice)| (name, slice)))
}

fn merged(slices: &[Value], name: &str, choice: &Choice) -> Vec<String> {
    let (instances, _) = all(slices, name, choice);
    let mut shown: Vec<_> = instances.iter().map(|one| format!("{}={}", one.id(), one.addresses()[0])).collect();
    shown.sort();
    shown
}

fn pod(name: &str, address: &str) -> Value {
    json!({"addresses": [address], "targetRef": {"kind": "Pod", "name": name, "uid": name}})
}

#[test]
fn names_say_service_namespace_and_port() {
    let of = |name: &str| {
        let query = query(name);
        (query.service, query.namespace.unwrap_or_default(), query.port.unwrap_or_default())
    };
    let is = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(of("a"), is("a", "", ""));
    assert_eq!(of("a.b:grpc"), is("a", "b", "grpc"));
    assert_eq!(of("a.b.svc.cluster.local:9000"), is("a", "b", "9000"));
    for bad in ["A", "a_b", "a.b.c", "a:", "a.:x", "a,b=c", "-a", "a/b"] {
        assert!(Query::parse(&bad.parse().expect("a name")).is_err(), "{bad}");
    }
}

/// K1: kuberesolver #66, go-zero #5659, cilium #11947: each slice was taken for the whole.
#[test]
fn all_slices_are_one_set_and_an_endpoint_in_two_is_one() {
    let ports = json!([{"port": 9000}]);
    let slices = [
        slice("s1", "IPv4", ports.clone(), json!([pod("a", "10.0.0.1"), pod("b", "10.0.0.2")])),
        slice("s2", "IPv4", json!([{"port": 9001}]), json!([pod("c", "10.0.0.3")])),
        slice("s3", "IPv4", ports.clone(), json!([pod("a", "10.0.0.1"), {"addresses": ["10.0.0.9"]}])),
        slice("s4", "IPv4", ports, Value::Null),
    ];
    assert_eq!(
        merged(&slices, "s", &Choice::default()),
        ["10.0.0.9=grpc://10.0.0.9:9000", "a=grpc://10.0.0.1:9000", "b=grpc://10.0.0.2:9000", "c=grpc://10.0.0.3:9001"]
    );
}

/// K2: go-zero #5647, kuberesolver: nil is ready; who terminates serves only where nobody else does.
#[test]
fn readiness_is_kube_proxys() {
    let with = |name: &str, conditions: Value| {
        let mut pod = pod(name, "10.0.0.1");
        pod["targetRef"]["uid"] = name.into();
        pod["conditions"] = conditions;
        pod
    };
    let draining = with("draining", json!({"ready": false, "serving": true, "terminating": true}));
    let gone = with("gone", json!({"ready": false, "serving": false, "terminating": true}));
    let unready = with("unready", json!({"ready": false, "serving": false}));
    let ready = with("ready", json!({}));
    let ports = || json!([{"port": 1}]);
    let every = [slice("s", "IPv4", ports(), json!([&draining, gone.clone(), unready.clone(), ready]))];
    assert_eq!(merged(&every, "s", &Choice::default()), ["ready=grpc://10.0.0.1:1"]);
    let none = [slice("s", "IPv4", ports(), json!([draining, gone, unready]))];
    assert_eq!(merged(&none, "s", &Choice::default()), ["draining=grpc://10.0.0.1:1"]);
}

#[test]
fn a_pod_of_two_families_is_called_by_one() {
    let slices = [
        slice("s4", "IPv4", json!([{"port": 1}]), json!([pod("a", "10.0.0.1")])),
        slice("s6", "IPv6", json!([{"port": 1}]), json!([pod("a", "2001:db8::1"), pod("b", "2001:db8::2")])),
    ];
    assert_eq!(merged(&slices, "s", &Choice::default()), ["a=grpc://10.0.0.1:1", "b=grpc://[2001:db8::2]:1"]);
    let choice = Choice { ipv6_first: true, secure: true, ..Choice::default() };
    assert_eq!(merged(&slices, "s", &choice), ["a=grpcs://[2001:db8::1]:1", "b=grpcs://[2001:db8::2]:1"]);
}

#[test]
fn ports_by_name_by_number_the_single_one_or_the_one_that_speaks_h2c() {
    let ports = json!([{"name": "http", "port": 8000}, {"name": "api", "port": 9000, "appProtocol": "kubernetes.io/h2c"},
        {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let slices = [slice("s", "IPv4", ports, json!([pod("a", "h")]))];
    assert_eq!(merged(&slices, "s", &Choice::default()), ["a=grpc://h:9000"]);
    assert_eq!(merged(&slices, "s:http", &Choice::default()), ["a=grpc://h:8000"]);
    assert_eq!(merged(&slices, "s:8000", &Choice::default()), ["a=grpc://h:8000"]);
    let two = [slice("s", "IPv4", json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]), json!([pod("a", "h")]))];
    for name in ["s", "s:c", "s:3"] {
        let (none, skipped) = all(&two, name, &Choice::default());
        assert!(none.is_empty() && skipped["s"].to_string().contains("a 1, b 2"), "{skipped:?}");
    }
}

#[test]
fn hints_count_where_all_have_them_and_some_are_for_us() {
    let hinted = |name: &str, zone: &str| {
        let mut pod = pod(name, "h");
        pod["hints"] = json!({"forZones": [{"name": zone}]});
        pod["zone"] = zone.into();
        pod
    };
    let choice = |zone: &str| Choice { hint_zone: Some(zone.into()), ..Choice::default() };
    let every = [slice("s", "IPv4", json!([{"port": 1}]), json!([hinted("a", "z1"), hinted("b", "z2")]))];
    assert_eq!(merged(&every, "s", &choice("z1")), ["a=grpc://h:1"]);
    assert_eq!(merged(&every, "s", &choice("z3")).len(), 2);
    assert_eq!(merged(&every, "s", &Choice::default()).len(), 2);
    let some = [slice("s", "IPv4", json!([{"port": 1}]), json!([hinted("a", "z1"), pod("b", "h")]))];
    assert_eq!(merged(&some, "s", &choice("z1")).len(), 2);
}
