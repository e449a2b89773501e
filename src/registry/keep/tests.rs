use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    ServiceInstance,
    registry::Update,
    testing::{FakeRegistry, Fault},
};

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<&'static str>>);

impl Observer for Recorder {
    fn on_event(&self, event: &Event<'_>) {
        let name = match event {
            Event::RegistryUnavailable { .. } => "unavailable",
            Event::RegistryRecovered { .. } => "recovered",
            Event::RecordSkipped { .. } => "skipped",
            _ => "other",
        };
        self.0.lock().expect("whole").push(name);
    }
}

impl Recorder {
    fn seen(&self) -> Vec<&'static str> {
        self.0.lock().expect("whole").clone()
    }
}

fn instance(id: &str) -> ServiceInstance {
    ServiceInstance::builder("s", id).and_then(|builder| builder.version("v").build()).expect("valid")
}

fn ids(view: &View) -> Vec<&str> {
    view.snapshot().into_iter().flat_map(Snapshot::instances).map(|instance| instance.id().as_str()).collect()
}

fn name() -> ServiceName {
    "s".parse().expect("a name")
}

async fn until(watch: &mut Watch, mut holds: impl FnMut(&View) -> bool) -> View {
    let found = async {
        loop {
            let view = watch.next().await.expect("never ends");
            if holds(&view) {
                return view;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("in time")
}

/// E13, go-zero #3180: what failed in the background ended it for good.
#[tokio::test(start_paused = true)]
async fn an_ended_watch_is_opened_anew_and_the_set_stays() {
    let (fake, recorder) = (FakeRegistry::new(), Arc::new(Recorder::default()));
    fake.set("s", [instance("a")]);
    let mut watch = Resilient::new(Arc::new(fake.clone())).with_observer(recorder.clone()).watch(&name());
    until(&mut watch, |view| ids(view) == ["a"]).await;

    fake.fault(crate::testing::Operation::Watch, Fault::Hang);
    fake.end_watches();
    let view = until(&mut watch, |view| view.outage().is_some()).await;
    assert_eq!(ids(&view), ["a"]);
    fake.until(|counts| counts.watches_opened == 2).await;
    fake.recover();
    until(&mut watch, |view| view.outage().is_none() && ids(view) == ["a"]).await;
    assert_eq!(recorder.seen(), ["unavailable", "recovered"]);
    drop(watch);
    fake.until(|counts| counts.watches_alive == 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_and_keeps_its_beginning() {
    let (fake, recorder) = (FakeRegistry::new(), Arc::new(Recorder::default()));
    let mut watch = Resilient::new(Arc::new(fake.clone())).with_observer(recorder.clone()).watch(&name());
    fake.outage(Fault::Error);
    let since = until(&mut watch, |view| view.outage().is_some()).await.outage().map(Outage::since);
    sleep(Duration::from_secs(7)).await;
    for _ in 0..20 {
        fake.end_watches();
        sleep(Duration::from_secs(50)).await;
        assert_eq!(watch.view().outage().map(Outage::since), since);
    }
    fake.recover();
    until(&mut watch, |view| view.outage().is_none()).await;
    assert_eq!(recorder.seen(), ["unavailable", "recovered"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_always_ends_is_asked_ever_less_often() {
    #[derive(Debug, Default)]
    struct Ends(AtomicUsize);
    impl Discovery for Ends {
        fn list<'a>(&'a self, _: &'a ServiceName) -> BoxFuture<'a, Result<Snapshot>> {
            Box::pin(async { Ok(Snapshot::default()) })
        }

        fn watch(&self, _: &ServiceName) -> Watch {
            match self.0.fetch_add(1, Ordering::Relaxed) % 3 {
                0 => panic!("as a bad registry may"),
                1 => Watch::driven(|_| async { panic!("as a bad registry may") }),
                _ => Watch::driven(|sender| async move { sender.send(Update::NotFound) }),
            }
        }
    }
    let ends = Arc::new(Ends::default());
    let mut watch = Resilient::new(ends.clone()).watch(&name());
    assert!(until(&mut watch, |view| view.snapshot().is_some()).await.is_not_found());
    sleep(Duration::from_secs(300)).await;
    let asked = ends.0.load(Ordering::Relaxed);
    assert!((10..40).contains(&asked), "asked {asked} times in 300 s");
}

#[tokio::test(start_paused = true)]
async fn silence_at_first_is_an_outage() {
    let fake = FakeRegistry::new();
    fake.outage(Fault::Hang);
    let begun = Instant::now();
    let mut watch = Resilient::new(Arc::new(fake.clone())).watch(&name());
    let view = watch.next().await.expect("never ends");
    assert!(view.snapshot().is_none() && view.outage().is_some());
    assert_eq!(begun.elapsed().as_secs(), 5);
    fake.set("s", [instance("a")]);
    fake.recover();
    until(&mut watch, |view| view.outage().is_none() && ids(view) == ["a"]).await;
}

/// Real time: with a paused clock, work on files makes it jump.
#[tokio::test]
async fn a_cold_start_without_the_registry_finds_the_last_set_marked_stale() {
    let directory = std::env::temp_dir().join(format!("callsign-keep-{}", std::process::id()));
    let start = |fake: &FakeRegistry, recorder: &Arc<Recorder>| {
        let resilient = Resilient::new(Arc::new(fake.clone())).with_observer(recorder.clone());
        resilient.with_snapshots(&directory, "fake://x/../y").watch(&name())
    };
    let (fake, recorder) = (FakeRegistry::new(), Arc::new(Recorder::default()));
    let file = Disk::new(&directory, "fake://x/../y").path(&name());
    fake.set("s", [instance("a"), instance("b")]);
    let mut watch = start(&fake, &recorder);
    until(&mut watch, |view| ids(view) == ["a", "b"]).await;
    for _ in 0..500 {
        if file.exists() {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    drop(watch);

    fake.outage(Fault::Error);
    let mut watch = start(&fake, &recorder);
    let view = until(&mut watch, |view| view.snapshot().is_some()).await;
    assert_eq!(ids(&view), ["a", "b"]);
    assert!(view.outage().is_some());
    fake.set("s", [instance("c")]);
    fake.recover();
    let view = until(&mut watch, |view| view.outage().is_none()).await;
    assert_eq!(ids(&view), ["c"]);
    drop(watch);
    assert!(!recorder.seen().contains(&"skipped"));

    let whole = std::fs::read(&file).expect("written");
    for broken in [&whole[..whole.len() - 9], b"", b"\n", b"callsign snapshot 1 0 other\n", b"\xff\n"] {
        std::fs::write(&file, broken).expect("writable");
        let (fake, recorder) = (FakeRegistry::new(), Arc::new(Recorder::default()));
        fake.outage(Fault::Error);
        let view = until(&mut start(&fake, &recorder), |view| view.outage().is_some()).await;
        assert!(view.snapshot().is_none());
        assert_eq!(recorder.seen(), ["skipped", "unavailable"]);
    }
    std::fs::remove_dir_all(&directory).expect("there");
}
