//! Whom a server's certificate must name, and the verifier that holds it to that.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use webpki::EndEntityCert;

use crate::error::{Error, Result};

/// Whom a certificate must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A DNS name or an IP address, by a subject alternative name.
    Host(Arc<str>),
    /// A workload, by the one URI among the subject alternative names
    /// ([X.509-SVID](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md)).
    Spiffe(Arc<str>),
}

impl Expected {
    pub(super) fn parse(name: &str) -> Result<Self> {
        if let Some(id) = name.strip_prefix("spiffe://") {
            let (domain, path) = id.split_once('/').unwrap_or((id, ""));
            if domain.is_empty()
                || path.is_empty()
                || name.len() > 2048
                || !name.bytes().all(|byte| byte.is_ascii_graphic())
            {
                return Err(Error::invalid(format!(
                    "{name:?} is no SPIFFE id: write it as spiffe://trust.domain/path"
                )));
            }
            return Ok(Self::Spiffe(name.into()));
        }
        if ServerName::try_from(name).is_err() {
            return Err(Error::invalid(format!(
                "{name:?} cannot be the name of a certificate: it is neither a DNS name, an IP address nor a SPIFFE \
                 id; set the one that the servers' certificates carry (ClientTls::server_name, or tls_name= in a target)"
            )));
        }
        Ok(Self::Host(name.into()))
    }

    /// What goes into SNI, and what rustls compares.
    pub(super) fn server_name(&self, service: &str) -> ServerName<'static> {
        let name = match self {
            Self::Host(name) => name,
            Self::Spiffe(_) => service,
        };
        // With a SPIFFE id the name is not compared; some name SNI must have.
        ServerName::try_from(name.to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED).into()))
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Host(name) | Self::Spiffe(name)) = self;
        f.write_str(name)
    }
}

/// Verifies one server's certificate, and remembers whom it names.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) expected: Expected,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) inner: Arc<WebPkiServerVerifier>,
    pub(super) presented: Arc<OnceLock<String>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let names = names(end_entity);
        let _ = self.presented.set(if names.is_empty() { "nobody".to_owned() } else { names.join(", ") });
        let Expected::Spiffe(id) = &self.expected else {
            // Not whom the connection is to: an HTTP client dials a host, and expects what it was told.
            let name = self.expected.server_name("");
            return self.inner.verify_server_cert(end_entity, intermediates, &name, ocsp, now);
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        let uris: Vec<_> = uris(end_entity);
        // Exactly one URI: with several it could be taken for several workloads.
        if let [uri] = uris.as_slice()
            && **uri == **id
        {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForName.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// So many names of a certificate are told.
const TOLD: usize = 8;

fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    let dns = parsed.valid_dns_names().map(str::to_owned);
    dns.chain(uris(certificate)).take(TOLD).collect()
}

fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    parsed.valid_uri_names().map(str::to_owned).collect()
}
