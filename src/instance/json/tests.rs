use proptest::{collection::btree_map, prelude::*};

use super::*;
use crate::instance::Scheme;

fn read(json: &str) -> ServiceInstance {
    ServiceInstance::from_json(json.as_bytes()).expect(json)
}

/// What a real Kratos program wrote to etcd.
#[test]
fn writes_what_kratos_writes() {
    let json = concat!(
        r#"{"id":"inst-a","name":"helloworld","version":"v1.2.3","#,
        r#""metadata":{"note":"\u003ca\u0026b\u003e \"q\" é","zone":"sh001"},"#,
        r#""endpoints":["grpc://127.0.0.1:36343","http://127.0.0.1:38949"]}"#,
    );
    let instance = read(json);
    assert_eq!(instance.metadata()["note"].as_ref(), "<a&b> \"q\" é");
    assert_eq!(instance.locality().zone(), Some("sh001"));
    assert_eq!(instance.to_json(), json);
}

#[test]
fn reads_go_nil_as_empty_and_never_writes_null() {
    let instance = read(r#"{"id":"a","name":"s","version":"","metadata":null,"endpoints":null}"#);
    assert_eq!(instance.to_json(), r#"{"id":"a","name":"s","version":"","metadata":{},"endpoints":[]}"#);
}

#[test]
fn reads_keys_in_any_case_and_the_last_of_several() {
    let instance = read(r#"{"ID":"x","id":"a","NAME":"s","Ver\u017fion":"v","extra":[{}],"version":null}"#);
    assert_eq!((instance.id().as_str(), instance.version()), ("a", "v"));
}

#[test]
fn merges_repeated_metadata_like_a_go_map() {
    let instance = read(r#"{"id":"a","name":"s","metadata":{"a":"1","b":"1"},"metadata":{"b":"2","c":null}}"#);
    let pairs: Vec<_> = instance.metadata().iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(pairs, [("a", "1"), ("b", "2"), ("c", "")]);
}

#[test]
fn replaces_what_is_no_unicode() {
    let lone = read(r#"{"id":"a","name":"s","version":"x\ud800y"}"#);
    assert_eq!(lone.version(), "x\u{FFFD}y");
    let broken = ServiceInstance::from_json(b"{\"id\":\"a\",\"name\":\"s\",\"version\":\"\xff\xfe!\"}");
    assert_eq!(broken.expect("go reads it").version(), "\u{FFFD}\u{FFFD}!");
}

#[test]
fn reads_the_old_marks_of_tls_and_leaves_out_what_is_no_endpoint() {
    let json = r#"{"id":"a","name":"s","endpoints":["grpc://h:1?isSecure=true","grpc://h:2?isSecure=false","TCP://h:3","grpc://h:0","","http://[::1]:8080/x",null]}"#;
    let addresses: Vec<_> = read(json).addresses().iter().map(Address::to_string).collect();
    assert_eq!(addresses, ["grpcs://h:1", "grpc://h:2", "http://[::1]:8080"]);
}

#[test]
fn refuses_what_go_refuses_and_what_is_no_instance() {
    for json in [
        "",
        "null",
        "[]",
        "1",
        "{",
        r#"{"id":"a"}"#,
        r#"{"id":"","name":"s"}"#,
        r#"{"id":1,"name":"s"}"#,
        r#"{"id":"a","name":"s","metadata":{"n":1}}"#,
        r#"{"id":"a","name":"s","endpoints":"grpc://h:1"}"#,
        r#"{"id":"a","name":"s"} x"#,
    ] {
        let error = ServiceInstance::from_json(json.as_bytes()).expect_err(json);
        assert_eq!(error.kind(), Kind::Corrupt, "{json}");
    }
}

#[test]
fn escapes_like_go() {
    let instance = ServiceInstance::builder("s", "a")
        .and_then(|builder| builder.version("<>&\u{2028}\u{2029}\u{1}\u{8}\u{c}\n\r\t\u{7f}\\/").build())
        .expect("valid");
    let version = concat!(r"\u003c\u003e\u0026\u2028\u2029\u0001\b\f\n\r\t", "\u{7f}", r"\\/");
    assert!(instance.to_json().contains(version), "{}", instance.to_json());
}

fn address() -> impl Strategy<Value = Address> {
    let scheme = prop_oneof![Just(Scheme::Grpc), Just(Scheme::Grpcs), Just(Scheme::Http), Just(Scheme::Https)];
    let host = prop_oneof!["[a-z0-9_.-]{0,19}z", Just("::1".to_owned()), Just("fe80::1%eth0".to_owned())];
    prop_oneof![
        (scheme, host, 1u16..).prop_map(|(scheme, host, port)| Address::tcp(scheme, &host, port).expect("valid")),
        "/[a-z/.]{1,30}".prop_map(|path| Address::unix(&path).expect("valid")),
    ]
}

/// What is hostile, or only odd: taken as it can be, or refused; never taken for something else.
#[test]
fn hostile_records_are_refused_and_odd_ones_are_read() {
    let record = |rest: &str| format!(r#"{{"id":"a","name":"s",{rest}}}"#);
    let endpoints =
        |list: &[&str]| record(&format!(r#""endpoints":{}"#, serde_json::to_string(list).expect("strings")));
    let million = |what: &str| vec![what; 1_000_000].join(",");
    let refused = [
        ("16 MiB", " ".repeat(16 << 20) + &record("\"version\":\"\"")),
        ("a million endpoints", record(&format!(r#""endpoints":[{}]"#, million(r#""grpc://h:1""#)))),
        ("65 endpoints", endpoints(&["grpc://h:1"; 65])),
        (
            "257 entries",
            record(&format!(
                r#""metadata":{{{}}}"#,
                (0..257).map(|n| format!(r#""{n}":"""#)).collect::<Vec<_>>().join(",")
            )),
        ),
        ("64 KiB of metadata", record(&format!(r#""metadata":{{"k":"{}"}}"#, "v".repeat(64 << 10)))),
        ("deep", record(&format!(r#""x":{}"#, "[".repeat(500_000)))),
        ("a number as id", r#"{"id":1,"name":"s"}"#.to_owned()),
        ("a list as metadata", record(r#""metadata":[1]"#)),
        ("an object as endpoints", record(r#""endpoints":{}"#)),
        ("no id", r#"{"name":"s"}"#.to_owned()),
        ("a list", "[]".to_owned()),
        ("link-local alone", endpoints(&["grpc://169.254.169.254:80"])),
        ("mapped", endpoints(&["grpc://[::ffff:169.254.169.254]:80"])),
        ("link-local in IPv6", endpoints(&["grpc://[fe80::1]:80"])),
        ("metadata services", endpoints(&["grpc://[fd00:ec2::254]:80", "http://metadata.google.internal:80"])),
        ("a group", endpoints(&["grpc://224.0.0.1:80", "grpc://[ff02::1]:80"])),
        ("nobody, and everybody", endpoints(&["grpc://0.0.0.0:80", "grpc://[::]:80", "grpc://255.255.255.255:80"])),
    ];
    for (what, json) in refused {
        let error = ServiceInstance::from_json(json.as_bytes()).expect_err(what);
        assert!(error.kind() == Kind::Corrupt && error.to_string().len() < 500, "{what}: {error:#}");
    }
    let read = |json: &[u8]| ServiceInstance::from_json(json).expect("read");
    let one =
        read(endpoints(&["grpc://10.0.0.1:0", "grpc://127.1:80", "grpc://2852039166:80", "grpc://h:1"]).as_bytes());
    assert_eq!(one.addresses().iter().map(ToString::to_string).collect::<Vec<_>>(), ["grpc://h:1"]);
    let one = read(endpoints(&["grpc://169.254.169.254:80", "grpc://10.0.0.1:80"]).as_bytes());
    assert_eq!(one.addresses().len(), 1, "the good one is not lost");
    for weight in ["NaN", "-1", "1e999", "", "0", "18446744073709551616", "1000001"] {
        let one = read(record(&format!(r#""metadata":{{"weight":"{weight}"}}"#)).as_bytes());
        assert!(one.weight().get() == 100, "{weight}");
    }
    assert_eq!(read(br#"{"id":"a","ID":"b","name":"s"}"#).id().as_str(), "b", "the last of a key");
    assert_eq!(read(b"{\"id\":\"a\xff\",\"name\":\"s\"}").id().as_str(), "a\u{fffd}");
}

proptest! {
    #[test]
    fn an_address_survives_printing(address in address()) {
        prop_assert_eq!(address.to_string().parse::<Address>().expect("printed"), address);
    }

    #[test]
    fn an_instance_survives_its_json(
        id in "[a-zA-Z0-9/ é<]{1,20}x", name in "[a-z.]{1,20}", version in any::<String>(),
        metadata in btree_map(any::<String>(), any::<String>(), 0..5),
        addresses in proptest::collection::vec(address(), 0..4),
    ) {
        let mut builder = ServiceInstance::builder(name, id.trim()).expect("valid").version(version).addresses(addresses);
        for (key, value) in metadata {
            builder = builder.metadata(key, value);
        }
        let instance = builder.build().expect("small");
        prop_assert_eq!(ServiceInstance::from_json(instance.to_json().as_bytes()).expect("own JSON"), instance);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
        let _ = ServiceInstance::from_json(&bytes);
        let _ = ServiceInstance::from_json(text.as_bytes());
        let _ = text.parse::<Address>();
    }
}
