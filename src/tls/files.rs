//! What is read from PEM files, and read again when they change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    error::{Error, Kind, Result},
    observe::{Event, Observer},
    util::{stamp::Stamp, task},
};

/// Where certificates or a key come from.
#[derive(Clone)]
pub(super) enum Pem {
    File(PathBuf),
    Bytes(Arc<[u8]>),
}

/// No bytes: they may be a key.
impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Bytes(_) => f.write_str("the PEM that was given"),
        }
    }
}

/// Larger than any chain or bundle.
const MOST: u64 = 4 << 20;

impl Pem {
    fn read(&self) -> Result<Arc<[u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => {
                let failed =
                    |source| Error::with_source(Kind::InvalidInput, format!("cannot read {}", path.display()), source);
                if fs::metadata(path).map_err(failed)?.len() > MOST {
                    return Err(Error::invalid(format!("{} has more than {MOST} bytes", path.display())));
                }
                Ok(fs::read(path).map_err(failed)?.into())
            }
        }
    }

    /// The certificates, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.read()?).collect();
        let certificates = certificates.map_err(|source| self.wrong("certificates", &source))?;
        if certificates.is_empty() {
            return Err(Error::invalid(format!("{self} holds no certificate in PEM")));
        }
        Ok(certificates)
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|source| self.wrong("a private key", &source))
    }

    fn wrong(&self, what: &str, source: &rustls::pki_types::pem::Error) -> Error {
        // The error's text may quote lines of a key: say only what kind it is.
        let why = match source {
            rustls::pki_types::pem::Error::NoItemsFound => "there is none",
            rustls::pki_types::pem::Error::Base64Decode(_) => "its base64 is broken",
            _ => "it is not PEM",
        };
        Error::invalid(format!("cannot read {what} from {self}: {why}"))
    }

    fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::File(path) => fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata)),
            Self::Bytes(_) => None,
        }
    }
}

/// A certificate chain and its key.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) chain: Pem,
    pub(super) key: Pem,
}

impl Identity {
    pub(super) fn files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        Self { chain: Pem::File(chain.as_ref().to_owned()), key: Pem::File(key.as_ref().to_owned()) }
    }

    pub(super) fn pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        Self { chain: Pem::Bytes(chain.as_ref().into()), key: Pem::Bytes(key.as_ref().into()) }
    }
}

type Make<T> = Box<dyn Fn() -> Result<T> + Send + Sync>;

/// A value made of files, made anew when one of them changes. One that cannot be made leaves the one
/// there is in use.
pub(super) struct Reloaded<T> {
    sources: Vec<Pem>,
    make: Make<T>,
    held: Mutex<Held<T>>,
    observer: Arc<dyn Observer>,
}

struct Held<T> {
    stamps: Vec<Option<Stamp>>,
    value: Arc<T>,
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Makes the first one.
    pub(super) fn new(
        sources: Vec<Pem>,
        observer: Arc<dyn Observer>,
        make: impl Fn() -> Result<T> + Send + Sync + 'static,
    ) -> Result<Arc<Self>> {
        let stamps = sources.iter().map(Pem::stamp).collect();
        let held = Mutex::new(Held { stamps, value: Arc::new(make()?) });
        Ok(Arc::new(Self { sources, make: Box::new(make), held, observer }))
    }

    /// The value for the files as they are now.
    pub(super) async fn current(self: &Arc<Self>) -> Result<Arc<T>> {
        if !self.sources.iter().any(|source| matches!(source, Pem::File(_))) {
            return Ok(self.held.lock().unwrap_or_else(PoisonError::into_inner).value.clone());
        }
        let this = self.clone();
        task::blocking(move || Ok(this.look())).await
    }

    fn look(&self) -> Arc<T> {
        let stamps: Vec<_> = self.sources.iter().map(Pem::stamp).collect();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps != held.stamps {
            // Noted even if it fails: what is half written changes once more.
            held.stamps = stamps;
            match (self.make)() {
                Ok(value) => held.value = Arc::new(value),
                Err(error) => self.observer.on_event(&Event::TlsReloadFailed { error: &error }),
            }
        }
        held.value.clone()
    }
}

impl<T> std::fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloaded").field("sources", &self.sources).finish_non_exhaustive()
    }
}
