//! `static://`: a fixed list of addresses.

use std::sync::Arc;

use super::{BoxFuture, Discovery, Registry, Snapshot, Update, Watch};
use crate::{
    error::{Error, Result},
    instance::{Address, Scheme, ServiceInstance, ServiceName, split_host_port},
    target::RegistryUri,
};

/// A fixed list of addresses, which are the instances of every service that is asked for.
///
/// Each address is one instance, its id what one dials, such as `10.0.0.5:9000`. A server cannot
/// register here.
#[derive(Debug, Clone)]
pub struct Fixed {
    addresses: Arc<[Address]>,
}

impl Fixed {
    /// A list of these addresses.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if there is none, or if one cannot be the id of an instance.
    pub fn new(addresses: impl IntoIterator<Item = Address>) -> Result<Self> {
        let addresses: Arc<[Address]> = addresses.into_iter().collect();
        if addresses.is_empty() {
            return Err(Error::invalid("a fixed list needs an address, as in static://10.0.0.5:9000,10.0.0.6:9000"));
        }
        let fixed = Self { addresses };
        fixed.instances("any").map(|_| fixed)
    }

    /// Opens `static://a:1,b:2`.
    pub(crate) fn open(uri: &RegistryUri) -> Result<Registry> {
        uri.expect_params(&[])?;
        let wrong = |why: String| {
            Error::invalid(format!("{uri:?} is no fixed list: {why}; write it as static://10.0.0.5:9000,[::1]:9000"))
        };
        if !uri.path().is_empty() {
            return Err(wrong(format!("it has the path {:?}", uri.path())));
        }
        let read = |text: &str| {
            let (host, port) =
                split_host_port(text.trim()).ok_or_else(|| wrong(format!("{text:?} lacks a host and a port")))?;
            Address::tcp(Scheme::Grpc, host, port).map_err(|error| wrong(error.to_string()))
        };
        let parts = uri.authority().split(',').filter(|part| !part.trim().is_empty());
        let addresses = parts.map(read).collect::<Result<Vec<_>>>()?;
        if addresses.is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        Ok(Registry::read_only(format!("static://{}", uri.authority()), Arc::new(Self::new(addresses)?)))
    }

    fn instances(&self, service: &str) -> Result<Vec<Arc<ServiceInstance>>> {
        let instance = |address: &Address| {
            let builder = ServiceInstance::builder(service, address.authority().to_string())?;
            builder.address(address.clone()).build().map(Arc::new)
        };
        self.addresses.iter().map(instance).collect()
    }

    fn snapshot(&self, service: &ServiceName) -> Result<Snapshot> {
        self.instances(service.as_str()).map(Snapshot::new)
    }
}

impl From<Fixed> for Registry {
    fn from(fixed: Fixed) -> Self {
        Self::read_only("static://", Arc::new(fixed))
    }
}

impl Discovery for Fixed {
    fn list<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move { self.snapshot(service) })
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let update = self.snapshot(service).map_or_else(Update::Unavailable, Update::Instances);
        Watch::driven(|sender| async move {
            sender.send(update);
            sender.closed().await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(uri: &str) -> Result<Registry> {
        Fixed::open(&uri.parse()?)
    }

    #[tokio::test]
    async fn is_every_service() {
        let registry = open("static://127.0.0.1:1,[::1]:2,host.example:3").expect("a list");
        for service in ["greeter", "127.0.0.1:1"] {
            let mut watch = registry.discovery().watch(&service.parse().expect("a name"));
            let view = watch.next().await.expect("open");
            let instances = view.snapshot().expect("at once").instances();
            let shown: Vec<_> =
                instances.iter().map(|instance| format!("{} {}", instance.id(), instance.addresses()[0])).collect();
            assert_eq!(
                shown,
                ["127.0.0.1:1 grpc://127.0.0.1:1", "[::1]:2 grpc://[::1]:2", "host.example:3 grpc://host.example:3"]
            );
            assert_eq!(instances[0].service().as_str(), service);
        }
        assert_eq!(registry.registrar().expect_err("read only").kind(), crate::Kind::Unsupported);
    }

    #[test]
    fn refuses_what_is_no_list() {
        for (uri, why) in [
            ("static://", "it is empty"),
            ("static://,", "it is empty"),
            ("static://host", "lacks a host and a port"),
            ("static://host:0", "the port is 0"),
            ("static://a:1,b:x", "\"b:x\" lacks"),
            ("static://::1:1", "lacks"),
            ("static://a b:1", "neither a name nor"),
            ("static://a:1/path/more", "the path"),
            ("static://a:1?ttl=1s", "ttl"),
        ] {
            let error = open(uri).expect_err(uri);
            assert!(format!("{error:#}").contains(why), "{uri}: {error:#}");
        }
    }
}
