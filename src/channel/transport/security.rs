//! Whether byte streams are made secure, and how.

use std::io;
#[cfg(feature = "tls")]
use std::sync::Arc;

#[cfg(feature = "tls")]
use crate::tls::{self, ClientHandshake};
use crate::{channel::connect::Io, endpoint::EndpointKey, error::Result, util::ahead::Ahead};

/// Plaintext, or TLS.
#[derive(Debug, Clone, Default)]
pub(in crate::channel) struct Security {
    #[cfg(feature = "tls")]
    tls: Option<Arc<ClientHandshake>>,
}

#[cfg(feature = "tls")]
impl From<ClientHandshake> for Security {
    fn from(tls: ClientHandshake) -> Self {
        Self { tls: Some(Arc::new(tls)) }
    }
}

#[cfg(feature = "tls")]
impl Security {
    pub(in crate::channel) fn is_on(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) async fn secure(&self, io: Box<dyn Io>, key: &EndpointKey) -> Result<Box<dyn Io>> {
        let Some(tls) = &self.tls else { return Ok(Box::new(Ahead::new(io))) };
        Ok(Box::new(tls.connect(io, &key.to_string(), key.server_name()).await?))
    }

    /// What an error of a stream means, if TLS says: in its version 1.3 a server refuses a client's
    /// certificate only after the handshake.
    pub(super) fn explain(&self, error: &io::Error) -> Option<String> {
        let tls = self.tls.as_ref()?;
        match tls::cause(error)? {
            rustls::Error::AlertReceived(alert) => Some(tls::refused(*alert, tls.identity())),
            _ => None,
        }
    }
}

#[cfg(not(feature = "tls"))]
impl Security {
    pub(in crate::channel) fn is_on(&self) -> bool {
        false
    }

    pub(super) async fn secure(&self, io: Box<dyn Io>, _: &EndpointKey) -> Result<Box<dyn Io>> {
        Ok(Box::new(Ahead::new(io)))
    }

    pub(super) fn explain(&self, _: &io::Error) -> Option<String> {
        None
    }
}
