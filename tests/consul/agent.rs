//! An agent that registers as a real one does, in what trouble a test wants it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[derive(Default)]
pub(super) struct Held {
    /// The service, and the notes of its TTL check, by id.
    pub(super) services: BTreeMap<String, (String, String)>,
    /// What was asked, without queries.
    pub(super) asked: Vec<String>,
    /// It forgot the checks, and says so as agents before 1.12 did.
    pub(super) old: bool,
    pub(super) forgot: bool,
    /// Who is never told that he is out.
    pub(super) hangs: Option<&'static str>,
    /// Whether questions for instances fail.
    pub(super) broken: bool,
}

#[derive(Clone, Default)]
pub(super) struct Agent(Arc<Mutex<Held>>);

impl Agent {
    /// And its address.
    pub(super) async fn start() -> (Self, String) {
        let agent = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new()
            .route("/v1/agent/services", get(services))
            .route("/v1/agent/checks", get(checks))
            .route("/v1/agent/service/register", put(register))
            .route("/v1/agent/service/deregister/{id}", put(deregister))
            .route("/v1/agent/check/update/{check}", put(update))
            .route("/v1/health/service/{name}", get(health))
            .with_state(agent.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (agent, address)
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap()
    }

    /// How often it was asked for what begins so.
    pub(super) fn count(&self, what: &str) -> usize {
        self.held().asked.iter().filter(|asked| asked.starts_with(what)).count()
    }
}

async fn services(State(agent): State<Agent>) -> Json<Value> {
    let held = agent.held();
    Json(held.services.iter().map(|(id, (service, _))| (id.clone(), json!({"Service": service}))).collect())
}

async fn checks(State(agent): State<Agent>) -> Json<Value> {
    let held = agent.held();
    let notes = held.services.iter().map(|(id, (_, notes))| (format!("service:{id}"), json!({"Notes": notes})));
    Json(notes.collect())
}

async fn register(State(agent): State<Agent>, body: Bytes) {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = body["Checks"].as_array().unwrap();
    // C12: whoever dies for good is taken out in the end.
    assert!(checks.iter().all(|check| check["DeregisterCriticalServiceAfter"].is_string()), "{body}");
    let ttl = checks.iter().find(|check| check["TTL"].is_string()).unwrap();
    let mut held = agent.held();
    held.asked.push(format!("register {} {}", text(&body["ID"]), text(&ttl["Status"])));
    held.services.insert(text(&body["ID"]), (text(&body["Name"]), text(&ttl["Notes"])));
    held.forgot = false;
}

async fn deregister(State(agent): State<Agent>, Path(id): Path<String>) {
    let hangs = {
        let mut held = agent.held();
        held.asked.push(format!("deregister {id}"));
        held.hangs == Some(&id)
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    agent.held().services.remove(&id);
}

async fn update(State(agent): State<Agent>, Path(check): Path<String>) -> Response {
    let id = check.trim_start_matches("service:");
    let mut held = agent.held();
    held.asked.push(format!("pass {id}"));
    match (held.services.contains_key(id) && !held.forgot, held.old) {
        (true, _) => StatusCode::OK.into_response(),
        (false, false) => (StatusCode::NOT_FOUND, format!("Unknown check ID {check:?}")).into_response(),
        (false, true) => {
            let text = format!("CheckID {check:?} does not have associated TTL");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

async fn health(State(agent): State<Agent>, Path(service): Path<String>) -> Response {
    let mut held = agent.held();
    held.asked.push(format!("health {service}"));
    if held.broken {
        return (StatusCode::INTERNAL_SERVER_ERROR, "rpc error").into_response();
    }
    let all: Vec<_> = held.services.iter().filter(|(_, (name, _))| *name == service).collect();
    let entry =
        |(id, _): &(&String, _)| json!({"Service": {"ID": id, "Service": service, "Address": "10.0.0.2", "Port": 1}});
    ([("x-consul-index", "7")], Json(Value::Array(all.iter().map(entry).collect()))).into_response()
}
