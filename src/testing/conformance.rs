//! What every registry must do, as a suite that its author can run.

use std::{collections::BTreeSet, fmt::Display, sync::Arc, time::Duration};

use futures_util::future::{join, join_all};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    instance::{Address, Scheme, ServiceInstance, ServiceName},
    registry::{BoxFuture, Lease, Registrar, Registry, Renewal, View, Watch},
};

/// Runs the suite against a registry, nearly all rows at once, each with services of its own.
///
/// Each call of `open` gives a handle on the same registry, as another process would have it. The
/// TTL of its leases should be short, some seconds: some rows wait for several of them. Runs on
/// Tokio's clock, which may be paused where the registry goes by it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use std::time::Duration;
/// use callsign::{registry::Memory, testing::conformance};
///
/// let memory = Memory::new().with_ttl(Duration::from_secs(2));
/// conformance::run(|| memory.clone().into()).await;
/// # }
/// ```
///
/// # Panics
///
/// Panics with the rows that fail and why.
pub async fn run(open: impl Fn() -> Registry) {
    let wrong = check(open).await;
    assert!(wrong.is_empty(), "the registry is not as it must be:\n{}", wrong.join("\n"));
}

/// Like [`run`], and returns what is wrong, a line a row.
pub async fn check(open: impl Fn() -> Registry) -> Vec<String> {
    let rows = ROWS.iter().enumerate().map(|(n, (name, row))| {
        let subject = Subject { servers: open(), clients: open(), prefix: format!("conformance-{n}") };
        async move {
            let bound = Duration::from_secs(120);
            match timeout(bound, row(subject)).await {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(format!("- {name}: {why}")),
                Err(_) => Some(format!("- {name}: not done after {bound:?}")),
            }
        }
    });
    let mut rows: Vec<_> = rows.collect();
    // The last one, with its crowd, would hold the others up past their TTLs.
    let last = rows.pop();
    let mut wrong: Vec<_> = join_all(rows).await.into_iter().flatten().collect();
    if let Some(last) = last {
        wrong.extend(last.await);
    }
    wrong
}

type Verdict = Result<(), String>;
type Row = fn(Subject) -> BoxFuture<'static, Verdict>;

const ROWS: [(&str, Row); 13] = [
    ("what is registered is found, as it was", |s| Box::pin(s.found_as_it_was())),
    ("none is a set too, and 0 to 20 to 0 is followed", |s| Box::pin(s.none_is_a_set())),
    ("who comes late sees the same", |s| Box::pin(s.late())),
    ("a renewed lease outlives its TTL", |s| Box::pin(s.renewed())),
    ("a lease nobody renews ends", |s| Box::pin(s.abandoned())),
    ("a lease that is gone is lost, not kept", |s| Box::pin(s.lost())),
    ("the same id registers again, by itself or by its successor", |s| Box::pin(s.takeover())),
    ("an update of an instance is seen", |s| Box::pin(s.updated())),
    ("a name that begins like another is another", |s| Box::pin(s.prefixes())),
    ("two services of one process do not meet", |s| Box::pin(s.two_services())),
    ("names and ids of all kinds are kept or refused, never confused", |s| Box::pin(s.odd_names())),
    ("deregistering goes before a renewal in flight", |s| Box::pin(s.deregister_and_renew())),
    ("a thousand instances come, and half of them go", |s| Box::pin(s.many())),
];

struct Subject {
    servers: Registry,
    clients: Registry,
    prefix: String,
}

/// How late a client may hear of a change.
const LATE: Duration = Duration::from_secs(10);

fn ensure(holds: bool, why: impl Display) -> Verdict {
    if holds { Ok(()) } else { Err(why.to_string()) }
}

fn instance(service: &str, id: &str) -> Arc<ServiceInstance> {
    let address = Address::tcp(Scheme::Grpc, "10.1.2.3", 9000);
    let built = ServiceInstance::builder(service, id).and_then(|builder| builder.address(address?).build());
    Arc::new(expect(built))
}

#[allow(clippy::panic, reason = "a slip of this suite's own")]
fn expect<T>(result: crate::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("the conformance suite itself is wrong: {error:#}"))
}

fn ids(view: &View) -> Vec<&str> {
    view.snapshot().into_iter().flat_map(|set| set.instances()).map(|instance| instance.id().as_str()).collect()
}

/// Waits until a watch shows exactly these ids.
async fn shows(watch: &mut Watch, wanted: &[&str]) -> Verdict {
    let what = if wanted.len() > 30 { format!("{} ids", wanted.len()) } else { format!("the ids {wanted:?}") };
    shows_where(watch, &what, |view| view.snapshot().is_some() && ids(view) == wanted).await
}

async fn shows_where(watch: &mut Watch, what: &str, mut holds: impl FnMut(&View) -> bool) -> Verdict {
    let until = async {
        loop {
            match watch.next().await {
                Some(view) if holds(&view) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    };
    match timeout(LATE, until).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("the watch ended before it showed {what}")),
        Err(_) => Err(format!("no watch shows {what} after {LATE:?}; it shows {} ids", ids(&watch.view()).len())),
    }
}

impl Subject {
    fn name(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.prefix)
    }

    fn watch(&self, service: &str) -> Watch {
        self.clients.discovery().watch(&expect(service.parse()))
    }

    fn registrar(&self) -> Result<&Arc<dyn Registrar>, String> {
        self.servers.registrar().map_err(|error| format!("{error:#}"))
    }

    async fn register(&self, instance: &Arc<ServiceInstance>) -> Result<Lease, String> {
        self.registrar()?.register(instance).await.map_err(|error| format!("cannot register: {error:#}"))
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewal, String> {
        self.registrar()?.renew(lease).await.map_err(|error| format!("cannot renew: {error:#}"))
    }

    async fn deregister(&self, lease: &Lease) -> Verdict {
        self.registrar()?.deregister(lease).await.map_err(|error| format!("cannot deregister: {error:#}"))
    }

    async fn list(&self, service: &ServiceName) -> Result<Vec<Arc<ServiceInstance>>, String> {
        let listed = self.clients.discovery().list(service).await;
        listed.map(|set| set.instances().to_vec()).map_err(|error| format!("cannot list: {error:#}"))
    }

    async fn found_as_it_was(self) -> Verdict {
        let service = self.name("");
        let built = ServiceInstance::builder(&service, "one").and_then(|builder| {
            builder
                .version("v1.2.3")
                .address("grpc://10.0.0.5:9000".parse()?)
                .address("http://[2001:db8::1]:8000".parse()?)
                .metadata("weight", "250")
                .metadata("zone", "eu-1a")
                .metadata("quotes \" and & < >", "ünïcode \u{2028}")
                .metadata("empty", "")
                .build()
        });
        let instance = Arc::new(expect(built));
        let lease = self.register(&instance).await?;
        ensure(!lease.ttl().is_zero(), "its TTL is 0")?;
        ensure(lease.instance() == &instance, "the lease is on another instance")?;
        let mut watch = self.watch(&service);
        shows(&mut watch, &["one"]).await?;
        let seen = watch.view().snapshot().map(|set| set.instances().to_vec()).unwrap_or_default();
        ensure(seen.first() == Some(&instance), format!("watched {seen:?} with other metadata than was registered"))?;
        let listed = self.list(instance.service()).await?;
        ensure(listed == [instance.clone()], format!("listed {listed:?}"))?;
        self.deregister(&lease).await?;
        shows(&mut watch, &[]).await?;
        ensure(self.list(instance.service()).await?.is_empty(), "it is listed after it was deregistered")
    }

    async fn none_is_a_set(self) -> Verdict {
        let service = self.name("");
        let mut watch = self.watch(&service);
        shows(&mut watch, &[]).await?;
        ensure(self.list(&expect(service.parse())).await?.is_empty(), "something is listed that nobody registered")?;
        let ids: BTreeSet<_> = (0..20).map(|n| format!("i{n:02}")).collect();
        let mut leases = Vec::new();
        for id in &ids {
            leases.push(self.register(&instance(&service, id)).await?);
        }
        shows(&mut watch, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        for lease in &leases {
            self.deregister(lease).await?;
        }
        shows(&mut watch, &[]).await?;
        leases.truncate(0);
        self.register(&instance(&service, "back")).await?;
        shows(&mut watch, &["back"]).await
    }

    async fn late(self) -> Verdict {
        let service = self.name("");
        let mut early = self.watch(&service);
        let lease = self.register(&instance(&service, "a")).await?;
        shows(&mut early, &["a"]).await?;
        shows(&mut early.clone(), &["a"]).await?;
        shows(&mut self.watch(&service), &["a"]).await?;
        drop(early);
        self.deregister(&lease).await?;
        shows(&mut self.watch(&service), &[]).await
    }

    async fn renewed(self) -> Verdict {
        let service = self.name("");
        let lease = self.register(&instance(&service, "a")).await?;
        let mut watch = self.watch(&service);
        shows(&mut watch, &["a"]).await?;
        let until = Instant::now() + lease.ttl() * 3;
        while Instant::now() < until {
            sleep(lease.ttl() / 3).await;
            ensure(self.renew(&lease).await? == Renewal::Kept, "a lease renewed at a third of its TTL was lost")?;
            ensure(ids(&watch.view()) == ["a"], "it was not seen for a moment though it was renewed")?;
        }
        ensure(self.list(lease.service()).await?.len() == 1, "it is not listed")
    }

    async fn abandoned(self) -> Verdict {
        let service = self.name("");
        let mut watch = self.watch(&service);
        let lease = self.register(&instance(&service, "a")).await?;
        shows(&mut watch, &["a"]).await?;
        sleep(lease.ttl() / 2).await;
        ensure(ids(&watch.view()) == ["a"], "it is gone after half its TTL")?;
        sleep(lease.ttl() / 2).await;
        shows(&mut watch, &[]).await?;
        ensure(self.list(lease.service()).await?.is_empty(), "it is listed after its end")
    }

    async fn lost(self) -> Verdict {
        let service = self.name("");
        let one = self.register(&instance(&service, "a")).await?;
        self.deregister(&one).await?;
        ensure(self.renew(&one).await? == Renewal::Lost, "a deregistered lease was renewed")?;
        self.deregister(&one).await?;
        let two = self.register(&instance(&service, "a")).await?;
        ensure(self.renew(&two).await? == Renewal::Kept, "a new lease was lost")?;
        let mut watch = self.watch(&service);
        shows(&mut watch, &["a"]).await
    }

    async fn takeover(self) -> Verdict {
        let service = self.name("");
        let old = self.register(&instance(&service, "a")).await?;
        let moved = instance(&service, "a").to_builder().version("new").build();
        let moved = Arc::new(expect(moved));
        let new = self.register(&moved).await?;
        ensure(self.renew(&old).await? == Renewal::Lost, "two hold the same id")?;
        self.deregister(&old).await?;
        let mut watch = self.watch(&service);
        shows(&mut watch, &["a"]).await?;
        let seen = self.list(new.service()).await?;
        ensure(seen == [moved], format!("the old owner's end took the new one out, or its data: {seen:?}"))?;
        ensure(self.renew(&new).await? == Renewal::Kept, "the new owner's lease is lost")
    }

    async fn updated(self) -> Verdict {
        let service = self.name("");
        let one = instance(&service, "a");
        self.register(&one).await?;
        let mut watch = self.watch(&service);
        shows(&mut watch, &["a"]).await?;
        self.register(&Arc::new(expect(one.to_builder().weight(7).build()))).await?;
        let heavier = |view: &View| {
            let set = view.snapshot().map(|set| set.instances().to_vec()).unwrap_or_default();
            set.len() == 1 && set[0].weight().get() == 7
        };
        shows_where(&mut watch, "the new weight", heavier).await
    }

    async fn prefixes(self) -> Verdict {
        let (short, long) = (self.name(""), self.name("-long"));
        let mut watch = self.watch(&short);
        self.register(&instance(&long, "l")).await?;
        self.register(&instance(&short, "s")).await?;
        shows(&mut watch, &["s"]).await?;
        shows(&mut self.watch(&long), &["l"]).await?;
        ensure(self.list(&expect(short.parse())).await?.len() == 1, "a list of one lists the other")
    }

    async fn two_services(self) -> Verdict {
        let (one, two) = (self.name("-one"), self.name("-two"));
        let first = self.register(&instance(&one, "same")).await?;
        self.register(&instance(&two, "same")).await?;
        self.deregister(&first).await?;
        shows(&mut self.watch(&one), &[]).await?;
        shows(&mut self.watch(&two), &["same"]).await
    }

    async fn odd_names(self) -> Verdict {
        let service = self.name(".odd_Name");
        let mut kept = BTreeSet::new();
        for id in
            ["plain", "UPPER", "upper", "with space", "a/b", "..", "a..b", "%2e%2e", "ü", "a@b:1", "-", "a\\b", "x~y"]
        {
            // What is refused is refused clearly; what is not must be found under its very name.
            let Ok(builder) = ServiceInstance::builder(&service, id) else { continue };
            let one = Arc::new(expect(builder.build()));
            match self.registrar()?.register(&one).await {
                Ok(_) => drop(kept.insert(id)),
                Err(error) => {
                    let clear = error.kind() == crate::Kind::InvalidInput;
                    ensure(clear, format!("{id:?} is refused by {error:?}, not as invalid input"))?;
                }
            }
        }
        ensure(kept.contains("plain"), "the plainest id is refused")?;
        shows(&mut self.watch(&service), &kept.iter().copied().collect::<Vec<_>>()).await
    }

    async fn deregister_and_renew(self) -> Verdict {
        let service = self.name("");
        for _ in 0..50 {
            let lease = self.register(&instance(&service, "a")).await?;
            let (renewed, deregistered) = join(self.renew(&lease), self.deregister(&lease)).await;
            renewed?;
            deregistered?;
            let left = self.list(lease.service()).await?;
            ensure(left.is_empty(), "a renewal in flight brought a deregistered instance back")?;
        }
        Ok(())
    }

    async fn many(self) -> Verdict {
        let service = self.name("");
        let mut watch = self.watch(&service);
        // As many as there is time for: what takes longer than a TTL to take them in loses the first.
        let (begun, mut leases) = (Instant::now(), Vec::new());
        while leases.len() < 1_000 && leases.first().is_none_or(|lease: &Lease| begun.elapsed() < lease.ttl() / 3) {
            let next: Vec<_> = (0..20).map(|n| instance(&service, &format!("i{:03}", leases.len() + n))).collect();
            for lease in join_all(next.iter().map(|one| self.register(one))).await {
                leases.push(lease?);
            }
        }
        ensure(leases.len() >= 100, format!("only {} were registered in a third of the TTL", leases.len()))?;
        let every: Vec<_> = leases.iter().map(|lease| lease.id().as_str()).collect();
        shows(&mut watch, &every).await?;
        let (stay, go): (Vec<_>, Vec<_>) = leases.iter().enumerate().partition(|(n, _)| n % 2 == 0);
        let (renewed, gone) = join(
            join_all(stay.iter().map(|(_, one)| self.renew(one))),
            join_all(go.iter().map(|(_, one)| self.deregister(one))),
        )
        .await;
        for renewed in renewed {
            ensure(renewed? == Renewal::Kept, "a lease among many was lost")?;
        }
        gone.into_iter().collect::<Verdict>()?;
        shows(&mut watch, &every.into_iter().step_by(2).collect::<Vec<_>>()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{registry::Memory, testing::FakeRegistry};

    #[tokio::test(start_paused = true)]
    async fn tells_a_registry_from_one_that_only_looks_like_it() {
        let fake = FakeRegistry::new().with_ttl(Duration::from_secs(2));
        let wrong = check(|| fake.clone().into()).await;
        assert_eq!(wrong.len(), 1, "{wrong:#?}");
        assert!(wrong[0].contains("a lease nobody renews ends"), "its leases never end: {wrong:#?}");
        let apart = check(|| Memory::new().into()).await;
        assert!(apart.len() > ROWS.len() / 2, "where servers and clients do not meet nearly all fails: {apart:#?}");
    }
}
