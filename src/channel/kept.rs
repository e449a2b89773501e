//! The headers of a call, kept to send them again.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, TE},
};

/// A copy of headers that is cheap to make and hardly ever used. As many as most calls have need no
/// allocation; those that all calls have are not kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    some: [Option<(HeaderName, HeaderValue)>; SOME],
    all: Option<Box<HeaderMap>>,
}

const SOME: usize = 4;

pub(super) const TRAILERS: &str = "trailers";
pub(super) const GRPC: &str = "application/grpc";

fn is_usual(name: &HeaderName, value: &HeaderValue) -> bool {
    (name == TE && value == TRAILERS) || (name == CONTENT_TYPE && value == GRPC)
}

impl Kept {
    pub(super) fn keep(&mut self, headers: &HeaderMap) {
        let mut own = headers.iter().filter(|(name, value)| !is_usual(name, value));
        let copies = own.by_ref().map(|(name, value)| Some((name.clone(), value.clone())));
        self.some.iter_mut().zip(copies).for_each(|(place, copy)| *place = copy);
        if own.next().is_some() {
            *self = Self { some: Default::default(), all: Some(Box::new(headers.clone())) };
        }
    }

    /// Puts what was kept into a map that is empty; nothing the first time.
    pub(super) fn put_back(&mut self, headers: &mut HeaderMap) {
        if let Some(all) = self.all.take() {
            *headers = *all;
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

    #[test]
    fn what_every_call_has_is_not_kept_but_anything_else_in_its_place_is() {
        for (content_type, kept_as) in [(GRPC, None), ("application/grpc+json", Some("application/grpc+json"))] {
            let mut headers = HeaderMap::new();
            headers.insert(TE, HeaderValue::from_static(TRAILERS));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            let (mut kept, mut again) = (Kept::default(), HeaderMap::new());
            kept.keep(&headers);
            kept.put_back(&mut again);
            assert_eq!(again.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()), kept_as);
            assert!(!again.contains_key(TE));
        }
    }
}
