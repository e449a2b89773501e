//! Servers' side: labels and annotations of their own Pod.

use std::{collections::HashMap, sync::Arc, sync::MutexGuard, sync::PoisonError, time::Duration};

use tokio::time::sleep;

use super::{
    Held, Kubernetes, Mode,
    client::Client,
    codec::{Marks, Pod},
};
use crate::{
    error::{Error, Kind, Result},
    instance::ServiceInstance,
    registry::{BoxFuture, Lease, Registrar, Renewal},
    util::rng::Rng,
};

/// So often is an instance taken out again that could not be.
const TRIES: u32 = 4;

impl Kubernetes {
    /// The Pod that this runs in.
    fn own_pod(&self) -> Result<String> {
        let env = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
        self.pod.clone().or_else(|| env("POD_NAME")).or_else(|| env("HOSTNAME")).ok_or_else(|| {
            Error::invalid("which Pod this runs in is not known: set POD_NAME by the downward API, or pod=")
        })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, pod: &str, lease: &Lease) -> bool {
        self.held().get(pod).is_some_and(|held| &*held.token == lease.token())
    }

    async fn own(&self) -> Result<(Client, String)> {
        let pod = self.own_pod()?;
        Ok((self.client(None).await?, pod))
    }

    async fn enter(&self, instance: &Arc<ServiceInstance>) -> Result<Lease> {
        if self.mode == Mode::Slices {
            let context = "Kubernetes lists the Pods of a Service when they are ready: nobody registers there; \
                           mode=pods writes Kratos's labels";
            return Err(Error::new(Kind::Unsupported, context));
        }
        let marks = Marks::of(instance)?;
        let (client, pod) = self.own().await?;
        let _turn = self.shared.writing.lock().await;
        if let Some(held) = self.held().get(&pod)
            && held.service != *instance.service()
        {
            let other = &held.service;
            return Err(Error::invalid(format!("a Pod is an instance of one service, and {pod} is one of {other}")));
        }
        let there = client.pod(&pod).await.map_err(|failure| self.hint(&pod, failure.into()))?;
        if let Some(port) = Pod::read(there)?.undeclared(instance) {
            return Err(Error::invalid(format!(
                "no container of Pod {pod} declares port {port}: add it to spec.containers[].ports, for clients find \
                 only what is declared"
            )));
        }
        let mut random = Rng::from_entropy();
        let token: Arc<str> = format!("{:016x}", random.next_u64()).into();
        let lease = Lease::new(instance.clone(), self.ttl, token.clone());
        client.patch(&pod, &marks.patch()).await.map_err(|failure| self.hint(&pod, failure.into()))?;
        self.held().insert(pod, Held { token, service: instance.service().clone() });
        Ok(lease)
    }

    fn hint(&self, pod: &str, error: Error) -> Error {
        if error.kind() != Kind::NotFound || self.pod.is_some() {
            return error;
        }
        error.context(format!("there is no Pod {pod} to register: if that is not our name, set POD_NAME or pod="))
    }

    async fn check(&self, lease: &Lease) -> Result<Renewal> {
        let marks = Marks::of(lease.instance())?;
        let (client, pod) = self.own().await?;
        if !self.holds(&pod, lease) {
            return Ok(Renewal::Lost);
        }
        let there = match client.pod(&pod).await {
            Ok(there) => Pod::read(there)?,
            Err(failure) if failure.code == 404 => return Ok(Renewal::Lost),
            Err(failure) => return Err(failure.into()),
        };
        // Asked again: it may have been taken out meanwhile.
        let ours = Marks::on(&there.metadata) == marks && self.holds(&pod, lease);
        Ok(if ours { Renewal::Kept } else { Renewal::Lost })
    }

    async fn leave(&self, lease: &Lease) -> Result<()> {
        let marks = Marks::of(lease.instance())?;
        let (client, pod) = self.own().await?;
        let _turn = self.shared.writing.lock().await;
        if !self.holds(&pod, lease) {
            return Ok(());
        }
        let there = match client.pod(&pod).await {
            Ok(there) => Some(Pod::read(there)?),
            Err(failure) if failure.code == 404 => None,
            Err(failure) => return Err(failure.into()),
        };
        // Another's labels, as of a container beside us, are left as they are.
        let found = there.map(|pod| Marks::on(&pod.metadata));
        if found.is_some_and(|found| (found.app, found.id) == (marks.app, marks.id)) {
            match client.patch(&pod, &Marks::none().patch()).await {
                Err(failure) if failure.code != 404 => return Err(failure.into()),
                _ => {}
            }
        }
        self.held().remove(&pod);
        Ok(())
    }
}

impl Registrar for Kubernetes {
    fn register<'a>(&'a self, instance: &'a Arc<ServiceInstance>) -> BoxFuture<'a, Result<Lease>> {
        Box::pin(self.enter(instance))
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Renewal>> {
        Box::pin(self.check(lease))
    }

    fn deregister<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            // No lease ends by itself here, so one try is not enough.
            let mut left = self.leave(lease).await;
            for n in 1..TRIES {
                if !left.as_ref().is_err_and(Error::is_retryable) {
                    break;
                }
                sleep(Duration::from_millis(200) * n).await;
                left = self.leave(lease).await;
            }
            left
        })
    }
}
