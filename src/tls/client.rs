//! The client's side.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use rustls::{ClientConfig, RootCertStore, client::WebPkiServerVerifier, crypto::CryptoProvider};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    H2, Provider,
    error::{Failed, no_h2},
    files::{Identity, Pem, Reloaded},
    name::{Expected, Verifier},
};
use crate::{
    error::{Error, Kind, Result},
    observe::Observer,
    util::ahead::Ahead,
};

/// How a channel makes sure of its servers, and who it is itself.
///
/// A server is who it should be if its certificate comes from a trusted issuer and names the
/// service that is called, or the [name](Self::server_name) set here. What a registry says of an
/// instance decides nothing of this.
///
/// Files are looked at before each handshake, and read again when they have changed; one that
/// cannot be read then leaves what there was in use, and is
/// [told](crate::observe::Event::TlsReloadFailed).
///
/// ```
/// # fn main() -> callsign::Result<()> {
/// use callsign::{Channel, tls::ClientTls};
///
/// let tls = ClientTls::new()
///     .ca_file("/etc/tls/ca.pem")
///     .identity_files("/etc/tls/client.pem", "/etc/tls/client.key")
///     .server_name("greeter.prod.internal");
/// let channel = Channel::builder("static://10.0.0.5:9000/greeter").tls(tls);
/// # let _ = channel;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ClientTls {
    pub(super) roots: Option<Pem>,
    pub(super) identity: Option<Identity>,
    pub(super) name: Option<String>,
    pub(super) provider: Provider,
}

impl ClientTls {
    /// Trusts the issuers that the system trusts, and expects the service's name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the issuers in this PEM file, and no others.
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.roots = Some(Pem::File(path.as_ref().to_owned()));
        self
    }

    /// Trusts the issuers in this PEM, and no others.
    pub fn ca_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.roots = Some(Pem::Bytes(pem.as_ref().into()));
        self
    }

    /// Shows servers that ask for one the certificate in these PEM files: its chain, leaf first, and
    /// its key.
    pub fn identity_files(mut self, chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.identity = Some(Identity::files(chain, key));
        self
    }

    /// Shows servers that ask for one this certificate, in PEM: its chain, leaf first, and its key.
    pub fn identity_pem(mut self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some(Identity::pem(chain, key));
        self
    }

    /// Sets whom a server's certificate must name: a DNS name, an IP address, or the SPIFFE id
    /// (`spiffe://trust.domain/path`) of the servers. Default: the service's name.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets which library does the cryptography. Default: ring.
    pub fn provider(mut self, provider: Provider) -> Self {
        self.provider = provider;
        self
    }

    /// Whom a server's certificate must name, if that was set.
    #[cfg(any(feature = "etcd", feature = "zookeeper"))]
    pub(crate) fn expects(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What is read again when it changes.
    pub(super) fn sources(&self) -> Vec<Pem> {
        let mut sources: Vec<_> = self.roots.iter().cloned().collect();
        sources.extend(self.identity.iter().flat_map(|identity| [identity.chain.clone(), identity.key.clone()]));
        sources
    }

    /// Reads the files.
    pub(crate) fn prepare(self, service: &str, observer: Arc<dyn Observer>) -> Result<ClientHandshake> {
        let expected = match &self.name {
            Some(name) => Expected::parse(name),
            None => Expected::parse(service)
                .map_err(|error| error.context(format!("TLS expects the certificate of {service} to carry its name"))),
        }?;
        let roots = self.roots.as_ref().map_or_else(|| "those that the system trusts".to_owned(), Pem::to_string);
        let identity = self.identity.as_ref().map(|identity| identity.chain.to_string());
        let sources = self.sources();
        let (provider, service) = (self.provider.get(), service.into());
        let trusted = Reloaded::new(sources, observer, {
            let provider = provider.clone();
            move || Trusted::read(&self, &provider)
        })?;
        Ok(ClientHandshake { trusted, expected, provider, service, roots, identity, h2: true })
    }
}

/// What the files hold.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) verifier: Arc<WebPkiServerVerifier>,
    pub(super) config: ClientConfig,
}

impl Trusted {
    pub(super) fn read(tls: &ClientTls, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let roots = Arc::new(roots(tls.roots.as_ref())?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let verifier = verifier.map_err(|source| {
            Error::with_source(Kind::InvalidInput, "no certificate can be verified with these issuers", source)
        })?;
        let wrong = |source| Error::with_source(Kind::InvalidInput, "TLS cannot be set up", source);
        let config = ClientConfig::builder_with_provider(provider.clone());
        let config = config.with_safe_default_protocol_versions().map_err(wrong)?;
        let config = config.with_webpki_verifier(verifier.clone());
        let mut config = match &tls.identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = (identity.chain.certificates()?, identity.key.key()?);
                config.with_client_auth_cert(chain, key).map_err(|source| {
                    let context = format!("the key from {} is not that of {}", identity.key, identity.chain);
                    Error::with_source(Kind::InvalidInput, context, source)
                })?
            }
        };
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(Self { roots, verifier, config })
    }
}

/// The issuers to trust.
pub(super) fn roots(from: Option<&Pem>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match from {
        Some(pem) => {
            for certificate in pem.certificates()? {
                roots.add(certificate).map_err(|source| {
                    Error::with_source(Kind::InvalidInput, format!("{pem} holds what is no certificate"), source)
                })?;
            }
        }
        None => {
            let loaded = rustls_native_certs::load_native_certs();
            // A few that make no sense are usual.
            roots.add_parsable_certificates(loaded.certs);
            if roots.is_empty() {
                let why = loaded.errors.into_iter().next().map_or_else(String::new, |error| format!(": {error}"));
                return Err(Error::invalid(format!(
                    "the system trusts no issuer of certificates{why}; name a file (ClientTls::ca_file, or tls= in a target)"
                )));
            }
        }
    }
    Ok(roots)
}

/// Makes byte streams to servers secure.
#[derive(Debug)]
pub(crate) struct ClientHandshake {
    trusted: Arc<Reloaded<Trusted>>,
    expected: Expected,
    provider: Arc<CryptoProvider>,
    service: Arc<str>,
    roots: String,
    identity: Option<String>,
    /// Whether gRPC is spoken there.
    h2: bool,
}

impl ClientHandshake {
    /// The same where something else than gRPC is spoken: no protocol is asked for.
    #[cfg(feature = "zookeeper")]
    pub(crate) fn without_h2(self) -> Self {
        Self { h2: false, ..self }
    }

    /// Where our own certificate comes from, if we have one.
    pub(crate) fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// Shakes hands with a server that should have this name, or the one of the policy.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
        peer: &str,
        name: Option<&str>,
    ) -> Result<TlsStream<Ahead<S>>> {
        let expected = name.map_or_else(|| Ok(self.expected.clone()), Expected::parse)?;
        let trusted = self.trusted.current().await?;
        let presented = Arc::new(OnceLock::new());
        let verifier = Verifier {
            expected: expected.clone(),
            roots: trusted.roots.clone(),
            provider: self.provider.clone(),
            inner: trusted.verifier.clone(),
            presented: presented.clone(),
        };
        let mut config = trusted.config.clone();
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        if !self.h2 {
            config.alpn_protocols.clear();
        }
        let to = expected.server_name(&self.service);
        let stream = TlsConnector::from(Arc::new(config)).connect(to, Ahead::new(io)).await.map_err(|error| {
            let failed = Failed {
                peer,
                expected: &expected,
                presented: presented.get().map(String::as_str),
                roots: &self.roots,
                identity: self.identity.as_deref(),
            };
            failed.explain(error)
        })?;
        if self.h2 && stream.get_ref().1.alpn_protocol() != Some(H2) {
            return Err(Error::unavailable(no_h2(peer)));
        }
        Ok(stream)
    }
}
