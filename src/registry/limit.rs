//! How much of a service is held.

use crate::{
    error::{Error, Result},
    target::RegistryUri,
};

/// So many instances of one service are held, unless a registry is told otherwise.
pub(super) const MAX_INSTANCES: usize = 20_000;

/// The key of a URI that tells it otherwise.
pub(super) const MAX_INSTANCES_KEY: &str = "max_instances";

/// What a URI says of that.
pub(super) fn max_instances(uri: &RegistryUri) -> Result<usize> {
    let Some(text) = uri.param(MAX_INSTANCES_KEY) else { return Ok(MAX_INSTANCES) };
    text.parse().ok().filter(|most| *most > 0).ok_or_else(|| {
        Error::invalid(format!("{uri:?} is no registry: {MAX_INSTANCES_KEY} is a number above 0, not {text:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_number_above_0() {
        let read = |query: &str| max_instances(&format!("etcd://h:1{query}").parse().expect("a URI"));
        assert_eq!(read("").expect("the default"), MAX_INSTANCES);
        assert_eq!(read("?max_instances=7").expect("a number"), 7);
        for wrong in ["0", "-1", "many", ""] {
            let error = read(&format!("?max_instances={wrong}")).expect_err(wrong);
            assert!(error.to_string().contains("a number above 0"), "{error}");
        }
    }
}
