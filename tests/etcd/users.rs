//! Users, passwords and certificates.

use callsign::{Kind, tls::ClientTls};
use serde_json::json;

use super::*;

fn with_users(real: &real::Etcd) {
    let ask = |path: &str, body| drop(real.ask(0, path, &body));
    ask("/v3/auth/user/add", json!({"name": "root", "password": "rootpw"}));
    ask("/v3/auth/role/add", json!({"name": "root"}));
    ask("/v3/auth/user/grant", json!({"user": "root", "role": "root"}));
    ask("/v3/auth/user/add", json!({"name": "app", "password": "apppw"}));
    ask("/v3/auth/role/add", json!({"name": "services"}));
    // From "/microservices/" up to "/microservices0".
    let perm = json!({"permType": "READWRITE", "key": "L21pY3Jvc2VydmljZXMv", "range_end": "L21pY3Jvc2VydmljZXMw"});
    ask("/v3/auth/role/grant", json!({"name": "services", "perm": perm}));
    ask("/v3/auth/user/grant", json!({"user": "app", "role": "services"}));
    ask("/v3/auth/enable", json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_let_in_and_who_is_not_is_told_why() {
    let Some(mut real) = real::Etcd::start(1) else { return };
    with_users(&real);
    let nobody = at(&real).build().unwrap();
    let error = nobody.list(&service()).await.unwrap_err();
    assert!(error.kind() == Kind::PermissionDenied && format!("{error:#}").contains("password_file"), "{error:#}");
    let wrong = at(&real).user("app", "hunter2").build().unwrap();
    let mut watch = wrong.watch(&service());
    until_outage(&mut watch, true).await;
    let error = format!("{:#}", watch.view().outage().unwrap().error());
    assert!(error.contains("password of user \"app\"") && !error.contains("hunter2"), "{error}");
    let elsewhere = at(&real).user("app", "apppw").namespace("/other").build().unwrap();
    let error = elsewhere.register(&Arc::new(instance("a"))).await.unwrap_err();
    assert!(error.kind() == Kind::PermissionDenied && format!("{error:#}").contains("/other"), "{error:#}");
    let mut watch = elsewhere.watch(&service());
    until_outage(&mut watch, true).await;
    assert_eq!(watch.view().outage().unwrap().error().kind(), Kind::PermissionDenied);

    let file = real.dir().join("password");
    std::fs::write(&file, "apppw\n").unwrap();
    let log = Arc::new(Log::default());
    let app = at(&real).user_password_file("app", &file).ttl(Duration::from_secs(6)).build().unwrap();
    let registration = registered(app.clone(), instance("a"), &log).await;
    let mut watch = app.watch(&service());
    until(&mut watch, &["a"]).await;

    // E3, go-zero #5707: a token that is not known any more, as after a restart, was shown for ever.
    real.kill(0);
    until_outage(&mut watch, true).await;
    real.restart(0);
    until_outage(&mut watch, false).await;
    until_state(&registration, "it is kept", |state| matches!(state, RegistrationState::Registered)).await;
    let other = app.register(&Arc::new(instance("b"))).await.unwrap();
    until(&mut watch, &["a", "b"]).await;
    app.deregister(&other).await.unwrap();
    until(&mut watch, &["a"]).await;
    registration.shutdown().await;
    until(&mut watch, &[]).await;
}

/// The same where nothing but time ends a token; go-zero #5707.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_timed_out_is_asked_for_anew() {
    let Some(real) = real::Etcd::with_flags(1, &["--auth-token-ttl", "1"]) else { return };
    with_users(&real);
    let app = at(&real).user("app", "apppw").build().unwrap();
    let mut watch = app.watch(&service());
    until(&mut watch, &[]).await;
    sleep(Duration::from_secs(4)).await;
    app.register(&Arc::new(instance("a"))).await.unwrap();
    until(&mut watch, &["a"]).await;
    assert!(watch.view().outage().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_both_ways() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
    let path = |name: &str| format!("{data}/{name}");
    let flags = [
        format!("--cert-file={}", path("server.pem")),
        format!("--key-file={}", path("server.key")),
        format!("--trusted-ca-file={}", path("ca.pem")),
        "--client-cert-auth".to_owned(),
    ];
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let Some(real) = real::Etcd::with_flags(1, &flags) else { return };
    let tls = || ClientTls::new().ca_file(path("ca.pem")).server_name("echo");
    let known = at(&real).tls(tls().identity_files(path("client.pem"), path("client.key"))).build().unwrap();
    let lease = known.register(&Arc::new(instance("a"))).await.unwrap();
    let uri = format!(
        "etcd://{}?ca={}&cert={}&key={}&server_name=echo",
        real.endpoints()[0],
        path("ca.pem"),
        path("client.pem"),
        path("client.key")
    );
    let mut watch = callsign::registry(&uri).unwrap().discovery().watch(&service());
    until(&mut watch, &["a"]).await;
    known.deregister(&lease).await.unwrap();
    until(&mut watch, &[]).await;

    // Each member has to prove its host, here 127.0.0.1, unless told otherwise.
    let host = ClientTls::new().ca_file(path("ca.pem")).identity_files(path("client.pem"), path("client.key"));
    let error = at(&real).tls(host).build().unwrap().list(&service()).await.unwrap_err();
    assert!(format!("{error:#}").contains("127.0.0.1"), "{error:#}");
    let stranger = at(&real).tls(tls()).build().unwrap();
    assert!(stranger.list(&service()).await.is_err(), "it wants a certificate");
}
