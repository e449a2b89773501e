//! The server's side.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    H2, Provider,
    client::roots,
    files::{Identity, Pem, Reloaded},
};
use crate::{
    error::{Error, Kind, Result},
    observe::Observer,
    util::ahead::Ahead,
};

/// Who a server is, and whom it lets in.
///
/// Files are looked at before each handshake, and read again when they have changed; one that
/// cannot be read then leaves what there was in use, and is
/// [told](crate::observe::Event::TlsReloadFailed).
///
/// Handlers find the client's certificate with
/// [`peer_certs`](tonic::Request::peer_certs).
#[derive(Debug, Clone)]
#[must_use]
pub struct ServerTls {
    identity: Identity,
    clients: Option<Pem>,
    optional: bool,
    provider: Provider,
}

impl ServerTls {
    /// Shows the certificate in these PEM files: its chain, leaf first, and its key.
    pub fn identity_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        Self::new(Identity::files(chain, key))
    }

    /// Shows this certificate, in PEM: its chain, leaf first, and its key.
    pub fn identity_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        Self::new(Identity::pem(chain, key))
    }

    fn new(identity: Identity) -> Self {
        Self { identity, clients: None, optional: false, provider: Provider::default() }
    }

    /// Lets in only clients with a certificate of the issuers in this PEM file (mutual TLS).
    pub fn client_ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.clients = Some(Pem::File(path.as_ref().to_owned()));
        self
    }

    /// Lets in only clients with a certificate of the issuers in this PEM (mutual TLS).
    pub fn client_ca_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.clients = Some(Pem::Bytes(pem.as_ref().into()));
        self
    }

    /// Sets whether clients may come without a certificate all the same; one that they show is
    /// verified. Default: no.
    pub fn client_auth_optional(mut self, optional: bool) -> Self {
        self.optional = optional;
        self
    }

    /// Sets which library does the cryptography. Default: ring.
    pub fn provider(mut self, provider: Provider) -> Self {
        self.provider = provider;
        self
    }

    /// Reads the files, for a listener that speaks these protocols.
    pub(crate) fn prepare(self, http1: bool, observer: Arc<dyn Observer>) -> Result<ServerHandshake> {
        let mut sources = vec![self.identity.chain.clone(), self.identity.key.clone()];
        sources.extend(self.clients.clone());
        Ok(ServerHandshake(Reloaded::new(sources, observer, move || self.read(http1))?))
    }

    fn read(&self, http1: bool) -> Result<TlsAcceptor> {
        let provider = self.provider.get();
        let wrong = |source| Error::with_source(Kind::InvalidInput, "TLS cannot be set up", source);
        let config = ServerConfig::builder_with_provider(provider.clone());
        let config = config.with_safe_default_protocol_versions().map_err(wrong)?;
        let config = match &self.clients {
            None => config.with_no_client_auth(),
            Some(issuers) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots(Some(issuers))?.into(), provider);
                let verifier = if self.optional { verifier.allow_unauthenticated() } else { verifier };
                config.with_client_cert_verifier(verifier.build().map_err(|source| {
                    let context = format!("no certificate can be verified with the issuers from {issuers}");
                    Error::with_source(Kind::InvalidInput, context, source)
                })?)
            }
        };
        let Identity { chain, key } = &self.identity;
        let mut config = config.with_single_cert(chain.certificates()?, key.key()?).map_err(|source| {
            Error::with_source(Kind::InvalidInput, format!("the key from {key} is not that of {chain}"), source)
        })?;
        config.alpn_protocols = vec![H2.to_vec()];
        if http1 {
            config.alpn_protocols.push(b"http/1.1".to_vec());
        }
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Makes byte streams from clients secure.
#[derive(Clone)]
pub(crate) struct ServerHandshake(Arc<Reloaded<TlsAcceptor>>);

/// Who has not shaken hands by then is cut off.
const WITHIN: Duration = Duration::from_secs(10);

impl ServerHandshake {
    /// Shakes hands; none if that failed or took too long, which is the client's affair.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S) -> Option<TlsStream<Ahead<S>>> {
        let acceptor = self.0.current().await.ok()?;
        timeout(WITHIN, acceptor.accept(Ahead::new(io))).await.ok()?.ok()
    }
}
