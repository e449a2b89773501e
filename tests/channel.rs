//! What a channel does for its calls.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    convert::Infallible,
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use callsign::{
    Address, Channel, Endpoint, Kind, ServiceInstance,
    balance::{Balancer, Node, Pick, PickInfo, Picker, Policy},
    channel::CallOptions,
    testing::net::Net,
};
use futures_util::{StreamExt, stream};
use support::{
    echo::{EchoClient, EchoRequest},
    endpoint, fed, raw, serve,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, codec::CompressionEncoding};
use tower::{ServiceBuilder, discover::Change};

fn one(net: &Net) -> Channel {
    serve(net, "a", "a:1");
    fed(net, &[endpoint("a", "a:1")]).0.connect_lazy().unwrap()
}

fn payload(payload: &[u8]) -> EchoRequest {
    EchoRequest { payload: payload.to_vec(), ..EchoRequest::default() }
}

#[tokio::test(start_paused = true)]
async fn a_unary_call_is_answered_and_says_by_whom() {
    let net = Net::new();
    serve(&net, "a", "a:1");
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.report_endpoint(true).connect_lazy().unwrap();
    let response = EchoClient::new(channel).unary(payload(b"hi")).await.unwrap();
    let served = response.extensions().get::<Endpoint>().unwrap();
    assert_eq!((served.instance().id().as_str(), served.to_string().as_str()), ("a", "a (a:1)"));
    assert_eq!((response.get_ref().payload.as_slice(), response.get_ref().server.as_str()), (&b"hi"[..], "a"));
}

#[tokio::test(start_paused = true)]
async fn all_kinds_of_streaming_work() {
    let net = Net::new();
    let mut client = EchoClient::new(one(&net));

    let request = EchoRequest { replies: 1000, ..payload(b"x") };
    let replies: Vec<_> = client.server_stream(request).await.unwrap().into_inner().collect().await;
    assert_eq!(replies.len(), 1000);
    assert!(replies.iter().all(|reply| reply.as_ref().unwrap().payload == b"x"));

    let requests = stream::iter((0..1000u32).map(|n| payload(&n.to_be_bytes())));
    let reply = client.client_stream(requests).await.unwrap().into_inner();
    assert_eq!(reply.payload, (0..1000u32).flat_map(u32::to_be_bytes).collect::<Vec<_>>());

    // Ping and pong: each request is sent only after the reply to the one before.
    let (send, requests) = tokio::sync::mpsc::channel(1);
    send.send(payload(b"0")).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut replies = client.bidi(requests).await.unwrap().into_inner();
    for n in 1..100u8 {
        replies.message().await.unwrap().unwrap();
        send.send(payload(&[n])).await.unwrap();
    }
    drop(send);
    assert_eq!(replies.message().await.unwrap().unwrap().payload, [99]);
    assert!(replies.message().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn metadata_goes_both_ways_and_the_client_introduces_itself() {
    let net = Net::new();
    serve(&net, "a", "a:1");
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let mut request = Request::new(payload(b""));
    request.metadata_mut().insert("echo-text", "text".parse().unwrap());
    request.metadata_mut().insert_bin("echo-bytes-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 255]));
    request.set_timeout(Duration::from_millis(250));
    let mut client = EchoClient::new(builder.user_agent("app/1").connect().await.unwrap());
    let response = client.unary(request).await.unwrap();
    let saw = |key: &str| response.metadata().get(key).unwrap().to_str().unwrap().to_owned();
    assert_eq!(saw("saw-echo-text"), "text");
    assert_eq!(saw("saw-te"), "trailers");
    assert_eq!(saw("saw-grpc-timeout"), "250000u");
    assert!(saw("saw-user-agent").starts_with("app/1 grpc-rust-callsign/"), "{}", saw("saw-user-agent"));
    assert_eq!(response.metadata().get_bin("saw-bytes-bin").unwrap().to_bytes().unwrap().as_ref(), [0, 255]);
}

#[tokio::test(start_paused = true)]
async fn compressed_messages_and_large_ones_arrive_whole() {
    let net = Net::new();
    let mut client = EchoClient::new(one(&net))
        .max_decoding_message_size(64 << 20)
        .max_encoding_message_size(64 << 20)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let large: Vec<u8> = (0..9_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(client.unary(payload(&large)).await.unwrap().into_inner().payload == large);

    let mut client = client.send_compressed(CompressionEncoding::Gzip);
    let chunks: Vec<_> = large.chunks(100_000).map(payload).collect();
    let reply = client.client_stream(stream::iter(chunks)).await.unwrap().into_inner();
    assert!(reply.payload == large);
}

#[tokio::test(start_paused = true)]
async fn the_application_s_status_arrives_as_it_was_sent() {
    let net = Net::new();
    let mut client = EchoClient::new(one(&net));
    let status = client.unary(EchoRequest { code: 9, ..EchoRequest::default() }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "as you wish"));
    let mut replies =
        client.server_stream(EchoRequest { replies: 2, code: 10, ..payload(b"") }).await.unwrap().into_inner();
    assert!(replies.message().await.unwrap().is_some() && replies.message().await.unwrap().is_some());
    assert_eq!(replies.message().await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test(start_paused = true)]
async fn no_call_outlives_its_deadline() {
    let net = Net::new();
    let mut client = EchoClient::new(one(&net));
    let timed = |message: EchoRequest| {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_millis(200));
        request
    };
    client.unary(payload(b"warm")).await.unwrap();

    let begun = Instant::now();
    let slow = EchoRequest { delay_ms: 10_000, ..payload(b"") };
    let status = client.unary(timed(slow.clone())).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() <= Duration::from_millis(202), "{:?}", begun.elapsed());

    // The head of a stream comes at once; its messages do not.
    let begun = Instant::now();
    let mut replies = client.server_stream(timed(EchoRequest { replies: 5, ..slow })).await.unwrap().into_inner();
    let status = replies.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() <= Duration::from_millis(202), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_local_deadline_names_the_endpoint() {
    let net = Net::new();
    // A server that never answers, so the deadline is ours alone.
    raw::listen(&net, "a:1", |_, mut connection| async move {
        let mut held = Vec::new();
        while let Some(Ok(call)) = connection.accept().await {
            held.push(call);
        }
    });
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let channel = builder.timeout(Duration::from_millis(100)).connect().await.unwrap();
    let status = EchoClient::new(channel).unary(payload(b"")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "echo at a (a:1): the deadline passed before the response");
    assert_eq!(status.source().unwrap().downcast_ref::<callsign::Error>().unwrap().kind(), Kind::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_call_resets_its_stream() {
    let net = Net::new();
    let (told, mut cancelled) = tokio::sync::mpsc::unbounded_channel();
    raw::listen(&net, "a:1", move |_, mut connection| {
        let told = told.clone();
        async move {
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let told = told.clone();
                tokio::spawn(async move {
                    let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                    told.send(reason.unwrap()).unwrap();
                });
            }
        }
    });
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1")]);
    let mut client = EchoClient::new(builder.connect().await.unwrap());
    assert!(timeout(Duration::from_millis(50), client.unary(payload(b""))).await.is_err());
    assert_eq!(cancelled.recv().await, Some(h2::Reason::CANCEL));
    // And one whose request still goes on.
    let call = client.client_stream(stream::once(async { payload(b"") }).chain(stream::pending()));
    assert!(timeout(Duration::from_millis(50), call).await.is_err());
    assert_eq!(cancelled.recv().await, Some(h2::Reason::CANCEL));
}

#[tokio::test(start_paused = true)]
async fn it_is_a_service_for_layers() {
    let net = Net::new();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let channel = ServiceBuilder::new()
        .map_request(move |request: http::Request<tonic::body::Body>| {
            counter.fetch_add(1, Relaxed);
            request
        })
        .service(one(&net));
    EchoClient::new(channel).unary(payload(b"")).await.unwrap();
    assert_eq!(count.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_balancer_of_one_s_own_plugs_in() {
    #[derive(Debug)]
    struct ByHeader;
    impl Balancer for ByHeader {
        fn name(&self) -> &str {
            "by_header"
        }

        fn rebuild(&mut self, ready: &[Node]) -> Box<dyn Picker> {
            let ids: Vec<_> = ready.iter().map(|node| node.endpoint().instance().id().to_string()).collect();
            Box::new(move |info: &PickInfo<'_>| {
                let wanted = info.headers.get("to").and_then(|to| to.to_str().ok());
                match ids.iter().position(|id| Some(id.as_str()) == wanted) {
                    Some(at) => Pick::At(at),
                    None => Pick::Drop(callsign::Error::new(Kind::NotFound, "nobody of that name")),
                }
            })
        }
    }
    let net = Net::new();
    let endpoints = ["a", "b", "c"].map(|id| {
        serve(&net, id, &format!("{id}:1"));
        endpoint(id, &format!("{id}:1"))
    });
    let (builder, _feed) = fed(&net, &endpoints);
    let channel = builder.policy(Policy::new("by_header", |_| ByHeader)).connect().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let mut client = EchoClient::new(channel);
    for (to, want) in [("c", Ok("c")), ("a", Ok("a")), ("x", Err(Code::Unavailable))] {
        let mut request = Request::new(payload(b""));
        request.metadata_mut().insert("to", to.parse().unwrap());
        // A dropped call does not wait, even if it said it would.
        request.extensions_mut().insert(CallOptions::new().wait_for_ready(true));
        let served = client.unary(request).await.map(|reply| reply.into_inner().server).map_err(|status| status.code());
        assert_eq!(served, want.map(str::to_owned));
    }
}

#[tokio::test(start_paused = true)]
async fn any_discover_will_do() {
    let net = Net::new();
    serve(&net, "a", "a:1");
    serve(&net, "b", "b:1");
    // Keys of another type, errors in between, one place under two keys, and an end.
    let changes: Vec<Result<Change<u8, Endpoint>, &str>> = vec![
        Err("not yet"),
        Ok(Change::Insert(1, endpoint("a", "a:1"))),
        Ok(Change::Insert(2, endpoint("a", "a:1"))),
        Err("hiccup"),
        Ok(Change::Remove(1)),
        Ok(Change::Insert(3, endpoint("b", "b:1"))),
        Ok(Change::Insert(2, endpoint("b", "b:1"))),
    ];
    let channel =
        Channel::builder("echo").connector(net.connector()).discover(stream::iter(changes)).connect().await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let served = EchoClient::new(channel).unary(payload(b"")).await.unwrap().into_inner().server;
    assert_eq!((served.as_str(), net.open("a:1"), net.open("b:1")), ("b", 0, 1));
}

#[tokio::test(start_paused = true)]
async fn connecting_says_what_it_waited_for_and_why() {
    let net = Net::new();
    let (builder, _feed) = fed(&net, &[endpoint("a", "a:1"), endpoint("b", "b:1")]);
    let begun = Instant::now();
    let error = builder.ready_timeout(Duration::from_secs(2)).connect().await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 2);
    let text = format!("{error:#}");
    for part in ["echo: waited 2.0s", "none of 2 endpoints", "a: cannot connect to grpc://a:1: refused", "b: cannot"] {
        assert!(text.contains(part), "{text}");
    }

    let (builder, _feed) = fed(&net, &[]);
    let error = builder.connect().await.unwrap_err();
    assert!(format!("{error:#}").contains("discovery has not said anything yet"), "{error:#}");
}

#[test]
fn outside_a_runtime_it_is_an_error_not_a_panic() {
    let discover = stream::empty::<Result<Change<u8, Endpoint>, Infallible>>();
    let error = Channel::builder("echo").discover(discover).connect_lazy().unwrap_err();
    assert!(error.kind() == Kind::InvalidInput && error.to_string().contains("Tokio runtime"), "{error:#}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn unix_sockets_are_addresses_by_path_and_abstract() {
    use std::os::{linux::net::SocketAddrExt, unix::net};
    let dir = support::dir::TempDir::new();
    let path = dir.path().join("echo.sock").display().to_string();
    let name = format!("callsign-test-{}", std::process::id());
    let by_path = net::UnixListener::bind(&path).unwrap();
    let by_name = net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for (listener, address) in [(by_path, path), (by_name, format!("@{name}"))] {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        let server = tonic::transport::Server::builder().add_service(support::echo::Echo::new("unix"));
        tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener)));
        let address: Address = format!("unix://{address}").parse().unwrap();
        let instance = ServiceInstance::builder("echo", "u").unwrap().address(address.clone()).build().unwrap();
        let channel = Channel::builder("echo").endpoints([Endpoint::new(address.into(), instance)]);
        let reply = EchoClient::new(channel.connect().await.unwrap()).unary(payload(b"")).await.unwrap();
        assert_eq!(reply.into_inner().server, "unix");
    }
}
