//! Protobuf's wire format, as far as load reports use it
//! ([Encoding](https://protobuf.dev/programming-guides/encoding/)).

/// One field: its number and what it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
    /// Of a kind that no report has.
    Other,
}

/// The fields of a message, to the first that is malformed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    malformed: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message, malformed: false }
    }

    /// Whether all that was read was well-formed.
    pub(super) fn is_sound(&self) -> bool {
        !self.malformed
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let (head, rest) = self.rest.split_first_chunk()?;
                self.rest = rest;
                Value::Double(f64::from_le_bytes(*head))
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (head, rest) = self.rest.split_at_checked(length)?;
                self.rest = rest;
                Value::Bytes(head)
            }
            5 => {
                self.rest = self.rest.split_at_checked(4)?.1;
                Value::Other
            }
            // Groups, which proto3 has not.
            _ => return None,
        };
        (tag >> 3 > 0 && u32::try_from(tag).is_ok()).then_some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for at in 0..10 {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            if at == 9 && *byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() || self.malformed {
            return None;
        }
        let field = self.field();
        self.malformed = field.is_none();
        field
    }
}

/// The key and the value of a map's entry.
pub(super) fn entry(message: &[u8]) -> Option<(&[u8], f64)> {
    let (mut key, mut value) = (&[][..], 0.0);
    let mut fields = Fields::new(message);
    for field in &mut fields {
        match field {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Double(double)) => value = double,
            (1 | 2, _) => return None,
            _ => {}
        }
    }
    fields.is_sound().then_some((key, value))
}

/// Where a message is written to.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

fn put_varint(sink: &mut impl Sink, mut value: u64) {
    while value >= 0x80 {
        sink.put(&[value as u8 | 0x80]);
        value >>= 7;
    }
    sink.put(&[value as u8]);
}

/// A number, unless it is zero, which says the same as nothing.
pub(super) fn put_double(sink: &mut impl Sink, field: u8, value: f64) {
    if value != 0.0 {
        sink.put(&[field << 3 | 1]);
        sink.put(&value.to_le_bytes());
    }
}

/// An integer, unless it is zero.
pub(super) fn put_integer(sink: &mut impl Sink, field: u8, value: u64) {
    if value != 0 {
        sink.put(&[field << 3]);
        put_varint(sink, value);
    }
}

/// Bytes, or another message.
pub(super) fn put_bytes(sink: &mut impl Sink, field: u8, bytes: &[u8]) {
    sink.put(&[field << 3 | 2]);
    put_varint(sink, bytes.len() as u64);
    sink.put(bytes);
}

/// A map's entry, which may be zero. The tags are of one byte: fields 1 to 15.
pub(super) fn put_entry(sink: &mut impl Sink, field: u8, key: &str, value: f64) {
    let digits = |length: usize| if length < 0x80 { 1 } else { (length.ilog2() / 7 + 1) as usize };
    sink.put(&[field << 3 | 2]);
    put_varint(sink, (1 + digits(key.len()) + key.len() + 9) as u64);
    put_bytes(sink, 1, key.as_bytes());
    sink.put(&[2 << 3 | 1]);
    sink.put(&value.to_le_bytes());
}
