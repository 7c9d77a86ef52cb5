//! The whole content is one record, whose key is the object's name.

use super::{Input, Limits, Parsed, Parser};
use crate::layout::{RecordLayout, Span, Text};

/// [`super::Format::Object`].
pub(super) struct WholeObject;

impl Parser for WholeObject {
    fn parse(&self, input: Input<'_>, limits: Limits) -> Parsed {
        let given = input.given();
        let mut parsed = Parsed::default();
        if given.bytes.len() > limits.record_bytes {
            parsed.damaged(0, format!("the object is larger than {} bytes", limits.record_bytes));
            parsed.is_end = true;
        } else if given.is_last && input.is_first {
            // An object without bytes is a record as well: whoever wrote it may count them.
            let key = Text::Owned(input.object.as_bytes().into());
            let value = Span::new(0, given.bytes.len());
            parsed.layout.records.push(RecordLayout::plain(Some(key), value));
            parsed.consumed = given.bytes.len();
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::WholeObject;
    use crate::format::testing::{check_splits, limits, read};

    #[test]
    fn an_object_is_a_record() {
        for (content, count, damage) in [
            (vec![], 1, None),
            (vec![7; 100], 1, None),
            (vec![7; 101], 0, Some("the object is larger than 100 bytes")),
        ] {
            let seen = read(&WholeObject, &content, &[], limits(100));
            assert_eq!(seen.records.len(), count);
            assert_eq!(seen.damage.first().map(|(_, reason)| reason.as_str()), damage);
            for record in &seen.records {
                assert_eq!(record.key.as_deref(), Some(b"part/object".as_slice()));
                assert_eq!(record.value, content);
            }
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(content: Vec<u8>, steps in proptest::collection::vec(1..40_usize, 1..6), large in any::<bool>()) {
            check_splits(&WholeObject, &content, &steps, limits(if large { 1000 } else { 50 }));
        }
    }
}
