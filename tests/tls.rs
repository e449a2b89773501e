//! TLS, of channels and of servers, with the certificates of `tests/data/tls`.

#![allow(missing_docs, clippy::unwrap_used)]

#[cfg(not(feature = "tls"))]
#[test]
#[allow(clippy::explicit_write, reason = "past the capture of tests that pass")]
fn left_out_without_its_feature() {
    use std::io::Write;
    assert!(std::env::var_os("CI").is_none(), "nothing may be left out here");
    writeln!(std::io::stderr(), "left out: the tests of TLS, which need `--features tls`").unwrap();
}

#[cfg(feature = "tls")]
mod support;

#[cfg(feature = "tls")]
mod tls {
    use std::{fs, path::PathBuf, sync::Arc, time::Duration};

    use callsign::{
        Channel, ChannelBuilder, EndpointKey, Registry, Server,
        observe::{Event, Observer},
        registry::Memory,
        tls::{ClientTls, Provider, ServerTls},
    };
    use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
    use tonic::{Code, Request, Response, Status, service::interceptor::InterceptedService, transport};

    use super::support::{
        dir::TempDir,
        echo::{Echo, EchoClient, EchoRequest},
    };

    fn file(name: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls")).join(name)
    }

    /// AWS-LC where it is there.
    fn provider() -> Provider {
        #[cfg(feature = "aws-lc")]
        return Provider::AwsLc;
        #[cfg(not(feature = "aws-lc"))]
        Provider::Ring
    }

    fn identity(name: &str) -> ServerTls {
        ServerTls::identity_files(file(&format!("{name}.pem")), file(&format!("{name}.key"))).provider(provider())
    }

    fn trusting(ca: &str) -> ClientTls {
        ClientTls::new().ca_file(file(ca)).provider(provider())
    }

    struct Running {
        registry: Registry,
        address: String,
        _stop: oneshot::Sender<()>,
        _served: JoinHandle<()>,
    }

    /// Serves echo; the reply's header says whether the client had a certificate.
    async fn serve(tls: ServerTls) -> Running {
        let registry: Registry = Memory::new().into();
        let seen = |request: Request<()>| {
            let shown = request.peer_certs().map_or(0, |certificates| certificates.len());
            if shown > 0 { Err(Status::already_exists("it has a certificate")) } else { Ok(request) }
        };
        let router = transport::Server::builder().add_service(InterceptedService::new(Echo::new("tls"), seen));
        let server = Server::new("echo").grpc("127.0.0.1:0", router).tls(tls).drain(Duration::ZERO);
        let bound = server.bind(registry.clone()).await.unwrap();
        let address = bound.instance().addresses()[0].to_string();
        assert!(address.starts_with("grpcs://127.0.0.1:"), "{address}");
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(async move { bound.serve(async { drop(stopped.await) }).await.unwrap() });
        Running { registry, address: address.replace("grpcs://", ""), _stop: stop, _served: served }
    }

    fn channel(to: &Running) -> ChannelBuilder {
        Channel::builder("echo").registry(to.registry.clone()).ready_timeout(Duration::from_millis(500))
    }

    async fn call(channel: Channel) -> Result<Response<super::support::echo::EchoReply>, Status> {
        EchoClient::new(channel).unary(EchoRequest::default()).await
    }

    /// Why a channel does not connect.
    async fn refused(builder: ChannelBuilder) -> String {
        format!("{:#}", builder.connect().await.unwrap_err())
    }

    #[tokio::test]
    async fn a_call_over_tls_is_answered_by_whom_the_policy_names() {
        let server = serve(identity("server")).await;
        call(channel(&server).tls(trusting("ca.pem")).connect().await.unwrap()).await.unwrap();
        for name in ["echo.example", "spiffe://example.org/echo"] {
            let tls = trusting("ca.pem").server_name(name);
            call(channel(&server).tls(tls).connect().await.unwrap()).await.unwrap();
        }
        // All in the target.
        let target = format!("static://{}/greeter?tls={}&tls_name=echo", server.address, file("ca.pem").display());
        call(Channel::connect(&target).await.unwrap()).await.unwrap();
        // From bytes, and with the provider named.
        let tls = ClientTls::new().ca_pem(fs::read(file("ca.pem")).unwrap()).provider(Provider::Ring);
        call(channel(&server).tls(tls).connect().await.unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn who_is_not_whom_the_policy_names_gets_no_call() {
        let server = serve(identity("server")).await;
        let wrong = |name: &str| channel(&server).tls(trusting("ca.pem").server_name(name));
        let error = refused(wrong("greeter.example")).await;
        let who = "for echo, echo.example, spiffe://example.org/echo, is not for greeter.example, who is expected";
        assert!(error.contains(who), "{error}");
        let error = refused(wrong("spiffe://example.org/ech")).await;
        assert!(error.contains("is not for spiffe://example.org/ech, who is expected"), "{error}");
        // A key of one's own making may name another, and does so before the policy.
        let address: callsign::Address = format!("grpcs://{}", server.address).parse().unwrap();
        let key = EndpointKey::from(address.clone()).with_server_name("elsewhere");
        let instance = callsign::ServiceInstance::builder("echo", "e").unwrap().address(address).build().unwrap();
        let builder = Channel::builder("echo").endpoints([callsign::Endpoint::new(key, instance)]);
        let error = refused(builder.ready_timeout(Duration::from_millis(500)).tls(trusting("ca.pem"))).await;
        assert!(error.contains("is not for elsewhere, who is expected"), "{error}");
    }

    #[tokio::test]
    async fn errors_say_which_certificate_and_what_is_wrong_with_it() {
        let server = serve(identity("server")).await;
        let error = refused(channel(&server).tls(trusting("other-ca.pem"))).await;
        let issuer = format!("is from an issuer that is not among {}", file("other-ca.pem").display());
        assert!(error.contains(&issuer) && error.contains(&server.address), "{error}");

        let expired = serve(identity("expired")).await;
        let error = refused(channel(&expired).tls(trusting("ca.pem"))).await;
        assert!(error.contains("for echo, expired on 2020-12-31 00:00:00 UTC"), "{error}");
        let future = serve(identity("future")).await;
        let error = refused(channel(&future).tls(trusting("ca.pem"))).await;
        assert!(error.contains("for echo, is valid only from 2100-01-01 00:00:00 UTC on"), "{error}");

        // A server in plaintext, and one that speaks no HTTP/2.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plain = transport::Server::builder().add_service(Echo::new("plain"));
        tokio::spawn(plain.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
        let to = |address| {
            Channel::builder(format!("static://{address}/echo"))
                .ready_timeout(Duration::from_millis(500))
                .tls(trusting("ca.pem"))
        };
        let error = refused(to(address)).await;
        assert!(error.contains("is it a plaintext server?"), "{error}");

        // And what cannot be right is said before anything is dialled.
        let wrong =
            |tls: ClientTls| format!("{:#}", Channel::builder("memory:///echo").tls(tls).connect_lazy().unwrap_err());
        assert!(wrong(trusting("none.pem")).contains("cannot read"), "{}", wrong(trusting("none.pem")));
        let error = wrong(trusting("server.key"));
        assert!(error.contains("server.key holds no certificate in PEM"), "{error}");
        let error = wrong(trusting("ca.pem").identity_files(file("client.pem"), file("server.key")));
        assert!(error.contains("server.key is not that of"), "{error}");
        let error = wrong(trusting("ca.pem").server_name("no name"));
        assert!(error.contains("cannot be the name of a certificate"), "{error}");
        let error = Channel::connect_lazy("memory:///echo?tls_name=a").unwrap_err().to_string();
        assert!(error.contains("tls_name, tls_cert and tls_key need tls"), "{error}");
    }

    #[tokio::test]
    async fn mutual_tls_lets_in_only_whom_it_knows() {
        let server = serve(identity("server").client_ca_file(file("ca.pem"))).await;
        let with = |name: &str| {
            let (chain, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
            channel(&server).tls(trusting("ca.pem").identity_files(chain, key))
        };
        // The handler was reached, and saw the certificate.
        let status = call(with("client").connect().await.unwrap()).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
        let error = refused(with("other-client")).await;
        assert!(error.contains("our certificate (ours is from") && error.contains("other-client.pem"), "{error}");
        let error = refused(channel(&server).tls(trusting("ca.pem"))).await;
        assert!(error.contains("wants a certificate of the client (that we have none)"), "{error}");

        let optional = identity("server").client_ca_file(file("ca.pem")).client_auth_optional(true);
        let server = serve(optional).await;
        call(channel(&server).tls(trusting("ca.pem")).connect().await.unwrap()).await.unwrap();
    }

    #[derive(Debug, Default)]
    struct Told(std::sync::Mutex<Vec<String>>);

    impl Observer for Told {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::TlsReloadFailed { error, .. } = event {
                self.0.lock().unwrap().push(format!("{error:#}"));
            }
        }
    }

    #[tokio::test]
    async fn certificates_keys_and_issuers_rotate_without_a_restart() {
        let dir = TempDir::new();
        let place = |name: &str| dir.path().join(name);
        let put = |from: &str, to: &str| {
            // As rotations do: a new file in place of the old one.
            fs::copy(file(from), place("new")).unwrap();
            fs::rename(place("new"), place(to)).unwrap();
        };
        put("server.pem", "chain.pem");
        put("server.key", "key.pem");
        put("ca.pem", "ca.pem");
        let server = serve(ServerTls::identity_files(place("chain.pem"), place("key.pem")).provider(provider())).await;
        let told = Arc::new(Told::default());
        let backoff = callsign::BackoffConfig::new(Duration::from_millis(20), Duration::from_millis(50));
        let builder =
            channel(&server).tls(ClientTls::new().ca_file(place("ca.pem")).provider(provider())).observer(told.clone());
        let rotating = builder.backoff(backoff).idle_timeout(Duration::from_millis(100)).connect().await.unwrap();
        call(rotating.clone()).await.unwrap();
        let old = || channel(&server).tls(trusting("ca.pem")).connect();
        let new = || channel(&server).tls(trusting("other-ca.pem")).connect();
        assert!(old().await.is_ok() && new().await.is_err());

        // The server's chain and key come one after the other: in between the old ones stay.
        put("other-server.pem", "chain.pem");
        assert!(old().await.is_ok() && new().await.is_err());
        put("other-server.key", "key.pem");
        assert!(old().await.is_err() && new().await.is_ok());

        // A channel's issuers: what is no PEM leaves the old ones, and is told.
        fs::write(place("ca.pem"), "-----BEGIN nonsense").unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let status = call(rotating.clone()).await.unwrap_err();
        assert!(status.message().contains("issuer"), "{status}");
        assert!(told.0.lock().unwrap().iter().any(|error| error.contains("ca.pem: it is not PEM")), "{told:?}");
        put("other-ca.pem", "ca.pem");
        tokio::time::timeout(Duration::from_secs(10), async {
            while call(rotating.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the new issuers are trusted");
    }

    #[tokio::test]
    async fn without_tls_a_secure_address_is_no_endpoint() {
        let server = serve(identity("server")).await;
        let error = refused(channel(&server)).await;
        assert!(error.contains("TLS"), "{error}");
    }

    #[tokio::test]
    async fn who_never_shakes_hands_holds_up_nobody() {
        let server = serve(identity("server")).await;
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(tokio::net::TcpStream::connect(&server.address).await.unwrap());
        }
        call(channel(&server).tls(trusting("ca.pem")).connect().await.unwrap()).await.unwrap();
    }

    #[test]
    fn keys_are_not_shown() {
        let key = fs::read(file("client.key")).unwrap();
        let (client, server) = (ClientTls::new().identity_pem(&key, &key), ServerTls::identity_pem(&key, &key));
        for text in [format!("{client:?}"), format!("{server:?}")] {
            assert!(!text.contains("PRIVATE") && !text.contains("45, 45"), "{text}");
        }
        let error = Channel::builder("memory:///x").tls(client).connect_lazy();
        assert!(!format!("{error:?}").contains("PRIVATE"));
    }
}
