//! The `grpc-timeout` header.

use std::time::Duration;

use http::HeaderValue;

/// Reads a timeout: at most 8 digits and a unit
/// ([PROTOCOL-HTTP2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests)).
pub(super) fn parse(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Writes a timeout in the finest unit that holds it in 8 digits, rounded up: a server must not
/// give up before its client.
pub(super) fn format(timeout: Duration) -> HeaderValue {
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let nanos = timeout.as_nanos();
    let text = units
        .into_iter()
        .map(|(scale, unit)| (nanos.div_ceil(scale), unit))
        .find(|(number, _)| *number < 100_000_000)
        .map_or_else(|| "99999999H".to_owned(), |(number, unit)| format!("{number}{unit}"));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("99999999H"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_the_protocol_allows_and_nothing_else() {
        let read = |text| parse(&HeaderValue::from_static(text));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "m", "5", "5s", "-5S", "+5S", "123456789n", "1.5S", " 5S", "5é"] {
            assert_eq!(parse(&HeaderValue::from_bytes(text.as_bytes()).expect("visible")), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn is_written_rounded_up_a_little(nanos in 0u64..) {
            let timeout = Duration::from_nanos(nanos);
            let read = parse(&format(timeout)).expect("written");
            prop_assert!(read >= timeout && (read - timeout).as_secs_f64() <= timeout.as_secs_f64() * 1e-5 + 1e-9, "{:?}", read);
        }
    }
}
