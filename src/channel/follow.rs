//! Follows what a server says of its load, out of band, for the policies that want it.

use std::{sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use tokio::time::{Instant, sleep};
use tonic::{
    Code, Status,
    body::Body,
    client::{Grpc, GrpcService},
};

use super::direct::Direct;
use crate::{
    load::BriefReport,
    report::{METHOD, request},
    util::{
        backoff::{Backoff, BackoffConfig},
        raw::Raw,
        rng::Rng,
    },
};

impl Direct {
    /// Takes in reports for as long as it is polled; begins again, with a backoff, when they end. Ends by itself where
    /// the server knows of none.
    pub(super) async fn follow(self, every: Duration, backoff: Arc<BackoffConfig>, seed: u64) {
        let (mut backoff, mut rng) = (Backoff::new(backoff), Rng::seeded(seed));
        loop {
            match reports(self.clone(), every).await {
                Ok(mut reports) => {
                    while let Ok(Some(report)) = reports.message().await {
                        if let Some(report) = BriefReport::decode(&report) {
                            backoff.reset();
                            self.served.node().load().report(&report, Instant::now().into_std());
                        }
                    }
                }
                Err(status) if status.code() == Code::Unimplemented => return,
                Err(_) => {}
            }
            sleep(backoff.next(&mut rng)).await;
        }
    }
}

/// Asks for reports so often.
pub(super) async fn reports<S>(service: S, every: Duration) -> Result<tonic::Streaming<Vec<u8>>, Status>
where
    S: GrpcService<Body, Error = Status, ResponseBody = Body>,
{
    let mut grpc = Grpc::new(service).max_decoding_message_size(64 << 10);
    grpc.ready().await?;
    let asked = tonic::Request::new(request(every));
    Ok(grpc.server_streaming(asked, PathAndQuery::from_static(METHOD), Raw).await?.into_inner())
}
