//! Kratos's JSON of an instance, as Go's `encoding/json` writes and reads it.

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::ser::{CompactFormatter, Formatter};

use super::{Address, ServiceInstance};
use crate::error::{Error, Kind, Result};

/// No instance's JSON is longer: it would not have been [built](super::InstanceBuilder::build).
const MAX_JSON: usize = 1024 * 1024;

impl ServiceInstance {
    /// Writes the instance byte for byte as Kratos does; [`Status`](super::Status) has no place there.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Fields<'a> {
            id: &'a str,
            name: &'a str,
            version: &'a str,
            metadata: BTreeMap<&'a str, &'a str>,
            endpoints: Vec<String>,
        }
        let fields = Fields {
            id: self.id.as_str(),
            name: self.service.as_str(),
            version: &self.version,
            metadata: self.metadata.iter().map(|(key, value)| (&**key, &**value)).collect(),
            endpoints: self.addresses.iter().map(Address::to_string).collect(),
        };
        let mut json = Vec::with_capacity(256);
        let written = fields.serialize(&mut serde_json::Serializer::with_formatter(&mut json, GoFormatter));
        debug_assert!(written.is_ok(), "strings always serialize");
        String::from_utf8(json).unwrap_or_default()
    }

    /// Reads the JSON of an instance as Go would: keys in any case, unknown ones ignored, `null` as
    /// empty, what is no Unicode replaced by U+FFFD.
    ///
    /// Endpoints that are none, or of a scheme that this crate does not know, are left out; and those
    /// that no client dials on another's word: of no one host, link-local, or a cloud's metadata service.
    ///
    /// # Errors
    ///
    /// [`Kind::Corrupt`] if it is no JSON object of an instance, lacks an id or a name, is longer than
    /// 1 MiB, holds [too much](super::InstanceBuilder::build), or no endpoint is left that had some which nobody dials.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        if json.len() > MAX_JSON {
            return Err(Error::new(
                Kind::Corrupt,
                format!("an instance of {} bytes is longer than {MAX_JSON}", json.len()),
            ));
        }
        let fields: Fields = serde_json::from_slice(json)
            .map_err(|source| Error::with_source(Kind::Corrupt, "this is no JSON of an instance", source))?;
        let corrupt = |error: Error| Error::with_source(Kind::Corrupt, "this is no instance", error);
        let mut builder = Self::builder(fields.name, fields.id).map_err(corrupt)?.version(fields.version);
        for (key, value) in fields.metadata {
            builder = builder.metadata(key, value);
        }
        let addresses = fields.endpoints.iter().filter_map(|text| text.parse().ok());
        builder.found_at(addresses)?.build().map_err(corrupt)
    }
}

/// Escapes, besides what JSON must, what Go does: `<`, `>`, `&`, U+2028 and U+2029.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, char) in fragment.char_indices() {
            let escape = match char {
                '<' => "\\u003c",
                '>' => "\\u003e",
                '&' => "\\u0026",
                '\u{2028}' => "\\u2028",
                '\u{2029}' => "\\u2029",
                _ => continue,
            };
            CompactFormatter.write_string_fragment(writer, &fragment[plain..at])?;
            writer.write_all(escape.as_bytes())?;
            plain = at + char.len_utf8();
        }
        CompactFormatter.write_string_fragment(writer, &fragment[plain..])
    }
}

#[derive(Default)]
struct Fields {
    id: String,
    name: String,
    version: String,
    metadata: BTreeMap<Arc<str>, Arc<str>>,
    endpoints: Vec<String>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with id, name, version, metadata and endpoints")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(GoString(key)) = map.next_key()? {
                    match fold(&key).as_str() {
                        "id" => set(&mut fields.id, map.next_value()?),
                        "name" => set(&mut fields.name, map.next_value()?),
                        "version" => set(&mut fields.version, map.next_value()?),
                        // Go decodes a repeated map into the one it has.
                        "metadata" => map.next_value_seed(MergeInto(&mut fields.metadata))?,
                        "endpoints" => {
                            let list: Option<Vec<Option<GoString>>> = map.next_value()?;
                            fields.endpoints = list
                                .unwrap_or_default()
                                .into_iter()
                                .map(|text| text.map_or_else(String::new, |text| text.0))
                                .collect();
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// `null` leaves a Go string as it was.
fn set(field: &mut String, value: Option<GoString>) {
    if let Some(GoString(value)) = value {
        *field = value;
    }
}

/// Go's fold of a key: ASCII without case, and the two other letters that fold to ASCII.
fn fold(key: &str) -> String {
    key.chars()
        .map(|char| match char {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

struct MergeInto<'a>(&'a mut BTreeMap<Arc<str>, Arc<str>>);

impl<'de> DeserializeSeed<'de> for MergeInto<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for MergeInto<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings, or null")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        self.0.clear();
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.clear();
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((GoString(key), value)) = map.next_entry::<GoString, Option<GoString>>()? {
            self.0.insert(key.into(), value.map_or_else(String::new, |value| value.0).into());
        }
        Ok(())
    }
}

/// A JSON string as Go reads it: never an error for what is no Unicode.
struct GoString(String);

impl<'de> Deserialize<'de> for GoString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = GoString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<GoString, E> {
                Ok(GoString(text.to_owned()))
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<GoString, E> {
                Ok(GoString(lossy(bytes)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<GoString, A::Error> {
                Err(A::Error::custom("an array where a string belongs"))
            }
        }
        // As bytes, because only so serde_json lets lone surrogates and broken UTF-8 pass.
        deserializer.deserialize_bytes(Text)
    }
}

/// UTF-8 with each broken byte, and each lone surrogate (three bytes here), as one U+FFFD.
fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(good) => {
                text.push_str(good);
                return text;
            }
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(good).unwrap_or_default());
                text.push(char::REPLACEMENT_CHARACTER);
                let surrogate = matches!(bad, [0xED, 0xA0..=0xBF, 0x80..=0xBF, ..]);
                rest = &bad[if surrogate { 3 } else { 1 }..];
            }
        }
    }
}

#[cfg(test)]
mod tests;
