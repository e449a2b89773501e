//! Consul's JSON of a service: what agents take, and what the catalog tells.

mod read;
mod write;

use serde::{Deserialize, Serialize};

pub use self::write::ConsulCheck;
pub(super) use self::{
    read::{Read, Reading},
    write::{Shape, check_id},
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tagged {
    #[serde(default, alias = "address")]
    address: String,
    #[serde(default, alias = "port")]
    port: i64,
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use serde_json::Value;

    use super::*;
    use crate::{
        error::Kind,
        instance::{Address, Scheme, ServiceInstance},
    };

    fn shape(checks: &[ConsulCheck]) -> Shape {
        Shape {
            ttl: Duration::from_secs(4),
            checks: checks.to_vec(),
            interval: Duration::from_secs(2),
            path: "/".to_owned(),
            deregister_after: Duration::from_secs(600),
            tags: Vec::new(),
            qualified: false,
        }
    }

    fn instance() -> ServiceInstance {
        let address = |text: &str| text.parse::<Address>().expect("an address");
        ServiceInstance::builder("helloworld", "inst-a")
            .and_then(|builder| {
                builder
                    .version("v1.2.3")
                    .metadata("zone", "sh001")
                    .addresses([address("grpc://127.0.0.1:9000"), address("http://127.0.0.1:8000")])
                    .build()
            })
            .expect("valid")
    }

    #[test]
    fn registers_byte_for_byte_as_kratos_does() {
        let recorded = include_str!("../../../../tests/data/consul/register.json").trim_end();
        let written = shape(&[ConsulCheck::Kratos]).encode(&instance(), "me").expect("fits");
        assert_eq!(String::from_utf8(written).expect("JSON"), recorded);
    }

    #[test]
    fn by_default_it_is_the_same_with_one_check_that_passes() {
        let recorded: Value =
            serde_json::from_str(include_str!("../../../../tests/data/consul/register.json")).expect("JSON");
        let written: Value =
            serde_json::from_slice(&shape(&[]).encode(&instance(), "me").expect("fits")).expect("JSON");
        for key in ["ID", "Name", "Tags", "Port", "Address", "TaggedAddresses", "Meta"] {
            assert_eq!(written[key], recorded[key], "{key}");
        }
        let check = &written["Checks"][0];
        assert_eq!((&check["Status"], &check["CheckID"]), (&"passing".into(), &"service:inst-a".into()));
        assert_eq!(written["Checks"].as_array().map(Vec::len), Some(1));
    }

    fn read(entries: &str) -> Read {
        let reading = Reading { scheme: Scheme::Grpc, datacenter: false, most: 100 };
        reading.decode(&"helloworld".parse().expect("a name"), entries.as_bytes()).expect("a list")
    }

    #[test]
    fn reads_what_it_and_kratos_write() {
        let entry = r#"[{"Node":{"Address":"10.0.0.1","Datacenter":"dc1"},"Service":{"ID":"inst-a","Service":"helloworld",
            "Tags":["version=v1.2.3"],"Address":"127.0.0.1","Port":9000,"TaggedAddresses":{
            "http":{"Address":"http://127.0.0.1:8000","Port":8000},"grpc":{"Address":"grpc://127.0.0.1:9000","Port":9000},
            "lan_ipv4":{"Address":"127.0.0.1","Port":9000}},"Meta":{"zone":"sh001"},"Weights":{"Passing":1,"Warning":1}}}]"#;
        let (instances, skipped) = read(entry);
        assert_eq!(instances, [Arc::new(instance())]);
        assert!(skipped.is_empty());
    }

    #[test]
    fn what_is_more_than_is_held_is_counted() {
        let entry =
            |n| format!(r#"{{"Service":{{"ID":"i{n}","Service":"helloworld","Address":"10.0.0.1","Port":80}}}}"#);
        let entries: Vec<_> = (0..102).map(entry).collect();
        let (instances, skipped) = read(&format!("[{}]", entries.join(",")));
        assert_eq!((instances.len(), skipped.contains_key("*")), (100, true));
        let (instances, skipped) = read(&format!("[{}]", entries[..100].join(",")));
        assert_eq!((instances.len(), skipped.len()), (100, 0));
    }

    /// C16, C17, C18.
    #[test]
    fn foreign_services_are_read_and_what_is_none_is_skipped() {
        let (instances, skipped) = read(
            r#"[{"Node":{"Address":"10.0.0.1"},"Service":{"ID":"a","Service":"helloworld","Address":"","Port":80,
                 "Weights":{"Passing":7}}},
                {"Node":{"Address":"10.0.0.1"},"Service":{"ID":"b","Service":"helloworld","Address":"10.0.0.2",
                 "Ports":[{"Name":"x","Port":1},{"Name":"y","Port":2,"Default":true}]}},
                {"Node":null,"Service":{"ID":"c","Service":"helloworld","TaggedAddresses":null,"Port":70000}},
                {"Service":{"ID":"d","Service":"HelloWorld"}},
                {"Service":{"ID":"e","Service":"helloworld","Meta":{"n":1}}}, null, 7,
                {"Service":{"ID":"","Service":"helloworld"}}]"#,
        );
        let all: Vec<_> = instances
            .iter()
            .map(|one| {
                let addresses: Vec<_> = one.addresses().iter().map(ToString::to_string).collect();
                format!("{} {} {}", one.id(), addresses.join(","), one.weight())
            })
            .collect();
        assert_eq!(all, ["a grpc://10.0.0.1:80 7", "b grpc://10.0.0.2:2 100", "c  100"]);
        assert_eq!(skipped.keys().collect::<Vec<_>>(), ["", "?", "e"]);
    }

    #[test]
    fn addresses_of_one_scheme_are_all_kept() {
        let more = ["grpc://h:1", "grpc://h:2"].map(|text| text.parse::<Address>().expect("an address"));
        let more = instance().to_builder().addresses(more).build().expect("valid");
        let written: Value = serde_json::from_slice(&shape(&[]).encode(&more, "").expect("fits")).expect("JSON");
        let tagged = &written["TaggedAddresses"];
        for (key, address) in [("grpc", "grpc://127.0.0.1:9000"), ("grpc-2", "grpc://h:1"), ("grpc-3", "grpc://h:2")] {
            assert_eq!(tagged[key]["Address"], address, "{tagged}");
        }
    }

    #[test]
    fn what_consul_cannot_hold_is_refused_with_the_rule() {
        for (key, value) in [("a.b", "1"), ("consul-x", "1"), ("a", &*"x".repeat(513))] {
            let wrong = instance().to_builder().metadata(key, value).build().expect("valid");
            let error = shape(&[]).encode(&wrong, "").expect_err(key);
            assert!(error.kind() == Kind::InvalidInput && error.to_string().contains(key), "{error}");
        }
    }
}
