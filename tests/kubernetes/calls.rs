//! Calls to where EndpointSlices say.

use callsign::{
    Channel, EndpointKey, Error,
    channel::{Connector, Io},
};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::echo::{Echo, EchoClient, EchoRequest};

/// Slices may not have addresses of this machine alone: each is taken for 127.0.0.1.
#[derive(Debug)]
struct Here;

impl Connector for Here {
    fn connect<'a>(&'a self, to: &'a EndpointKey) -> callsign::registry::BoxFuture<'a, callsign::Result<Box<dyn Io>>> {
        Box::pin(async {
            let port = to.addresses()[0].port().unwrap();
            let stream = TcpStream::connect(("127.0.0.1", port)).await;
            let wrong = |source| Error::with_source(Kind::Unavailable, "cannot connect", source);
            stream.map(|stream| Box::new(stream) as _).map_err(wrong)
        })
    }
}

async fn serve(name: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let router = tonic::transport::Server::builder().add_service(Echo::new(name));
    tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
    port
}

const SHOP: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";

/// An instance in a slice of its own, since a slice has one port for all.
struct Place<'a> {
    real: &'a KubeApiserver,
    name: &'static str,
    address: &'static str,
    port: u16,
}

impl Place<'_> {
    fn slice(&self, more: &Value) -> Value {
        let mut endpoint = json!({"addresses": [self.address]});
        endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        slice_of(self.name, "greeter", self.port, &json!([endpoint]))
    }

    fn make(&self, more: &Value) {
        self.real.ask("POST", SHOP, JSON, &self.slice(more).to_string());
    }

    fn change(&self, more: &Value) {
        let said = self.real.ask("PUT", &format!("{SHOP}/{}", self.name), JSON, &self.slice(more).to_string());
        assert!(said.contains("resourceVersion"), "{said}");
    }
}

/// Waits until every one of 20 calls goes to one of these, and each of these has some.
async fn until_answers(channel: &Channel, wanted: &[&str]) {
    let answers = async {
        loop {
            let mut from = std::collections::BTreeSet::new();
            for _ in 0..20 {
                let reply = EchoClient::new(channel.clone()).unary(EchoRequest::default()).await.unwrap();
                from.insert(reply.into_inner().server);
            }
            if from.iter().map(String::as_str).eq(wanted.iter().copied()) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(BOUND, answers).await.is_ok(), "wanted answers of {wanted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_where_the_slices_say() {
    let Some(real) = shared() else { return };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    real.ask("POST", "/api/v1/namespaces", JSON, &namespace.to_string());
    let a = Place { real: &real, name: "a", address: "10.2.0.1", port: serve("a").await };
    let b = Place { real: &real, name: "b", address: "10.2.0.2", port: serve("b").await };
    a.make(&json!({}));

    let target =
        |more: &str| format!("kubernetes:///greeter.shop:grpc?kubeconfig={}{more}", real.kubeconfig("admin").display());
    let open = |more: &str| {
        let target: callsign::Target = target(more).parse().unwrap();
        Channel::builder(target).connector(Here).connect_lazy().unwrap()
    };
    let channel = open("");
    let zones = ["z1", "z2"].map(|zone| open(&format!("&hint_zone={zone}")));
    until_answers(&channel, &["a"]).await;
    b.make(&json!({}));
    until_answers(&channel, &["a", "b"]).await;

    // W7: a terminating Pod stayed listed. Who terminates is called only while nobody else is ready.
    let terminates = json!({"conditions": {"ready": false, "serving": true, "terminating": true}});
    let unready = json!({"conditions": {"ready": false, "serving": false, "terminating": false}});
    a.change(&terminates);
    until_answers(&channel, &["b"]).await;
    b.change(&unready);
    until_answers(&channel, &["a"]).await;
    b.change(&json!({"conditions": {"ready": true}}));
    until_answers(&channel, &["b"]).await;

    // Hints count where all have them, and for a client that says its zone.
    let hinted = |zone: &str| json!({"zone": zone, "hints": {"forZones": [{"name": zone}]}});
    a.change(&hinted("z1"));
    for zone in &zones {
        until_answers(zone, &["a", "b"]).await;
    }
    b.change(&hinted("z2"));
    until_answers(&zones[0], &["a"]).await;
    until_answers(&zones[1], &["b"]).await;
    until_answers(&channel, &["a", "b"]).await;
    b.change(&terminates);
    until_answers(&zones[1], &["a"]).await;
}
