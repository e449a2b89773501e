//! TLS for channels and servers, by rustls: certificates are read from files again when these change.
//!
//! Which crypto provider is used is said here, never by a process-wide default.

mod client;
mod date;
mod error;
mod files;
#[cfg(feature = "consul")]
mod http;
mod name;
#[cfg(feature = "server")]
mod server;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use self::client::ClientTls;
#[cfg(feature = "consul")]
pub(crate) use self::http::HttpTls;
#[cfg(feature = "server")]
pub(crate) use self::server::ServerHandshake;
#[cfg(feature = "server")]
pub use self::server::ServerTls;
pub(crate) use self::{
    client::ClientHandshake,
    error::{refused, tls as cause},
};

/// Which library does the cryptography.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Provider {
    /// [ring](https://docs.rs/ring), the default.
    #[default]
    Ring,
    /// [AWS-LC](https://docs.rs/aws-lc-rs): feature `aws-lc`.
    #[cfg(feature = "aws-lc")]
    AwsLc,
}

impl Provider {
    fn get(self) -> Arc<CryptoProvider> {
        Arc::new(match self {
            Self::Ring => rustls::crypto::ring::default_provider(),
            #[cfg(feature = "aws-lc")]
            Self::AwsLc => rustls::crypto::aws_lc_rs::default_provider(),
        })
    }
}

/// What is negotiated for gRPC: HTTP/2, or nothing.
const H2: &[u8] = b"h2";
