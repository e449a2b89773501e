//! The headers of a call, kept to send them again.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A copy of headers that is cheap to make and hardly ever used. As many as most calls have need no
/// allocation.
#[derive(Debug, Default)]
pub(super) struct Kept {
    some: [Option<(HeaderName, HeaderValue)>; SOME],
    all: Option<HeaderMap>,
}

const SOME: usize = 8;

impl Kept {
    pub(super) fn keep(&mut self, headers: &HeaderMap) {
        if headers.len() > SOME {
            self.all = Some(headers.clone());
            return;
        }
        let copies = headers.iter().map(|(name, value)| Some((name.clone(), value.clone())));
        self.some.iter_mut().zip(copies).for_each(|(place, copy)| *place = copy);
    }

    /// Puts what was kept into a map that is empty; nothing the first time.
    pub(super) fn put_back(&mut self, headers: &mut HeaderMap) {
        if let Some(all) = self.all.take() {
            *headers = all;
        }
        for (name, value) in self.some.iter_mut().map_while(Option::take) {
            headers.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_back_is_what_was_kept() {
        for count in [0, 1, SOME, SOME + 1, 40] {
            let mut headers = HeaderMap::new();
            for n in 0..count {
                // Every other name twice.
                let name = HeaderName::try_from(format!("name-{}", n / 2)).expect("a name");
                headers.append(name, HeaderValue::from(n));
            }
            let mut kept = Kept::default();
            let mut first = headers.clone();
            kept.put_back(&mut first);
            assert_eq!(first, headers, "nothing was kept yet");
            for _ in 0..2 {
                kept.keep(&headers);
                let mut again = HeaderMap::new();
                kept.put_back(&mut again);
                assert_eq!(again, headers);
            }
        }
    }
}
