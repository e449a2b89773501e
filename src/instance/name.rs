//! The names of services and instances.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::error::{Error, Result};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// From 1 to 253 bytes of UTF-8 without control characters and without white space at
        /// either end. A registry may allow less, and then says so when asked to register.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                check($what, text).map(|()| Self(text.into()))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(text: &str) -> Result<Self> {
                text.parse()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// The name of a service: what clients call it by.
    ServiceName, "service name"
}

name! {
    /// The identity of an instance among those of its service.
    InstanceId, "instance id"
}

const MAX_LEN: usize = 253;

fn check(what: &str, text: &str) -> Result<()> {
    let wrong = |why: &str| {
        let shown: String = text.chars().take(64).collect();
        Err(Error::invalid(format!("{shown:?} is no {what}: {why}")))
    };
    if text.is_empty() {
        return wrong("it is empty");
    }
    if text.len() > MAX_LEN {
        return wrong("it is longer than 253 bytes");
    }
    if text.chars().any(char::is_control) {
        return wrong("it holds a control character");
    }
    if text.trim() != text {
        return wrong("it begins or ends with white space");
    }
    Ok(())
}
