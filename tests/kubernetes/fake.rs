//! An API server that does as a test says: one answer after the other, each request written down.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use callsign::registry::{Discovery, Kubernetes};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{outage_of, seen, slice, until, until_outage};
use crate::dir::TempDir;

#[derive(Debug, Clone)]
enum Answer {
    /// A status, headers and a body.
    Whole(u16, &'static str, String),
    /// These events, then silence with the connection open.
    Events(Vec<Value>),
    /// These events, then the end.
    Ends(Vec<Value>),
}

#[derive(Clone, Default)]
struct Fake {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

fn list(version: &str, slices: &[Value]) -> Answer {
    Answer::Whole(200, "", json!({"metadata": {"resourceVersion": version}, "items": slices}).to_string())
}

fn event(kind: &str, mut object: Value, version: &str) -> Value {
    object["metadata"]["resourceVersion"] = version.into();
    json!({"type": kind, "object": object})
}

impl Fake {
    async fn start(answers: Vec<Answer>) -> (Self, TempDir, Kubernetes) {
        let fake = Self { answers: Arc::new(Mutex::new(answers.into())), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let directory = TempDir::new();
        let path = directory.path().join("config");
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = format!(
            "current-context: c\nclusters: [{{name: c, cluster: {{server: '{url}'}}}}]\ncontexts: [{{name: c, context: \
             {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{token: secret}}}}]\n"
        );
        std::fs::write(&path, config).unwrap();
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(tcp).await });
            }
        });
        (fake, directory, Kubernetes::new().with_kubeconfig(path))
    }

    async fn serve(&self, tcp: TcpStream) {
        let mut tcp = BufReader::new(tcp);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if tcp.read_line(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            self.requests.lock().unwrap().push(head.lines().next().unwrap().to_owned());
            let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Events(Vec::new()));
            let (events, ends) = match answer {
                Answer::Whole(status, headers, body) => {
                    let length = body.len();
                    let text = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
                    tcp.write_all(text.as_bytes()).await.unwrap();
                    continue;
                }
                Answer::Events(events) => (events, false),
                Answer::Ends(events) => (events, true),
            };
            let mut text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
            for event in events {
                let line = format!("{event}\n");
                text += &format!("{:x}\r\n{line}\r\n", line.len());
            }
            tcp.write_all(text.as_bytes()).await.unwrap();
            if !ends {
                // Until the client goes.
                let _ = tcp.read_line(&mut String::new()).await;
                return;
            }
            tcp.write_all(b"0\r\n\r\n").await.unwrap();
        }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn lists(&self) -> usize {
        self.requests().iter().filter(|line| !line.contains("watch=true")).count()
    }
}

fn gone() -> Value {
    json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}})
}

/// K6: 410 lists again, and nothing is pushed empty in between.
#[tokio::test]
async fn a_version_that_is_gone_lists_again_and_nothing_is_missing_meanwhile() {
    let (fake, _directory, kubernetes) = Fake::start(vec![
        list("5", &[slice("a", "s", &["10.0.0.1"])]),
        Answer::Events(vec![event("ADDED", slice("b", "s", &["10.0.0.2"]), "6"), gone()]),
        list("9", &[slice("b", "s", &["10.0.0.2"]), slice("c", "s", &["10.0.0.3"])]),
        Answer::Whole(410, "", "{}".into()),
        list("12", &[slice("c", "s", &["10.0.0.3"])]),
    ])
    .await;
    let mut watch = kubernetes.watch(&"s".parse().unwrap());
    loop {
        watch.next().await.unwrap();
        assert!(!seen(&watch).is_empty(), "a list that goes on is no empty set");
        if seen(&watch) == ["10.0.0.3"] {
            break;
        }
    }
    assert_eq!(fake.lists(), 3);
}

/// K6: a watch that is half open, or at a server that lost its data and waits for a version that it once had, is
/// silent. A list beside it finds out, and costs no more where all is well.
#[tokio::test]
async fn a_silent_watch_is_looked_after() {
    let (a, b) = (slice("a", "s", &["10.0.0.1"]), slice("b", "s", &["10.0.0.2"]));
    let mut answers = vec![
        list("500", std::slice::from_ref(&a)),
        Answer::Events(vec![event("BOOKMARK", json!({"metadata": {}}), "501")]),
        // Its versions went back.
        list("3", std::slice::from_ref(&a)),
        Answer::Events(vec![event("ADDED", b.clone(), "4")]),
    ];
    answers.extend((0..10).map(|_| list("4", &[a.clone(), b.clone()])));
    // This was missed.
    answers.extend([list("9", std::slice::from_ref(&b)), Answer::Events(Vec::new())]);
    let (fake, _directory, kubernetes) = Fake::start(answers).await;
    let mut watch = kubernetes.with_idle(Duration::from_millis(200)).watch(&"s".parse().unwrap());
    until(&mut watch, &["10.0.0.1"]).await;
    until(&mut watch, &["10.0.0.1", "10.0.0.2"]).await;
    until(&mut watch, &["10.0.0.2"]).await;
    crate::follow::eventually("it watches from there", || fake.requests().len() > 15).await;
    let requests = fake.requests();
    let watches = requests.iter().enumerate().filter(|(_, line)| line.contains("watch=true"));
    let watches: Vec<_> = watches.map(|(n, line)| (n, line.split("resourceVersion=").nth(1).unwrap())).collect();
    let from = |(n, version): &(usize, &str)| (*n, version.split(['&', ' ']).next().unwrap().to_owned());
    let watches: Vec<_> = watches.iter().map(from).collect();
    assert_eq!(watches, [(1, "500".to_owned()), (3, "3".to_owned()), (15, "9".to_owned())], "{requests:?}");
}

/// Asked to wait, it waits, keeps what it has, and goes on without a list.
#[tokio::test]
async fn who_is_asked_to_wait_waits_and_keeps_its_place() {
    let (fake, _directory, kubernetes) = Fake::start(vec![
        list("5", &[slice("a", "s", &["10.0.0.1"])]),
        Answer::Whole(429, "Retry-After: 1\r\n", "{}".into()),
        Answer::Events(vec![event("ADDED", slice("b", "s", &["10.0.0.2"]), "6")]),
    ])
    .await;
    let mut watch = kubernetes.watch(&"s".parse().unwrap());
    until_outage(&mut watch, true).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(seen(&watch), ["10.0.0.1"]);
    until(&mut watch, &["10.0.0.1", "10.0.0.2"]).await;
    assert!(begun.elapsed() > Duration::from_millis(900) && fake.lists() == 1, "{:?}", fake.requests());
}

/// A watch that always ends at once is not asked for in a hot loop; at rest it lasts minutes.
#[tokio::test]
async fn requests_at_rest_are_few() {
    let mut answers = vec![list("5", &[])];
    answers.extend((0..100).map(|_| Answer::Ends(Vec::new())));
    let (fake, _directory, kubernetes) = Fake::start(answers).await;
    let mut watch = kubernetes.watch(&"s".parse().unwrap());
    until(&mut watch, &[]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let requests = fake.requests();
    assert!(requests.len() < 15, "{} requests in 2 s", requests.len());
    let seconds = requests[1].split("timeoutSeconds=").nth(1).unwrap().split('&').next().unwrap();
    let seconds: u64 = seconds.split(' ').next().unwrap().parse().unwrap();
    // Beside one list in each idle, where the server is silent.
    let minute = |seconds: u64| 60.0 / seconds as f64;
    assert!(minute(seconds) + minute(Kubernetes::DEFAULT_IDLE.as_secs()) < 1.0 && (240..=290).contains(&seconds));
    assert!(requests[1].contains("allowWatchBookmarks=true"));
}

/// Pages are put together, and a page that is gone begins the list anew.
#[tokio::test]
async fn a_list_of_pages_is_one_list() {
    let page = |rest: &str, slice: Value| {
        let meta = json!({"resourceVersion": "5", "continue": rest});
        Answer::Whole(200, "", json!({"metadata": meta, "items": [slice]}).to_string())
    };
    let (fake, _directory, kubernetes) = Fake::start(vec![
        page("more", slice("a", "s", &["10.0.0.1"])),
        Answer::Whole(410, "", "{}".into()),
        page("more", slice("a", "s", &["10.0.0.1"])),
        page("", slice("b", "s", &["10.0.0.2"])),
    ])
    .await;
    let mut watch = kubernetes.watch(&"s".parse().unwrap());
    until(&mut watch, &["10.0.0.1", "10.0.0.2"]).await;
    assert!(fake.requests()[3].contains("continue=more"), "{:?}", fake.requests());
}

#[tokio::test]
async fn a_name_that_is_none_is_refused_and_what_holds_a_secret_does_not_show_it() {
    let (fake, _directory, kubernetes) = Fake::start(Vec::new()).await;
    let error = outage_of(&mut kubernetes.watch(&"s,a=b".parse().unwrap())).await;
    assert_eq!(error.kind(), callsign::Kind::InvalidInput);
    assert!(fake.requests().is_empty() && !format!("{kubernetes:?}").contains("secret"));
    for uri in ["kubernetes://h/", "k8s://?mode=x", "k8s://?nonsense=1", "k8s://?idle=1ms", "k8s://?namespace=A"] {
        assert!(callsign::registry(uri).is_err(), "{uri}");
    }
    assert!(callsign::registry("k8s://?mode=pods&pod=p").unwrap().registrar().is_ok());
    assert!(callsign::registry("kubernetes://").unwrap().registrar().is_err());
}
