//! What a real agent does only in trouble, by one that does it on demand.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use callsign::registry::{Consul, Discovery};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::AbortHandle, time::Instant};

use super::{ids, name, outage, shows};

#[derive(Clone)]
pub(super) struct Set {
    pub(super) index: u64,
    pub(super) ids: Vec<&'static str>,
    pub(super) trouble: Option<(StatusCode, &'static str)>,
    headers: Vec<(&'static str, &'static str)>,
    /// Whether it answers only who waits.
    closed: bool,
}

/// When, for which service, and with which query.
type Asked = (Instant, String, HashMap<String, String>);

/// An agent: what it knows of each datacenter, and what it was asked.
#[derive(Clone)]
pub(super) struct Fake {
    sets: watch::Sender<HashMap<String, Set>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    pub(super) async fn start() -> (Self, String, AbortHandle) {
        let set = Set { index: 10, ids: vec!["a"], trouble: None, headers: Vec::new(), closed: false };
        let sets =
            HashMap::from([(String::new(), set.clone()), ("dc1".to_owned(), set.clone()), ("dc2".to_owned(), set)]);
        let fake = Self { sets: watch::channel(sets).0, asked: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().route("/v1/health/service/{name}", get(health)).with_state(fake.clone());
        let served = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }).abort_handle();
        (fake, address, served)
    }

    pub(super) fn set(&self, datacenter: &str, change: impl FnOnce(&mut Set)) {
        self.sets.send_modify(|sets| change(sets.get_mut(datacenter).unwrap()));
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub(super) fn services_asked(&self) -> Vec<(Instant, String)> {
        self.asked.lock().unwrap().iter().map(|(at, service, _)| (*at, service.clone())).collect()
    }
}

async fn health(
    State(fake): State<Fake>,
    Path(service): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    fake.asked.lock().unwrap().push((Instant::now(), service.clone(), query.clone()));
    let datacenter = query.get("dc").cloned().unwrap_or_default();
    let index: u64 = query.get("index").map_or(0, |index| index.parse().unwrap());
    let mut sets = fake.sets.subscribe();
    // Like Consul: an index beyond what there is waits too.
    let changed = |sets: &HashMap<String, Set>| {
        let set = &sets[&datacenter];
        set.index > index || set.trouble.is_some() || set.closed || index == 0
    };
    if let Some(wait) = query.get("wait") {
        let wait = Duration::from_millis(wait.trim_end_matches("ms").parse().unwrap());
        let _ = tokio::time::timeout(wait, sets.wait_for(changed)).await;
    }
    let set = sets.borrow()[&datacenter].clone();
    let mut headers = HeaderMap::new();
    headers.insert("x-consul-index", set.index.into());
    // As since Consul 1.10.
    let backend = if index > 0 { "streaming" } else { "blocking-query" };
    headers.insert("x-consul-query-backend", backend.parse().unwrap());
    for (name, value) in set.headers {
        headers.insert(name, value.parse().unwrap());
    }
    if let Some((status, text)) = set.trouble {
        return (status, headers, text).into_response();
    }
    if set.closed && index == 0 {
        return (StatusCode::FORBIDDEN, headers, "ACL not found").into_response();
    }
    let entry = |id: &&str| {
        json!({"Node": {"Address": "10.0.0.1", "Datacenter": datacenter},
            "Service": {"ID": id, "Service": service, "Address": "10.0.0.2", "Port": 1}})
    };
    (headers, Json(Value::Array(set.ids.iter().map(entry).collect()))).into_response()
}

pub(super) fn at(address: &str) -> callsign::registry::ConsulBuilder {
    Consul::builder([address])
}

/// C2 (kratos #2813) and "idle when nothing changes": no more than two requests a minute, none of them an outage.
#[tokio::test]
async fn at_rest_it_asks_once_in_a_wait_and_that_is_no_error() {
    let (fake, address, _served) = Fake::start().await;
    // A wait of 55 s, in little: what is counted is requests a wait.
    let registry = at(&address).wait(Duration::from_secs(1)).build().unwrap();
    let mut watch = registry.watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    let before = fake.asked();
    let quiet = tokio::time::timeout(Duration::from_millis(3_500), watch.next()).await;
    assert!(quiet.is_err(), "nothing changed, and it told {quiet:?}");
    let asked = fake.asked() - before;
    assert!((3..=4).contains(&asked), "{asked} requests in three waits and a half");
}

/// C13 (consul #7939): an index that goes back begins anew, and 0 counts as 1.
#[tokio::test]
async fn an_index_that_goes_back_is_no_end() {
    let (fake, address, _served) = Fake::start().await;
    let registry = at(&address).wait(Duration::from_secs(1)).build().unwrap();
    let mut watch = registry.watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    fake.set("", |set| (set.index, set.ids) = (3, vec!["a", "b"]));
    shows(&mut watch, &["a", "b"]).await;
    fake.set("", |set| (set.index, set.ids) = (4, vec!["b"]));
    shows(&mut watch, &["b"]).await;
    fake.set("", |set| (set.index, set.ids) = (0, vec!["c"]));
    shows(&mut watch, &["c"]).await;
}

/// C13, C11 (consul #3345): an answer that begins anew is not taken at its word. So answers an agent whose view of
/// a service was closed since the token expired: with nobody, at index 1.
#[tokio::test]
async fn a_view_that_was_closed_takes_nobody_out() {
    let (fake, address, _served) = Fake::start().await;
    let mut watch = at(&address).wait(Duration::from_secs(1)).build().unwrap().watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    fake.set("", |set| (set.index, set.ids, set.closed) = (1, Vec::new(), true));
    let said = outage(&mut watch, true).await;
    assert!(said.contains("403") && ids(&watch) == ["a"], "{said}: {:?}", watch.view());
    fake.set("", |set| (set.index, set.ids, set.closed) = (12, vec!["b"], false));
    shows(&mut watch, &["b"]).await;
}

/// An answer that was cut makes no sense; the next one does, though nothing changed.
#[tokio::test]
async fn an_answer_that_makes_no_sense_is_an_outage_until_the_next_one() {
    let (fake, address, _served) = Fake::start().await;
    fake.set("", |set| set.trouble = Some((StatusCode::OK, "[{")));
    let mut watch = at(&address).build().unwrap().watch(&name("s"));
    assert!(outage(&mut watch, true).await.contains("no list"));
    fake.set("", |set| set.trouble = None);
    shows(&mut watch, &["a"]).await;
    outage(&mut watch, false).await;
}

/// C14 (consul-template #7, consul #1244): an index that races is asked for five times a second at most, errors are backed off from.
#[tokio::test]
async fn an_index_that_races_and_errors_without_end_are_no_hot_loop() {
    let (fake, address, _served) = Fake::start().await;
    let registry = at(&address).build().unwrap();
    let mut watch = registry.watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    let before = fake.asked();
    let racing = fake.clone();
    let race = tokio::spawn(async move {
        loop {
            racing.set("", |set| set.index += 1);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    race.abort();
    let raced = fake.asked() - before;
    assert!((3..=13).contains(&raced), "{raced} requests in a second");

    let before = fake.asked();
    fake.set("", |set| set.trouble = Some((StatusCode::INTERNAL_SERVER_ERROR, "no")));
    assert!(outage(&mut watch, true).await.contains("500"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let failed = fake.asked() - before;
    assert!(failed <= 12, "{failed} requests in two seconds");
    assert_eq!(ids(&watch), ["a"], "an error takes nobody out");
}

/// C15 (consul #7259): who is asked to come back later does.
#[tokio::test]
async fn retry_after_is_kept_to() {
    let (fake, address, _served) = Fake::start().await;
    let busy = (StatusCode::TOO_MANY_REQUESTS, "Resource Exhausted");
    fake.set("", |set| (set.trouble, set.headers) = (Some(busy), vec![("retry-after", "2")]));
    let mut watch = at(&address).build().unwrap().watch(&name("s"));
    outage(&mut watch, true).await;
    fake.set("", |set| (set.trouble, set.headers) = (None, Vec::new()));
    shows(&mut watch, &["a"]).await;
    let asked = fake.asked.lock().unwrap();
    let between = asked[1].0 - asked[0].0;
    assert!(between >= Duration::from_secs(2), "{between:?}");
}

/// A server without a leader may know what is long gone.
#[tokio::test]
async fn one_without_a_leader_changes_nothing() {
    let (fake, address, _served) = Fake::start().await;
    let mut watch = at(&address).stale(true).build().unwrap().watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    fake.set("", |set| {
        let headers = vec![("x-consul-knownleader", "false"), ("x-consul-query-backend", "blocking-query")];
        (set.index, set.ids, set.headers) = (11, Vec::new(), headers);
    });
    outage(&mut watch, true).await;
    assert_eq!(ids(&watch), ["a"]);
    fake.set("", |set| (set.index, set.ids, set.headers) = (12, vec!["b"], Vec::new()));
    shows(&mut watch, &["b"]).await;
}

/// C3 (kratos #2813): each datacenter has its own index, and one that is away holds up no other.
#[tokio::test]
async fn datacenters_are_followed_side_by_side() {
    let (fake, address, _served) = Fake::start().await;
    fake.set("dc1", |set| (set.index, set.ids) = (900, vec!["one"]));
    fake.set("dc2", |set| (set.index, set.ids) = (5, vec!["two"]));
    let mut watch = at(&address).datacenters(["dc1", "dc2"]).build().unwrap().watch(&name("s"));
    shows(&mut watch, &["one", "two"]).await;
    let view = watch.view();
    let metadata = view.snapshot().unwrap().instances()[1].metadata().get("dc").cloned();
    assert_eq!(metadata.as_deref(), Some("dc2"));
    fake.set("dc2", |set| set.trouble = Some((StatusCode::INTERNAL_SERVER_ERROR, "No path to datacenter")));
    fake.set("dc1", |set| (set.index, set.ids) = (901, vec!["one", "three"]));
    shows(&mut watch, &["one", "three", "two"]).await;
    fake.set("dc2", |set| (set.index, set.ids, set.trouble) = (6, Vec::new(), None));
    shows(&mut watch, &["one", "three"]).await;
}

/// Several agents of one cluster: another goes on where the first was, and nobody is told of an outage.
#[tokio::test]
async fn another_agent_goes_on_where_the_first_ended() {
    let (fake, address, served) = Fake::start().await;
    let (other, second, _served) = Fake::start().await;
    let registry = Consul::builder([address, second]).wait(Duration::from_secs(1)).build().unwrap();
    let mut watch = registry.watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    served.abort();
    fake.set("", |set| set.trouble = Some((StatusCode::INTERNAL_SERVER_ERROR, "ending")));
    other.set("", |set| (set.index, set.ids) = (11, vec!["a", "b"]));
    shows(&mut watch, &["a", "b"]).await;
    assert!(watch.view().outage().is_none());
    let asked = other.asked.lock().unwrap()[0].2.clone();
    assert_eq!(asked.get("index").map(String::as_str), Some("10"), "it keeps its place");
}

/// Indexes of two backends are not to be compared: the other one is asked from the beginning.
#[tokio::test]
async fn another_backend_is_asked_from_the_beginning() {
    let (fake, address, _served) = Fake::start().await;
    let mut watch = at(&address).wait(Duration::from_secs(1)).build().unwrap().watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    fake.set("", |set| (set.index, set.ids) = (11, vec!["a", "b"]));
    shows(&mut watch, &["a", "b"]).await;
    let before = fake.asked();
    fake.set("", |set| {
        set.headers = vec![("x-consul-query-backend", "blocking-query")];
        (set.index, set.ids) = (12, vec!["c"]);
    });
    shows(&mut watch, &["c"]).await;
    let anew = tokio::time::timeout(super::BOUND, async {
        while !fake.asked.lock().unwrap()[before..].iter().any(|(_, _, query)| !query.contains_key("index")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    anew.await.unwrap();
}

/// Tasks and connections end with the last watch.
#[tokio::test]
async fn nothing_is_left_of_a_watch_that_was_dropped() {
    let (_fake, address, _served) = Fake::start().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let registry = at(&address).build().unwrap();
    let watches: Vec<_> = ["s", "t", "u"].map(|service| registry.watch(&name(service))).into();
    for mut watch in watches {
        shows(&mut watch, &["a"]).await;
        assert!(tasks() > before);
    }
    drop(registry);
    let ended = tokio::time::timeout(super::BOUND, async {
        while tasks() > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(ended.await.is_ok(), "{} tasks, {before} before", tasks());
}
