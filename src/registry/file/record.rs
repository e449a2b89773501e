//! Bytes of a file ↔ an instance and its lease.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    instance::{ServiceInstance, ServiceName},
    util::filename,
};

/// What one file holds: the JSON of an instance as Kratos writes it, and beside it `lease`. Without
/// a lease, as a person writes it, the instance is there as long as the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) instance: Arc<ServiceInstance>,
    pub(super) lease: Option<LeaseRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    /// Whose lease it is.
    pub(super) token: String,
    /// Counts the renewals.
    pub(super) beat: u64,
    pub(super) ttl_ms: u64,
    /// Whether the owner took the instance out.
    #[serde(default)]
    pub(super) ended: bool,
    /// Which boot of which machine the owner runs in, and how long it had been up at this renewal.
    #[serde(default)]
    pub(super) boot: Option<String>,
    #[serde(default)]
    pub(super) uptime_ms: u64,
}

impl LeaseRecord {
    /// What a file says, within reason.
    pub(super) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms).min(MAX_TTL)
    }
}

/// No lease is believed to live longer without a renewal.
pub(super) const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// No file may be longer.
pub(super) const MAX_SIZE: u64 = 256 * 1024;

/// What files of instances end in.
pub(super) const EXTENSION: &str = ".json";

/// The name of an instance's file.
pub(super) fn file_name(id: &str) -> String {
    filename::encode(id) + EXTENSION
}

#[derive(Serialize, Deserialize)]
struct Lease {
    lease: Option<LeaseRecord>,
}

impl Record {
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut json = self.instance.to_json();
        if let Some(lease) = &self.lease {
            let lease = serde_json::to_string(lease)
                .map_err(|source| Error::with_source(Kind::Internal, "cannot write a lease as JSON", source))?;
            json.truncate(json.trim_end().trim_end_matches('}').len());
            json += &format!(",\"lease\":{lease}}}");
        }
        json.push('\n');
        if json.len() as u64 > MAX_SIZE {
            let context = format!(
                "instance {} of {} has {} bytes as JSON, a file holds at most {MAX_SIZE}",
                self.instance.id(),
                self.instance.service(),
                json.len()
            );
            return Err(Error::invalid(context));
        }
        Ok(json.into_bytes())
    }

    /// Reads the file of this name in the directory of a service.
    pub(super) fn decode(bytes: &[u8], service: &ServiceName, name: &str) -> Result<Self> {
        let instance = ServiceInstance::from_json(bytes)?;
        if instance.service() != service {
            return Err(corrupt(format!("it holds an instance of {}, not of {service}", instance.service())));
        }
        let expected = file_name(instance.id().as_str());
        if expected != name {
            return Err(corrupt(format!("it holds instance {}, whose file is {expected}", instance.id())));
        }
        let Lease { lease } = serde_json::from_slice(bytes)
            .map_err(|source| Error::with_source(Kind::Corrupt, "its lease makes no sense", source))?;
        Ok(Self { instance: Arc::new(instance), lease })
    }
}

fn corrupt(why: String) -> Error {
    Error::new(Kind::Corrupt, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file_and_kratos_reads_it() {
        let instance = ServiceInstance::builder("s", "a/b").and_then(|b| b.metadata("k", "}{").build()).expect("valid");
        for lease in [
            None,
            Some(LeaseRecord {
                token: "t".into(),
                beat: 7,
                ttl_ms: 5_000,
                ended: false,
                boot: Some("b".into()),
                uptime_ms: 12,
            }),
        ] {
            let record = Record { instance: Arc::new(instance.clone()), lease };
            let bytes = record.encode().expect("small");
            let name = file_name("a/b");
            assert_eq!(Record::decode(&bytes, instance.service(), &name).expect("its own"), record);
            assert_eq!(ServiceInstance::from_json(&bytes).expect("an instance"), instance);
            assert!(Record::decode(&bytes, &"other".parse().expect("a name"), &name).is_err());
            assert!(Record::decode(&bytes, instance.service(), "c.json").is_err());
            assert!(Record::decode(&bytes[..bytes.len() - 3], instance.service(), &name).is_err());
        }
    }
}
