//! TLS to an agent that wants to know who asks, and files that change.

use std::{fs, path::Path, sync::Arc, time::Duration};

use callsign::{
    Registration,
    registry::{Consul, ConsulBuilder, Discovery, Registrar},
    server::RegistrationState,
    tls::ClientTls,
};
use serde_json::json;

use super::{
    BOUND, TTL, data,
    dir::TempDir,
    follow::{Log, eventually},
    instance, name, outage, real, shows,
};

/// An agent that serves HTTPS too, for `echo`, to those with a certificate; and where.
fn secure() -> Option<(real::Consul, String)> {
    let https = crate::servers::free_port();
    let tls = json!({"ca_file": data("ca.pem"), "cert_file": data("server.pem"), "key_file": data("server.key"),
        "verify_incoming": true});
    let consul = real::Consul::with(json!({"ports": {"https": https}, "tls": {"https": tls}}))?;
    Some((consul, format!("127.0.0.1:{https}")))
}

fn at(agent: &str, tls: ClientTls) -> ConsulBuilder {
    Consul::builder([agent]).tls(tls).wait(Duration::from_secs(1))
}

#[tokio::test]
async fn tls_both_ways_and_what_is_wrong_says_what_to_change() {
    let Some((consul, agent)) = secure() else { return };
    let trusting = || ClientTls::new().ca_file(data("ca.pem"));
    let known = || trusting().identity_files(data("client.pem"), data("client.key"));
    let registry = at(&agent, known().server_name("echo")).build().unwrap();
    let lease = registry.register(&instance("s", "a")).await.unwrap();
    let mut watch = registry.watch(&name("s"));
    shows(&mut watch, &["a"]).await;
    // By its URI likewise.
    let uri = format!(
        "consul://{agent}?ca={}&cert={}&key={}&server_name=echo",
        data("ca.pem"),
        data("client.pem"),
        data("client.key")
    );
    let opened = callsign::registry(&uri).unwrap();
    assert_eq!(opened.discovery().list(&name("s")).await.unwrap().instances().len(), 1);

    let other = || ClientTls::new().ca_file(data("other-ca.pem")).server_name("echo");
    let cases = [
        ("wrong issuer", other(), "other-ca.pem; ca="),
        ("wrong name", known(), "not for 127.0.0.1, who is expected; server_name="),
        ("another name", known().server_name("other"), "not for other, who is expected; server_name="),
        ("a workload's name", known().server_name("spiffe://example.org/other"), "example.org/other, who is expected"),
        (
            "no certificate",
            trusting().server_name("echo"),
            "wants a certificate of the client (that we have none); cert=",
        ),
        (
            "a stranger's certificate",
            trusting().server_name("echo").identity_files(data("other-client.pem"), data("other-client.key")),
            "other-client.pem); cert=",
        ),
    ];
    for (what, tls, wanted) in cases {
        let error = at(&agent, tls).build().unwrap().list(&name("s")).await.unwrap_err();
        let said = format!("{error:#}");
        assert!(said.contains(&agent) && said.contains(wanted), "{what}: {said}");
    }
    // TLS to the plaintext port, and plaintext to the one of TLS.
    let said = format!("{:#}", at(&consul.address(), known()).build().unwrap().list(&name("s")).await.unwrap_err());
    assert!(said.contains("does not speak TLS: is it a plaintext server?"), "{said}");
    let said = format!("{:#}", Consul::builder([&*agent]).build().unwrap().list(&name("s")).await.unwrap_err());
    assert!(said.contains("ca="), "{said}");
    registry.deregister(&lease).await.unwrap();
}

fn put(from: &str, to: &Path) {
    // In one step, as those who rotate do.
    let new = to.with_extension("new");
    fs::copy(data(from), &new).unwrap();
    fs::rename(new, to).unwrap();
}

#[tokio::test]
async fn certificates_keys_and_issuers_are_read_again_when_they_change() {
    let Some((consul, agent)) = secure() else { return };
    let elsewhere = Consul::builder([consul.address()]).ttl(Duration::from_secs(300)).build().unwrap();
    elsewhere.register(&instance("s", "a")).await.unwrap();
    let dir = TempDir::new();
    let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(|file| dir.path().join(file));
    put("other-ca.pem", &ca);
    put("other-client.pem", &cert);
    put("other-client.key", &key);
    let log = Arc::new(Log::default());
    let tls = ClientTls::new().ca_file(&ca).identity_files(&cert, &key).server_name("echo");
    let registry = at(&agent, tls).observer(log.clone()).build().unwrap();
    let mut watch = registry.watch(&name("s"));
    let said = outage(&mut watch, true).await;
    assert!(said.contains("from an issuer that is not among"), "{said}");
    put("ca.pem", &ca);
    let refused = async {
        while !watch.view().outage().is_some_and(|outage| format!("{:#}", outage.error()).contains("our certificate")) {
            watch.next().await.unwrap();
        }
    };
    tokio::time::timeout(BOUND, refused).await.expect("the new issuers are trusted, and we are not");
    put("client.key", &key);
    put("client.pem", &cert);
    shows(&mut watch, &["a"]).await;
    outage(&mut watch, false).await;

    // What cannot be read is told and changes nothing.
    fs::write(&key, "half a key").unwrap();
    eventually("told", || log.count("TlsReloadFailed") > 0).await;
    elsewhere.register(&instance("s", "b")).await.unwrap();
    shows(&mut watch, &["a", "b"]).await;
    assert!(watch.view().outage().is_none());
}

/// C11: a token that expired takes nobody out, and the one in its place is used.
#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes() {
    let Some(consul) = real::Consul::with_acl(true) else { return };
    let all = Consul::builder([consul.address()]).token(real::TOKEN).ttl(Duration::from_secs(300)).build().unwrap();
    all.register(&instance("s", "a")).await.unwrap();
    let policy = json!({"Name": "reads", "Rules":
        "service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }"});
    consul.ask("PUT", "/v1/acl/policy", Some(&policy));
    let token = || consul.ask("PUT", "/v1/acl/token", Some(&json!({"Policies": [{"Name": "reads"}]})));
    let (first, second) = (token(), token());
    let dir = TempDir::new();
    let file = dir.path().join("token");
    fs::write(&file, format!("{}\n", first["SecretID"].as_str().unwrap())).unwrap();
    let reading = Consul::builder([consul.address()]).token_file(&file).wait(Duration::from_secs(1)).build().unwrap();
    let mut watch = reading.watch(&name("s"));
    shows(&mut watch, &["a"]).await;

    let path = format!("/v1/acl/token/{}", first["AccessorID"].as_str().unwrap());
    consul.ask("DELETE", &path, None);
    let said = outage(&mut watch, true).await;
    assert!(said.contains("403"), "{said}");
    shows(&mut watch, &["a"]).await;
    fs::remove_file(&file).unwrap();
    let gone = async {
        while !watch.view().outage().is_some_and(|outage| format!("{:#}", outage.error()).contains("cannot be read")) {
            watch.next().await.unwrap();
        }
    };
    tokio::time::timeout(BOUND, gone).await.expect("a file that is gone is told");
    fs::write(&file, second["SecretID"].as_str().unwrap()).unwrap();
    outage(&mut watch, false).await;
    all.register(&instance("s", "b")).await.unwrap();
    shows(&mut watch, &["a", "b"]).await;
    assert!(!format!("{reading:?}").contains(second["SecretID"].as_str().unwrap()));
}

/// C11 (consul #3569, #3345): a registration whose token expired says so while it goes on trying, and is there again with
/// the next token.
#[tokio::test]
async fn a_registration_whose_token_expired_says_so_and_is_there_again_with_the_next() {
    let Some(consul) = real::Consul::with_acl(true) else { return };
    let policy = json!({"Name": "writes", "Rules": "service \"s\" { policy = \"write\" } node_prefix \"\" { policy = \"read\" }"});
    consul.ask("PUT", "/v1/acl/policy", Some(&policy));
    let token = || consul.ask("PUT", "/v1/acl/token", Some(&json!({"Policies": [{"Name": "writes"}]})));
    let (first, second) = (token(), token());
    let dir = TempDir::new();
    let file = dir.path().join("token");
    fs::write(&file, first["SecretID"].as_str().unwrap()).unwrap();
    let registry = Consul::builder([consul.address()]).token_file(&file).ttl(TTL).build().unwrap();
    let registration = Registration::new(&registry.into(), Arc::unwrap_or_clone(instance("s", "a"))).unwrap();
    registration.start();
    registration.registered_within(BOUND).await.unwrap();
    consul.ask("DELETE", &format!("/v1/acl/token/{}", first["AccessorID"].as_str().unwrap()), None);
    let says = |state: RegistrationState| match state {
        RegistrationState::Degraded(error) | RegistrationState::Registering(Some(error)) => format!("{error:#}"),
        _ => String::new(),
    };
    eventually("told", || says(registration.state()).contains("service:write")).await;
    fs::write(&file, second["SecretID"].as_str().unwrap()).unwrap();
    eventually("registered again", || matches!(registration.state(), RegistrationState::Registered)).await;
    let all = Consul::builder([consul.address()]).token(real::TOKEN).build().unwrap();
    shows(&mut all.watch(&name("s")), &["a"]).await;
    registration.shutdown().await;
}
