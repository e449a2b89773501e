//! What is registered: a running instance of a service.

mod address;
mod json;
mod name;

use std::{collections::BTreeMap, fmt, num::NonZeroU32, sync::Arc};

pub(crate) use self::address::split_host_port;
pub use self::{
    address::{Address, Scheme},
    name::{InstanceId, ServiceName},
};

/// One running instance of a service: what a registry stores.
///
/// Everything but [`Status`] is what [Kratos](https://go-kratos.dev) stores, so weight and
/// locality live in the metadata: `weight`, `region`, `zone` and `sub_zone`.
///
/// ```
/// use callsign::{Address, ServiceInstance};
///
/// let instance = ServiceInstance::builder("greeter", "greeter-1")?
///     .version("v1.4.0")
///     .address("grpc://10.0.0.5:9000".parse::<Address>()?)
///     .metadata("zone", "eu-1a")
///     .weight(200)
///     .build()?;
/// assert_eq!(instance.weight().get(), 200);
/// assert_eq!(instance.locality().zone(), Some("eu-1a"));
/// # Ok::<(), callsign::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceInstance {
    id: InstanceId,
    service: ServiceName,
    version: Arc<str>,
    metadata: BTreeMap<Arc<str>, Arc<str>>,
    addresses: Arc<[Address]>,
    status: Status,
}

/// What the registry says of an instance's fitness to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Status {
    /// It serves, as far as the registry knows.
    #[default]
    Up,
    /// It serves, but something is amiss: take it where nothing better is left.
    Degraded,
    /// It finishes what it has and wants nothing new.
    Draining,
    /// It does not serve.
    Down,
}

/// Where an instance runs; each part empty where unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Locality<'a> {
    region: Option<&'a str>,
    zone: Option<&'a str>,
    sub_zone: Option<&'a str>,
}

impl<'a> Locality<'a> {
    /// The region, such as `eu-west-1`.
    pub fn region(&self) -> Option<&'a str> {
        self.region
    }

    /// The zone within the region, such as `eu-west-1a`.
    pub fn zone(&self) -> Option<&'a str> {
        self.zone
    }

    /// The part of the zone, such as a rack.
    pub fn sub_zone(&self) -> Option<&'a str> {
        self.sub_zone
    }
}

impl ServiceInstance {
    /// The weight of an instance that names none, as in Kratos.
    pub const DEFAULT_WEIGHT: NonZeroU32 = NonZeroU32::new(100).expect("not zero");

    /// The heaviest weight there is; the metadata of an instance cannot say more.
    pub const MAX_WEIGHT: u32 = 1_000_000;

    /// Starts an instance of `service` with an identity of its own.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if the name or the id is none; see [`ServiceName`] and [`InstanceId`].
    pub fn builder(service: impl AsRef<str>, id: impl AsRef<str>) -> crate::Result<InstanceBuilder> {
        Ok(InstanceBuilder {
            id: id.as_ref().parse()?,
            service: service.as_ref().parse()?,
            version: Arc::from(""),
            metadata: BTreeMap::new(),
            addresses: Vec::new(),
            status: Status::Up,
        })
    }

    /// Starts a builder from what this instance is.
    pub fn to_builder(&self) -> InstanceBuilder {
        InstanceBuilder {
            id: self.id.clone(),
            service: self.service.clone(),
            version: self.version.clone(),
            metadata: self.metadata.clone(),
            addresses: self.addresses.to_vec(),
            status: self.status,
        }
    }

    /// The identity, unique among the instances of the service.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// The service that this is an instance of.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The version it runs; empty where it names none.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What else it says of itself, by key.
    pub fn metadata(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.metadata
    }

    /// Where it can be reached, in its own order.
    pub fn addresses(&self) -> &Arc<[Address]> {
        &self.addresses
    }

    /// What the registry says of its fitness.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Its share of traffic relative to others: metadata `weight`, a decimal number from 1 to
    /// [`MAX_WEIGHT`](Self::MAX_WEIGHT); 100 where there is none or it is no such number.
    pub fn weight(&self) -> NonZeroU32 {
        self.metadata
            .get("weight")
            .and_then(|weight| weight.parse::<NonZeroU32>().ok())
            .filter(|weight| weight.get() <= Self::MAX_WEIGHT)
            .unwrap_or(Self::DEFAULT_WEIGHT)
    }

    /// Where it runs: metadata `region`, `zone` and `sub_zone`.
    pub fn locality(&self) -> Locality<'_> {
        let part = |key| self.metadata.get(key).map(|value| &**value).filter(|value| !value.is_empty());
        Locality { region: part("region"), zone: part("zone"), sub_zone: part("sub_zone") }
    }
}

impl fmt::Debug for ServiceInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceInstance")
            .field("id", &self.id)
            .field("service", &self.service)
            .field("version", &self.version)
            .field("addresses", &self.addresses)
            .field("status", &self.status)
            // Metadata is the application's: it may hold what a log must not.
            .field("metadata", &self.metadata.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Builds a [`ServiceInstance`].
#[derive(Debug, Clone)]
#[must_use]
pub struct InstanceBuilder {
    id: InstanceId,
    service: ServiceName,
    version: Arc<str>,
    metadata: BTreeMap<Arc<str>, Arc<str>>,
    addresses: Vec<Address>,
    status: Status,
}

impl InstanceBuilder {
    /// Adds an address behind those it has.
    pub fn address(mut self, address: Address) -> Self {
        self.addresses.push(address);
        self
    }

    /// Adds addresses behind those it has.
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = Address>) -> Self {
        self.addresses.extend(addresses);
        self
    }

    /// Adds the addresses that a registry tells of, but for those that no client should dial.
    ///
    /// # Errors
    ///
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) if there are only such.
    pub(crate) fn found_at(mut self, addresses: impl IntoIterator<Item = Address>) -> crate::Result<Self> {
        let mut forbidden = None;
        for address in addresses {
            match address.forbidden() {
                None => self.addresses.push(address),
                Some(why) => forbidden = Some((address, why)),
            }
        }
        match forbidden {
            Some((address, why)) if self.addresses.is_empty() => {
                Err(crate::Error::new(crate::Kind::Corrupt, format!("{address} is {why}: no client dials it")))
            }
            _ => Ok(self),
        }
    }

    /// Sets the version. Default: none.
    pub fn version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.version = version.into();
        self
    }

    /// Sets one entry of the metadata.
    pub fn metadata(mut self, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the weight. Default 100.
    pub fn weight(self, weight: u32) -> Self {
        self.metadata("weight", weight.to_string())
    }

    /// Sets the zone. Default: none.
    pub fn zone(self, zone: impl Into<Arc<str>>) -> Self {
        self.metadata("zone", zone)
    }

    /// Sets the status. Default [`Status::Up`].
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Builds the instance.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if what was set exceeds the limits that keep a registry's other
    /// readers safe: 64 addresses, 256 entries of metadata, 64 KiB in all.
    pub fn build(self) -> crate::Result<ServiceInstance> {
        let text =
            |map: &BTreeMap<Arc<str>, Arc<str>>| map.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let over = |what: &str, is: usize, most: usize| {
            crate::Error::invalid(format!(
                "instance {} of {}: {what} is {is}, at most {most} fit",
                self.id, self.service
            ))
        };
        if self.addresses.len() > MAX_ADDRESSES {
            return Err(over("the number of addresses", self.addresses.len(), MAX_ADDRESSES));
        }
        if self.metadata.len() > MAX_METADATA {
            return Err(over("the number of metadata entries", self.metadata.len(), MAX_METADATA));
        }
        let size = text(&self.metadata) + self.version.len();
        if size > MAX_TEXT {
            return Err(over("the length of metadata and version", size, MAX_TEXT));
        }
        Ok(ServiceInstance {
            id: self.id,
            service: self.service,
            version: self.version,
            metadata: self.metadata,
            addresses: self.addresses.into(),
            status: self.status,
        })
    }
}

const MAX_ADDRESSES: usize = 64;
const MAX_METADATA: usize = 256;
const MAX_TEXT: usize = 64 * 1024;
