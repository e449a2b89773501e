//! TLS of a client that makes its connections by itself, as those of HTTP do.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::{
    client::{ClientTls, Trusted},
    error::{Failed, tls as cause},
    files::{Pem, Reloaded},
    name::{Expected, Verifier},
};
use crate::{
    error::{Error, Kind, Result},
    observe::Observer,
};

/// A client made of a policy of TLS, and made anew when one of its files has changed: connections of the
/// one before end with its requests.
#[derive(Debug)]
pub(crate) struct HttpTls<T> {
    made: Arc<Reloaded<T>>,
    name: Option<Expected>,
    roots: String,
    identity: Option<String>,
}

impl<T: Send + Sync + 'static> HttpTls<T> {
    /// Reads the files. Without a policy nobody is trusted, as for what speaks plaintext alone.
    pub(crate) fn new(
        tls: Option<ClientTls>,
        observer: Arc<dyn Observer>,
        make: impl Fn(ClientConfig) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let Some(tls) = tls else {
            let made = Reloaded::new(Vec::new(), observer, move || make(nobody()?))?;
            return Ok(Self { made, name: None, roots: "those of nobody".to_owned(), identity: None });
        };
        let name = tls.name.as_deref().map(Expected::parse).transpose()?;
        let roots = tls.roots.as_ref().map_or_else(|| "those that the system trusts".to_owned(), Pem::to_string);
        let identity = tls.identity.as_ref().map(|identity| identity.chain.to_string());
        let expected = name.clone();
        let made = Reloaded::new(tls.sources(), observer, move || make(config(&tls, expected.as_ref())?))?;
        Ok(Self { made, name, roots, identity })
    }

    /// The client for the files as they are now.
    pub(crate) async fn current(&self) -> Result<Arc<T>> {
        self.made.current().await
    }

    /// What a failed request to a peer says of TLS; none if it failed otherwise.
    pub(crate) fn explain(&self, peer: &str, host: &str, error: &(dyn std::error::Error + 'static)) -> Option<String> {
        let why = cause(error)?;
        let expected = self.name.clone().or_else(|| Expected::parse(host).ok())?;
        let (roots, identity) = (self.roots.as_str(), self.identity.as_deref());
        Some(Failed { peer, expected: &expected, presented: None, roots, identity }.why(why))
    }
}

/// A host's certificate must name it, or all of them the name that is set.
fn config(tls: &ClientTls, expected: Option<&Expected>) -> Result<ClientConfig> {
    let provider = tls.provider.get();
    let Trusted { roots, verifier, mut config } = Trusted::read(tls, &provider)?;
    if let Some(expected) = expected.cloned() {
        let verifier = Verifier { expected, roots, provider, inner: verifier, presented: Arc::default() };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
    }
    config.alpn_protocols.clear();
    Ok(config)
}

fn nobody() -> Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(super::Provider::default().get());
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|source| Error::with_source(Kind::Internal, "TLS cannot be set up", source))?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
