use proptest::{collection::btree_map, option, prelude::*};

use super::*;
use crate::Kind;

fn target(text: &str) -> Target {
    text.parse().expect(text)
}

#[test]
fn the_last_segment_is_the_service_and_the_rest_the_registry() {
    let file = target("file:///run/services/greeter?ttl=5s&version=v1&metadata.env=prod");
    assert_eq!(file.service().as_str(), "greeter");
    assert_eq!((file.registry().authority(), file.registry().path()), ("", "/run/services"));
    assert_eq!(file.registry().param("ttl"), Some("5s"));
    assert_eq!((file.version(), &*file.metadata()["env"]), (Some("v1"), "prod"));

    let hashed = target("memory:///greeter?min_ring_size=64&policy=ring_hash&hash_header=x-user");
    assert_eq!(hashed.policy(), Some("ring_hash,hash_header=x-user,min_ring_size=64"));
    assert_eq!(target(&hashed.to_string()).policy(), hashed.policy());

    let consul = target("CONSUL://127.0.0.1:8500/team%2Fgreeter");
    assert_eq!(consul.service().as_str(), "team/greeter");
    assert_eq!(consul.registry().to_string(), "consul://127.0.0.1:8500");
}

#[test]
fn a_fixed_list_needs_no_name() {
    let list = target("static://127.0.0.1:1,127.0.0.1:2");
    assert_eq!(list.service().as_str(), "127.0.0.1:1");
    assert_eq!(list.registry().authority(), "127.0.0.1:1,127.0.0.1:2");
    assert_eq!(target("static://a:1,b:2/greeter").service().as_str(), "greeter");
}

#[test]
fn says_what_is_wrong() {
    for (text, why) in [
        ("greeter", "no scheme"),
        ("memory://", "names no service"),
        ("memory:///", "names no service"),
        ("://x/greeter", "no scheme"),
        ("memory:///greeter?policy", "key=value"),
        ("memory:///greeter?hash_header=x-user", "needs policy="),
        ("memory:///greeter?timeout=5", "a time above 0"),
        ("memory:///greeter?timeout=0s", "a time above 0"),
        ("memory:///greeter?subset=0", "subset is a number"),
        ("memory:///greeter?zone=a&zone=b", "twice"),
        ("memory:///gre%00eter", "control character"),
        ("memory:///gre%ffeter", "no UTF-8"),
    ] {
        let error = text.parse::<Target>().expect_err(text);
        assert_eq!(error.kind(), Kind::InvalidInput);
        assert!(format!("{error:#}").contains(why), "{text}: {error:#}");
    }
    let uri: RegistryUri = "memory://?nonsense=1".parse().expect("a registry judges its keys");
    let error = uri.expect_params(&["ttl"]).expect_err("unknown key");
    assert!(error.to_string().contains("nonsense") && error.to_string().contains("ttl"), "{error}");
}

#[test]
fn secrets_are_not_shown() {
    let parsed = target("consul://root:hunter2@h:1/greeter?token=hunter2");
    let error = "consul://root:hunter2@h:1/?token=hunter2".parse::<Target>().expect_err("no service");
    for shown in [format!("{parsed:?}"), format!("{error:#}"), format!("{error:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

proptest! {
    #[test]
    fn survives_printing(
        scheme in "[a-z][a-z0-9+.-]{0,8}",
        authority in "([a-z0-9.,:é %@]{0,20}x)?",
        path in "(/[^/\\p{Cc}]{1,8}){0,3}",
        service in "[^\\p{Cc}\\s]([^\\p{Cc}]{0,20}[^\\p{Cc}\\s])?",
        version in option::of("[^\\p{Cc}]{0,12}"),
        subset in option::of(1usize..),
        timeout in option::of(1u64..10_000_000),
        metadata in btree_map("[^\\p{Cc}]{1,6}", "[^\\p{Cc}]{0,6}", 0..3),
        own in btree_map("[a-z_]{1,3}", "[^\\p{Cc}]{0,6}", 0..3),
    ) {
        prop_assume!(service.len() <= 253);
        let arcs = |map: BTreeMap<String, String>| -> BTreeMap<Arc<str>, Arc<str>> {
            map.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
        };
        let target = Target {
            registry: RegistryUri { scheme: scheme.into(), authority: authority.into(), path: path.into(), params: arcs(own) },
            service: service.parse().expect("valid"),
            params: Params {
                version: version.map(Into::into), subset, timeout: timeout.map(Duration::from_micros),
                metadata: arcs(metadata), ..Params::default()
            },
        };
        let printed = target.to_string();
        prop_assert_eq!(printed.parse::<Target>().expect(&printed), target, "{}", printed);
    }

    #[test]
    fn no_text_panics(text in any::<String>(), tail in any::<String>()) {
        let _ = text.parse::<Target>();
        let _ = format!("memory://{tail}").parse::<Target>();
        let _ = parse_duration(&text);
    }
}
