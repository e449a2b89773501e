//! The embedded registries: conformance, bad input, owners that die, directories that vanish.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use callsign::{
    Kind, ServiceInstance, ServiceName,
    observe::{Event, Observer},
    registry::{Discovery, File, Memory, Registrar, Registry, Renewal, Watch},
    testing::conformance,
};
use tokio::time::sleep;

#[path = "support/dir.rs"]
mod dir;

use dir::TempDir;

fn instance(id: &str) -> Arc<ServiceInstance> {
    Arc::new(ServiceInstance::builder("s", id).unwrap().address("grpc://127.0.0.1:9".parse().unwrap()).build().unwrap())
}

fn service() -> ServiceName {
    "s".parse().unwrap()
}

fn seen(watch: &Watch) -> Vec<String> {
    let view = watch.view();
    view.snapshot().into_iter().flat_map(|set| set.instances()).map(|one| one.id().to_string()).collect()
}

async fn until(watch: &mut Watch, ids: &[&str]) {
    let shown = async {
        while seen(watch) != ids {
            watch.next().await.unwrap();
        }
    };
    let shown = tokio::time::timeout(Duration::from_secs(10), shown).await;
    assert!(shown.is_ok(), "wanted {ids:?}, there is {:?}", watch.view());
}

async fn until_outage(watch: &mut Watch, outage: bool) {
    let told = async {
        while watch.view().outage().is_some() != outage {
            watch.next().await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), told).await.is_ok(), "{:?}", watch.view());
}

#[tokio::test(start_paused = true)]
async fn memory_conforms() {
    let memory = Memory::new().with_ttl(Duration::from_secs(3));
    conformance::run(|| memory.clone().into()).await;
}

#[tokio::test]
async fn file_conforms() {
    let dir = TempDir::new();
    conformance::run(|| File::new(dir.path()).with_ttl(Duration::from_secs(4)).into()).await;
    for entry in fs::read_dir(dir.path()).unwrap() {
        for file in fs::read_dir(entry.unwrap().path()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains(".tmp") && !name.contains(".clock"), "{name} was left");
        }
    }
}

#[tokio::test]
async fn file_conforms_as_it_is_opened() {
    let dir = TempDir::new();
    let uri = format!("file://{}?ttl=4s", dir.path().display());
    conformance::run(|| callsign::registry(&uri).unwrap()).await;
}

#[derive(Debug, Default)]
struct Skipped(Mutex<Vec<String>>);

impl Observer for Skipped {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::RecordSkipped { record, error, .. } = event {
            self.0.lock().unwrap().push(format!("{record}: {error:#}"));
        }
    }
}

#[tokio::test]
async fn hostile_files_are_skipped_counted_and_told_once() {
    let dir = TempDir::new();
    let skipped = Arc::new(Skipped::default());
    let file = File::new(dir.path()).with_observer(skipped.clone()).with_ttl(Duration::from_secs(60));
    let lease = file.register(&instance("good")).await.unwrap();
    let at = dir.path().join("s");
    let good = fs::read(at.join("good.json")).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();

    fs::write(at.join("torn.json"), &good[..good.len() / 2]).unwrap();
    fs::write(at.join("empty.json"), "").unwrap();
    fs::write(at.join("null.json"), "null").unwrap();
    fs::write(at.join("deep.json"), "[".repeat(100_000)).unwrap();
    fs::write(at.join("bytes.json"), [0xff, 0xfe, 0]).unwrap();
    fs::write(at.join("long.json"), vec![b' '; 300 * 1024]).unwrap();
    fs::write(at.join("copy.json"), &good).unwrap();
    fs::write(at.join("other.json"), text.replace("\"s\"", "\"t\"").replace("good", "other")).unwrap();
    fs::write(at.join("lease.json"), r#"{"id":"lease","name":"s","lease":{"token":7}}"#).unwrap();
    fs::write(at.join("README"), "hello").unwrap();
    fs::create_dir(at.join("dir.json")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at.join("link.json")).unwrap();
    assert!(Command::new("mkfifo").arg(at.join("pipe.json")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(at.join("sock.json")).unwrap();
    fs::write(at.join("hand.json"), r#"{"id":"hand","name":"s","endpoints":["grpc://127.0.0.1:1"]}"#).unwrap();
    const BAD: usize = 14;

    let mut watch = file.watch(&service());
    until(&mut watch, &["good", "hand"]).await;
    assert_eq!(watch.view().snapshot().unwrap().skipped(), BAD);
    assert_eq!(file.list(&service()).await.unwrap().skipped(), BAD);
    for _ in 0..5 {
        assert_eq!(file.renew(&lease).await.unwrap(), Renewal::Kept);
        sleep(Duration::from_millis(50)).await;
    }
    {
        let told = skipped.0.lock().unwrap();
        assert_eq!(told.len(), BAD, "each once: {told:#?}");
        assert!(told.iter().any(|line| line.contains("copy.json") && line.contains("good.json")), "{told:#?}");
    }
    // One that was torn is whole the next time.
    fs::write(at.join("torn.json"), text.replace("good", "torn")).unwrap();
    until(&mut watch, &["good", "hand", "torn"]).await;
    fs::remove_file(at.join("hand.json")).unwrap();
    until(&mut watch, &["good", "torn"]).await;
    fs::write(at.join("good.json"), "{").unwrap();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(seen(&watch), ["good", "torn"], "a lease outlives its torn file");
    assert_eq!(file.renew(&lease).await.unwrap(), Renewal::Lost);
    file.register(&instance("good")).await.unwrap();
    until(&mut watch, &["good", "torn"]).await;
}

#[tokio::test]
async fn nothing_escapes_the_directory() {
    let dir = TempDir::new();
    let root = dir.path().join("root");
    let file = File::new(&root);
    for (service, id) in [("../../etc", "x"), ("..", ".."), ("a/b", "../c"), (".hidden", "/abs"), ("x", "..\\..\\y")] {
        let Ok(builder) = ServiceInstance::builder(service, id) else { continue };
        let one = Arc::new(builder.build().unwrap());
        file.register(&one).await.unwrap();
        assert_eq!(file.list(one.service()).await.unwrap().instances(), [one]);
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["root"]);
    for entry in fs::read_dir(&root).unwrap() {
        let entry = entry.unwrap();
        assert!(entry.file_type().unwrap().is_dir());
        assert!(fs::read_dir(entry.path()).unwrap().all(|file| file.unwrap().file_type().unwrap().is_file()));
    }
}

#[tokio::test]
async fn a_directory_that_vanishes_is_an_outage_and_removes_nobody() {
    let dir = TempDir::new();
    let root = dir.path().join("root");
    let away = dir.path().join("away");
    let file = File::new(&root).with_ttl(Duration::from_secs(3));
    let mut watch = file.watch(&service());
    until_outage(&mut watch, true).await;
    assert!(format!("{:?}", watch.view()).contains("no directory"), "{:?}", watch.view());
    assert!(file.list(&service()).await.is_err());

    let (a, b) = (file.register(&instance("a")).await.unwrap(), file.register(&instance("b")).await.unwrap());
    until(&mut watch, &["a", "b"]).await;
    assert!(watch.view().outage().is_none());

    // Put away and back: nobody goes, though it takes longer than the TTL.
    fs::rename(&root, &away).unwrap();
    until_outage(&mut watch, true).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(seen(&watch), ["a", "b"]);
    assert_eq!(file.renew(&a).await.unwrap(), Renewal::Lost);
    fs::rename(&away, &root).unwrap();
    until_outage(&mut watch, false).await;
    assert_eq!(seen(&watch), ["a", "b"]);
    assert_eq!(file.renew(&a).await.unwrap(), Renewal::Kept);
    assert_eq!(file.renew(&b).await.unwrap(), Renewal::Kept);

    // Removed for good: who registers again stays, who does not is gone after his TTL.
    fs::remove_dir_all(&root).unwrap();
    until_outage(&mut watch, true).await;
    assert_eq!(file.renew(&a).await.unwrap(), Renewal::Lost);
    let a = file.register(&instance("a")).await.unwrap();
    until_outage(&mut watch, false).await;
    assert_eq!(seen(&watch), ["a", "b"]);
    let renewing = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(file.renew(&a).await.unwrap(), Renewal::Kept);
        }
    };
    tokio::select! {
        () = until(&mut watch, &["a"]) => {}
        () = renewing => {}
    }

    // The service's directory alone.
    fs::remove_dir_all(root.join("s")).unwrap();
    until_outage(&mut watch, true).await;
    assert_eq!(seen(&watch), ["a"]);
}

/// The system's thread, which tells of changes, and a watch that comes or goes, once waited for each other.
#[tokio::test(flavor = "multi_thread")]
async fn watches_come_and_go_while_files_change() {
    let dir = TempDir::new();
    let file = File::new(dir.path());
    let name = |n: usize| format!("s{}", n % 4);
    let writers: Vec<_> = (0..4)
        .map(|n| {
            let file = file.clone();
            let one = Arc::new(ServiceInstance::builder(name(n), "a").unwrap().build().unwrap());
            tokio::spawn(async move {
                loop {
                    file.register(&one).await.unwrap();
                }
            })
        })
        .collect();
    let come_and_go = async {
        for n in 0..400 {
            let mut watch = file.watch(&name(n).parse().unwrap());
            while watch.view().snapshot().is_none_or(|set| set.instances().is_empty()) {
                watch.next().await.unwrap();
            }
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(30), come_and_go).await;
    writers.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(done.is_ok(), "stuck");
}

#[tokio::test]
async fn one_that_may_not_write_or_read_is_told_so() {
    let dir = TempDir::new();
    let blocked = dir.path().join("file");
    fs::write(&blocked, "").unwrap();
    let file = File::new(&blocked);
    let error = file.register(&instance("a")).await.unwrap_err();
    assert!(error.to_string().contains(blocked.to_str().unwrap()), "{error}");
    assert!(file.list(&service()).await.is_err(), "a file is no directory");
    let large = ServiceInstance::builder("s", "a").unwrap().metadata("k", "\u{1}".repeat(60_000)).build().unwrap();
    let error = File::new(dir.path()).register(&Arc::new(large)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput, "{error:?}");
    for uri in ["file://", "file://host/dir", "file:///dir?tll=3s", "file:///dir?ttl=x"] {
        assert_eq!(callsign::registry(uri).unwrap_err().kind(), Kind::InvalidInput, "{uri}");
    }
}

#[tokio::test]
async fn what_crashed_ones_left_is_swept_away() {
    let dir = TempDir::new();
    let file = File::new(dir.path()).with_ttl(Duration::from_secs(1));
    file.register(&instance("dead")).await.unwrap();
    let at = dir.path().join("s");
    fs::write(at.join(".dead.json.1-1.tmp"), "{").unwrap();
    fs::write(at.join("hand.json"), r#"{"id":"hand","name":"s"}"#).unwrap();
    fs::write(at.join("notes.txt"), "mine").unwrap();
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    for entry in fs::read_dir(&at).unwrap() {
        fs::File::options().append(true).open(entry.unwrap().path()).unwrap().set_modified(hour_ago).unwrap();
    }
    // By another process: one sweeps no more than once a minute.
    File::new(dir.path()).register(&instance("new")).await.unwrap();
    let mut left: Vec<_> = fs::read_dir(&at).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["hand.json", "new.json", "notes.txt"]);
}

#[tokio::test]
async fn clocks_that_jump_lose_nobody() {
    let dir = TempDir::new();
    let file = File::new(dir.path()).with_ttl(Duration::from_secs(30));
    let lease = file.register(&instance("a")).await.unwrap();
    let mut watch = file.watch(&service());
    until(&mut watch, &["a"]).await;
    let day = Duration::from_secs(24 * 3600);
    let now = std::time::SystemTime::now();
    for time in [now + day, now - day] {
        // To the file system, what was written just now is of tomorrow, or of yesterday.
        let path = dir.path().join("s/a.json");
        fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
        file.register(&instance("b")).await.unwrap();
        until(&mut watch, &["a", "b"]).await;
        assert_eq!(file.list(&service()).await.unwrap().instances().len(), 2);
    }
    // One who sweeps takes the file of yesterday for left behind; its owner is told, and nobody misses it.
    File::new(dir.path()).with_ttl(Duration::from_secs(1)).register(&instance("b")).await.unwrap();
    assert!(!dir.path().join("s/a.json").exists(), "swept: it seems older than ten TTLs");
    sleep(Duration::from_millis(100)).await;
    assert!(seen(&watch).contains(&"a".to_owned()));
    assert_eq!(file.renew(&lease).await.unwrap(), Renewal::Lost);
}

/// This test's own program, as a process that registers, renews, and is killed.
#[tokio::test]
async fn the_instance_of_a_killed_owner_is_gone_after_its_ttl() {
    const OWNER: &str = "CALLSIGN_TEST_OWNER";
    const TTL: Duration = Duration::from_secs(2);
    if let Ok(path) = std::env::var(OWNER) {
        let file = File::new(Path::new(&path)).with_ttl(TTL);
        let lease = file.register(&instance("owner")).await.unwrap();
        loop {
            sleep(TTL / 3).await;
            assert_eq!(file.renew(&lease).await.unwrap(), Renewal::Kept);
        }
    }
    let dir = TempDir::new();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_instance_of_a_killed_owner_is_gone_after_its_ttl"])
        .env(OWNER, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let registry: Registry = File::new(dir.path()).into();
    let mut watch = registry.discovery().watch(&service());
    until(&mut watch, &["owner"]).await;
    sleep(TTL * 2).await;
    assert_eq!(seen(&watch), ["owner"], "it renews");
    owner.kill().unwrap();
    owner.wait().unwrap();
    let killed = Instant::now();
    until(&mut watch, &[]).await;
    let took = killed.elapsed();
    assert!(took <= TTL + Duration::from_millis(500), "gone after {took:?}");
    assert!(took >= TTL / 2, "gone after {took:?}, too soon");
    // One who looks for the first time now does not take it for alive.
    assert!(registry.discovery().list(&service()).await.unwrap().instances().is_empty());
}
