//! A server's load reports, out of band.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tonic::Status;

use super::{Channel, follow::reports};
use crate::report::LoadReport;

impl Channel {
    /// Asks one server, whichever the policy picks, to say how busy it is so often, at most each second: the service
    /// `xds.service.orca.v3.OpenRcaService`, which [servers](crate::server::LoadReports) of this crate and of gRPC's
    /// other libraries offer where they are told to. Reports in responses need no asking, and a policy that wants these
    /// [asks by itself](crate::balance::Balancer::load_reports).
    ///
    /// The stream is a call, and counts as one in flight. It ends when the server or the connection does.
    ///
    /// # Errors
    ///
    /// `UNIMPLEMENTED` of a server that reports nothing, and whatever a call may end with. A report that cannot be
    /// read is an item with `INTERNAL`.
    pub async fn load_reports(
        &self,
        every: Duration,
    ) -> Result<impl Stream<Item = Result<LoadReport, Status>> + Send + Unpin + use<>, Status> {
        Ok(reports(self.clone(), every).await?.map(|message| {
            LoadReport::decode(&message?).ok_or_else(|| Status::internal("the server's load report is malformed"))
        }))
    }
}
