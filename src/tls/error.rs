//! What a failed handshake means, in words that say what to mend.

use std::{io, time::Duration};

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage, pki_types::UnixTime};

use super::{date::utc, name::Expected};
use crate::error::{Error, Kind};

/// What there is to know of a handshake that failed.
pub(super) struct Failed<'a> {
    /// The server.
    pub(super) peer: &'a str,
    pub(super) expected: &'a Expected,
    /// Whom its certificate names, if that is known.
    pub(super) presented: Option<&'a str>,
    /// Where the certificates of trusted issuers come from.
    pub(super) roots: &'a str,
    /// Where our own certificate comes from, if we have one.
    pub(super) identity: Option<&'a str>,
}

impl Failed<'_> {
    pub(super) fn explain(&self, error: io::Error) -> Error {
        let peer = self.peer;
        let context = match tls(&error) {
            Some(why) => self.why(why),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                format!("{peer} hung up during the TLS handshake: is it a plaintext server?")
            }
            None => format!("{peer} broke the connection during the TLS handshake"),
        };
        Error::with_source(Kind::Unavailable, context, error)
    }

    pub(super) fn why(&self, error: &TlsError) -> String {
        let peer = self.peer;
        match error {
            TlsError::InvalidCertificate(why) => self.certificate(why),
            TlsError::AlertReceived(alert) => format!("{peer} {}", refused(*alert, self.identity)),
            TlsError::NoApplicationProtocol => no_h2(peer),
            TlsError::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
                format!("{peer} does not speak TLS: is it a plaintext server?")
            }
            _ => format!("the TLS handshake with {peer} failed"),
        }
    }

    fn certificate(&self, why: &CertificateError) -> String {
        let peer = self.peer;
        let whose = match self.presented {
            Some(names) => format!("the certificate of {peer}, for {names},"),
            None => format!("the certificate of {peer}"),
        };
        let date = |time: &UnixTime| utc(Duration::from_secs(time.as_secs()));
        match why {
            CertificateError::ExpiredContext { not_after, .. } => format!("{whose} expired on {}", date(not_after)),
            CertificateError::NotValidYetContext { not_before, .. } => {
                format!("{whose} is valid only from {} on", date(not_before))
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("{whose} is not for {}, who is expected", self.expected)
            }
            CertificateError::UnknownIssuer => format!("{whose} is from an issuer that is not among {}", self.roots),
            _ => format!("{whose} is not valid"),
        }
    }
}

/// What a server's alert says about us.
pub(crate) fn refused(alert: AlertDescription, identity: Option<&str>) -> String {
    let ours = identity.map_or_else(|| "that we have none".to_owned(), |file| format!("ours is from {file}"));
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            format!("wants a certificate of the client ({ours})")
        }
        // As servers in Java say it.
        AlertDescription::BadCertificate if identity.is_none() => {
            format!("wants a certificate of the client ({ours})")
        }
        AlertDescription::CertificateExpired => format!("says that our certificate has expired ({ours})"),
        AlertDescription::UnknownCA => format!("does not trust the issuer of our certificate ({ours})"),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => format!("refuses our certificate ({ours})"),
        AlertDescription::NoApplicationProtocol => "speaks TLS, but not HTTP/2".to_owned(),
        AlertDescription::UnrecognisedName => "has no certificate for the name that we asked for".to_owned(),
        _ => "refuses the TLS handshake".to_owned(),
    }
}

pub(super) fn no_h2(peer: &str) -> String {
    format!("{peer} speaks TLS, but did not choose HTTP/2 (ALPN h2), which gRPC needs")
}

/// The error of TLS inside an error of I/O, however deep.
pub(crate) fn tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a TlsError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(tls);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}
