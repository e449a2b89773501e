//! TLS to a registry, as its URI or its usual environment asks for it.

use crate::{
    error::{Error, Result},
    target::RegistryUri,
    tls::ClientTls,
};

/// Reads `ca`, `cert`, `key` and `server_name`: of the URI's query, or else of the environment under the names
/// that `variables` gives for these four. None where nobody is to be trusted.
///
/// # Errors
///
/// [`Kind::InvalidInput`](crate::Kind::InvalidInput) if one of them lacks another that it needs.
pub(in crate::registry) fn tls_of(
    uri: &RegistryUri,
    env: impl Fn(&str) -> Option<String>,
    variables: [&str; 4],
) -> Result<Option<ClientTls>> {
    let wrong = |why: &str| Error::invalid(format!("{uri:?}: {why}"));
    let keys = ["ca", "cert", "key", "server_name"];
    let option = |at: usize| uri.param(keys[at]).map(str::to_owned).or_else(|| env(variables[at]));
    let [ca, cert, key, name] = [0, 1, 2, 3].map(option);
    let Some(ca) = ca else {
        let more = cert.is_some() || key.is_some() || name.is_some();
        return if more { Err(wrong("cert, key and server_name need ca: a PEM file, or `system`")) } else { Ok(None) };
    };
    let tls = if ca == "system" { ClientTls::new() } else { ClientTls::new().ca_file(ca) };
    let tls = match (cert, key) {
        (None, None) => tls,
        (Some(cert), Some(key)) => tls.identity_files(cert, key),
        _ => return Err(wrong("cert and key need each other")),
    };
    Ok(Some(match name {
        Some(name) => tls.server_name(name),
        None => tls,
    }))
}
