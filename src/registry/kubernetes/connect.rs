//! Connections to the API server, and the configuration that says where it is and who we are.
//!
//! Kube's own TLS takes the process-wide crypto provider, and sets or misses it; so here is its configuration and
//! authentication, but a connector of ours, with ring. Files of certificates are read at each connection, so that
//! those which rotate are found.

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Uri};
use hyper_util::{
    client::legacy::{Client as Legacy, connect::Connection},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tower::{Layer, Service};

use crate::{
    error::{Error, Kind, Result},
    util::task::blocking,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// How long a connection may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) context: Option<String>,
    pub(super) plaintext: bool,
}

impl Source {
    async fn load(&self) -> Result<Config> {
        let wrong = |source: KubeconfigError| {
            Error::with_source(Kind::NotFound, "there is no usable Kubernetes configuration", source)
        };
        let path = self.kubeconfig.clone();
        let explicit = path.is_some() || self.context.is_some();
        let read = blocking(move || {
            let read = path.map_or_else(Kubeconfig::read, Kubeconfig::read_from);
            if read.is_ok() || explicit || std::env::var_os("KUBECONFIG").is_some_and(|paths| !paths.is_empty()) {
                return read.map(Ok).map_err(wrong);
            }
            // No file of ours: what every Pod finds in itself.
            Config::incluster().map(Err).map_err(|source| {
                let context = "there is neither a kubeconfig nor the environment and files of a Pod; name a file by \
                               KUBECONFIG or kubeconfig=";
                Error::with_source(Kind::NotFound, context, source)
            })
        });
        let config = match read.await? {
            Err(config) => config,
            Ok(kubeconfig) => {
                let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrong)?
            }
        };
        self.check(&config)?;
        Ok(config)
    }

    fn check(&self, config: &Config) -> Result<()> {
        if config.accept_invalid_certs {
            return Err(Error::invalid(
                "the kubeconfig says insecure-skip-tls-verify, which is not done here: give the cluster's \
                 certificate-authority",
            ));
        }
        let host = config.cluster_url.host().unwrap_or_default();
        let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let near = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
        if config.cluster_url.scheme_str() != Some("https") && !near && !self.plaintext {
            return Err(Error::invalid(format!(
                "{} is plain http and not on this machine: credentials would be sent in the clear; use https, or \
                 say plaintext=true",
                config.cluster_url
            )));
        }
        Ok(())
    }
}

/// A client and its namespace. It belongs to the runtime that this is called in.
pub(super) async fn client(source: &Source) -> Result<(kube::Client, String)> {
    let config = Arc::new(source.load().await?);
    let namespace = config.default_namespace.clone();
    let runtime = tokio::runtime::Handle::current();
    // An exec plugin is run here.
    let client = blocking(move || {
        let _entered = runtime.enter();
        let first = tls(&config)?;
        let connector = Connector { config: config.clone(), last: Arc::new(std::sync::Mutex::new(first)) };
        let http = Legacy::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(2)
            .build(connector);
        let base = config.base_uri_layer().layer(Http(http));
        let headers = config.extra_headers_layer().map_err(credentials)?;
        let auth = config.auth_layer().map_err(credentials)?;
        Ok(match auth {
            Some(auth) => kube::Client::new(auth.layer(headers.layer(base)), config.default_namespace.clone()),
            None => kube::Client::new(headers.layer(base), config.default_namespace.clone()),
        })
    });
    Ok((
        timeout(Duration::from_secs(30), client).await.map_err(|_| late("the credentials of the kubeconfig"))??,
        namespace,
    ))
}

fn late(what: &str) -> Error {
    Error::new(Kind::DeadlineExceeded, format!("{what} took too long"))
}

fn credentials(error: kube::Error) -> Error {
    let context = "cannot make the credentials that the Kubernetes configuration names";
    match error {
        // What a plugin printed may hold a token.
        kube::Error::Auth(kube::client::AuthError::AuthExecRun { cmd, out }) => {
            Error::new(Kind::PermissionDenied, format!("{context}: {cmd} ended with {}", out.status))
        }
        kube::Error::Auth(kube::client::AuthError::AuthExecParse(_)) => {
            Error::new(Kind::PermissionDenied, format!("{context}: the plugin's output is none"))
        }
        other => Error::with_source(Kind::PermissionDenied, context, other),
    }
}

/// TLS as the configuration says now; none where it says http.
fn tls(config: &Config) -> Result<Option<Arc<ClientConfig>>> {
    if config.cluster_url.scheme_str() != Some("https") {
        return Ok(None);
    }
    let wrong = |what: &'static str| move |source: rustls::Error| Error::with_source(Kind::InvalidInput, what, source);
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.root_cert_file {
        let pem = read(path)?;
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    } else if let Some(ders) = &config.root_cert {
        roots.add_parsable_certificates(ders.iter().map(|der| CertificateDer::from(der.clone())));
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(Error::invalid("the Kubernetes configuration names no issuer of certificates that can be read"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong("no TLS version fits"))?
        .with_root_certificates(roots);
    let tls = match identity(config)? {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(wrong("the client certificate and key do not fit"))?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Some(Arc::new(tls)))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The client certificate and key, of the configuration's own fields or of the files that it names.
fn identity(config: &Config) -> Result<Option<Identity>> {
    // Its key is a secret that only its own serialization gives out.
    let fields = serde_json::to_value(&config.auth_info).unwrap_or_default();
    let pem = |name: &str| -> Result<Option<Vec<u8>>> {
        let text = |name: &str| fields.get(name).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
        if let Some(data) = text(&format!("{name}-data")) {
            let decoded = base64(data);
            return decoded.map(Some).ok_or_else(|| Error::invalid(format!("{name}-data is no base64")));
        }
        text(name).map(|path| read(&PathBuf::from(path))).transpose()
    };
    let (Some(chain), Some(key)) = (pem("client-certificate")?, pem("client-key")?) else { return Ok(None) };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).filter_map(Result::ok).collect();
    // The parser's error may quote the key.
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| Error::invalid("the client-key is no key in PEM"))?;
    Ok(Some((chain, key)))
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|source| Error::with_source(Kind::InvalidInput, format!("cannot read {}", path.display()), source))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len()), 0u32, 0);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connection for Box<dyn Io> {
    fn connected(&self) -> hyper_util::client::legacy::connect::Connected {
        hyper_util::client::legacy::connect::Connected::new()
    }
}

#[derive(Clone)]
struct Connector {
    config: Arc<Config>,
    /// What was last good, for when a file is half written.
    last: Arc<std::sync::Mutex<Option<Arc<ClientConfig>>>>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let connecting = timeout(CONNECT, this.connect(&uri)).await;
            let io = connecting.map_err(|_| late(&format!("connecting to {}", this.config.cluster_url)))??;
            Ok(TokioIo::new(io))
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<Box<dyn Io>, BoxError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = TcpStream::connect((host.as_str(), port)).await?;
        tcp.set_nodelay(true)?;
        let keepalive =
            socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
        socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
        let this = self.clone();
        let config = blocking(move || {
            let mut last = this.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Ok(fresh) = tls(&this.config) {
                *last = fresh;
            }
            Ok(last.clone())
        });
        let Some(config) = config.await? else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(self.config.tls_server_name.clone().unwrap_or(host))?;
        Ok(Box::new(TlsConnector::from(config).connect(name, tcp).await?))
    }
}

/// The HTTP client with errors in a box, as the layers of kube want it.
#[derive(Clone)]
struct Http(Legacy<Connector, Body>);

impl Service<Request<Body>> for Http {
    type Response = <Legacy<Connector, Body> as Service<Request<Body>>>::Response;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let response = self.0.request(request);
        Box::pin(async move { response.await.map_err(BoxError::from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_in_the_clear_to_this_machine_only() {
        let source = Source::default();
        let config = |url: &str| Config::new(url.parse().expect("a URL"));
        assert!(source.check(&config("http://127.0.0.1:1")).is_ok() && source.check(&config("https://h")).is_ok());
        let refused = source.check(&config("http://10.0.0.1")).expect_err("in the clear");
        assert!(refused.to_string().contains("plaintext=true"), "{refused}");
        assert!(Source { plaintext: true, ..source }.check(&config("http://10.0.0.1")).is_ok());
    }

    #[test]
    fn base64_as_in_a_kubeconfig() {
        assert_eq!(base64("aGVsbG8K").as_deref(), Some(&b"hello\n"[..]));
        assert_eq!(base64("aGk=\n").as_deref(), Some(&b"hi"[..]));
        assert!(base64("a-_b").is_none());
    }
}
