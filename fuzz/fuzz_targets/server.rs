//! A server that says, after its SETTINGS, whatever the fuzzer says: no call may panic or hang.
//!
//! `cargo fuzz run server`, with seeds in `fuzz/corpus/server`.

#![no_main]

use std::time::Duration;

use bytes::Bytes;
use callsign::{Address, Channel, Endpoint, ServiceInstance, testing::net::Net};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};
use tonic::{body::Body, client::GrpcService};

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

fuzz_target!(|said: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(one(said.to_vec()));
});

async fn one(said: Vec<u8>) {
    let net = Net::new();
    let mut listener = net.listen("a:1");
    tokio::spawn(async move {
        while let Some(Ok(mut io)) = listener.next().await {
            let said = said.clone();
            tokio::spawn(async move {
                io.write_all(&SETTINGS).await?;
                // The preface, SETTINGS and a call: then it speaks.
                let mut heard = vec![0; 1024];
                while let Ok(Ok(1..)) = timeout(Duration::from_millis(2), io.read(&mut heard)).await {}
                io.write_all(&said).await?;
                sleep(Duration::from_secs(60)).await;
                Ok::<_, std::io::Error>(())
            });
        }
    });
    let address: Address = "grpc://a:1".parse().expect("an address");
    let instance = ServiceInstance::builder("echo", "a").expect("names").address(address.clone()).build();
    let endpoint = Endpoint::new(address.into(), instance.expect("an instance"));
    let builder = Channel::builder("echo").connector(net.connector()).endpoints([endpoint]).seed(1);
    let mut channel = builder.timeout(Duration::from_secs(1)).connect_lazy().expect("a channel");
    let calls = async {
        for _ in 0..2 {
            let body = Body::new(Full::new(Bytes::from_static(&[0; 5])).map_err(|never| match never {}));
            let request = http::Request::post("http://echo/echo.v1.Echo/Unary").body(body).expect("a request");
            if let Ok(response) = GrpcService::call(&mut channel, request).await {
                let mut body = response.into_body();
                while let Some(Ok(_)) = body.frame().await {}
            }
        }
    };
    timeout(Duration::from_secs(10), calls).await.expect("a call ends by its deadline");
}
