//! Text inside a key.
//!
//! ```text
//! each byte as it is, except 0x00 -> 0x00 0xff; then 0x00 0x00
//! ```
//!
//! So keys sort as the text does, and no text's key is a prefix of another's.

use bytes::{Buf, BufMut, BytesMut};

use super::ValueError;

/// Appends `text` with its terminator.
pub fn put(key: &mut BytesMut, text: &str) {
    for byte in text.bytes() {
        key.put_u8(byte);
        if byte == 0 {
            key.put_u8(0xff);
        }
    }
    key.put_slice(&[0, 0]);
}

/// Takes one text and its terminator from the front of `key`.
///
/// # Errors
/// [`ValueError`] if the terminator is missing, an escape is unknown, or the text is not UTF-8.
pub fn take(key: &mut &[u8]) -> Result<String, ValueError> {
    let mut text = Vec::new();
    loop {
        let byte = key.try_get_u8().map_err(|_| ValueError::Short)?;
        if byte != 0 {
            text.push(byte);
            continue;
        }
        match key.try_get_u8().map_err(|_| ValueError::Short)? {
            0 => return String::from_utf8(text).map_err(|_| ValueError::Text),
            0xff => text.push(0),
            _ => return Err(ValueError::Text),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::{any, proptest};

    use super::{put, take};

    fn encode(text: &str) -> BytesMut {
        let mut key = BytesMut::new();
        put(&mut key, text);
        key
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(&encode("ab")[..], b"ab\0\0");
        assert_eq!(&encode("a\0b")[..], b"a\0\xffb\0\0");
        assert_eq!(&encode("")[..], b"\0\0");
    }

    #[test]
    fn damaged_text_is_an_error() {
        let check = |mut bytes: &[u8]| assert!(take(&mut bytes).is_err());
        check(b"");
        check(b"ab");
        check(b"ab\0");
        check(b"a\0\x01\0\0");
        check(b"\xff\0\0");
    }

    proptest! {
        #[test]
        fn round_trip_and_order(a in any::<String>(), b in any::<String>()) {
            let (key_a, key_b) = (encode(&a), encode(&b));
            let mut rest = &key_a[..];
            assert_eq!(take(&mut rest).as_deref(), Ok(a.as_str()));
            assert!(rest.is_empty());
            assert_eq!(key_a.cmp(&key_b), a.as_bytes().cmp(b.as_bytes()));
            assert_eq!(key_b.starts_with(&key_a), a == b);
        }
    }
}
