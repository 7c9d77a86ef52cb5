use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use proptest::prelude::{Just, Strategy, any, prop_assert, proptest};
use proptest::sample::{Index, select};
use robustmq_common::limits;

use super::samples::sample;
use super::{FrameError, check};
use crate::kafka::api::decode_any;
use crate::kafka::versions::{APIS, Api};

fn every_version() -> Vec<(&'static Api, i16)> {
    APIS.iter().flat_map(|api| (api.min..=api.max).map(move |version| (api, version))).collect()
}

#[test]
fn every_request_in_every_version_is_walked_to_its_last_byte() {
    for (api, version) in every_version() {
        let bytes = sample(api, version);
        let frame = check(&bytes);
        let frame = frame.unwrap_or_else(|error| panic!("{:?} {version}: {error}", api.key));
        assert_eq!((frame.api.key, frame.version), (api.key, version));
        assert_eq!(frame.correlation_id, 7);
        assert_eq!(frame.client_id.as_deref(), Some("client"));
        assert!(decode_any(&frame).is_ok(), "{:?} {version} does not decode", api.key);
        // One byte less is noticed, so the walk had reached the end.
        for length in 0..bytes.len() {
            let cut = check(&bytes.slice(..length));
            assert!(
                matches!(cut, Err(FrameError::Short { .. })),
                "{:?} {version} cut to {length}: {cut:?}",
                api.key
            );
        }
    }
}

#[test]
fn counts_that_the_bytes_cannot_hold_are_refused() {
    // Metadata 1, no client id, and a count of topics.
    let metadata = |count: i32| {
        let mut bytes = vec![0, 3, 0, 1, 0, 0, 0, 9, 0xff, 0xff];
        bytes.extend(count.to_be_bytes());
        check(&bytes.into()).map(|frame| frame.shape.elements)
    };
    assert_eq!(metadata(0), Ok(0));
    assert_eq!(metadata(-1), Ok(0), "null asks for all topics");
    assert!(matches!(metadata(-2), Err(FrameError::NegativeLength { length: -2, .. })));
    assert!(matches!(metadata(1), Err(FrameError::Short { .. })));
    assert!(matches!(metadata(1000), Err(FrameError::Short { .. })));
    assert_eq!(metadata(i32::MAX), Err(FrameError::TooManyElements));
}

#[test]
fn more_elements_than_the_limit_are_refused_though_the_bytes_are_there() {
    let topics = limits::KAFKA_FRAME_ELEMENTS + 1;
    let mut bytes = BytesMut::from(&[0, 3, 0, 1, 0, 0, 0, 9, 0xff, 0xff][..]);
    bytes.extend(i32::try_from(topics).expect("the limit fits").to_be_bytes());
    bytes.resize(bytes.len() + topics * 2, 0);
    assert_eq!(check(&bytes.freeze()).map(|_| ()), Err(FrameError::TooManyElements));
}

#[test]
fn what_is_not_served_is_told_apart() {
    let head = |key: i16, version: i16| {
        let mut bytes = [key.to_be_bytes(), version.to_be_bytes()].concat();
        bytes.extend([0, 0, 0, 5, 0xff, 0xff]);
        check(&bytes.into()).map(|_| ())
    };
    assert_eq!(head(4, 0), Err(FrameError::UnknownApi { key: 4 }));
    assert_eq!(head(-1, 0), Err(FrameError::UnknownApi { key: -1 }));
    let unsupported =
        |api, version| FrameError::UnsupportedVersion { api, version, correlation_id: 5 };
    assert_eq!(head(18, 99), Err(unsupported(ApiKey::ApiVersions, 99)));
    assert_eq!(head(1, 3), Err(unsupported(ApiKey::Fetch, 3)));
    assert_eq!(head(0, -1), Err(unsupported(ApiKey::Produce, -1)));
}

#[test]
fn a_tagged_field_has_to_be_as_long_as_it_says() {
    // Fetch 12 ends in tagged fields; cluster id (tag 0) is one that it has.
    let fetch = APIS.iter().find(|api| api.key as i16 == 1).expect("Fetch is served");
    let bytes = sample(fetch, 12);
    let tag_size = bytes.len() - 9;
    assert_eq!(&bytes[tag_size..], b"\x08\x08cluster", "the last field of the sample");
    for wrong in [0, 7, 9] {
        let mut changed = bytes.to_vec();
        changed[tag_size] = wrong;
        assert!(check(&changed.into()).is_err(), "{wrong}");
    }
}

/// Found by fuzzing: elements with one tagged field each took three times the memory that was charged for them.
#[test]
fn the_first_tagged_field_of_a_structure_counts_as_the_map_that_holds_it() {
    let header_tags = |tags: &[u8]| {
        // ApiVersions 3: its header and body are flexible; the body's two strings are empty and it has no tagged field.
        let bytes = [&[0, 18, 0, 3, 0, 0, 0, 9, 0xff, 0xff], tags, &[1, 1, 0]].concat();
        check(&bytes.into()).map(|frame| frame.shape.elements)
    };
    assert_eq!(header_tags(&[0]), Ok(0));
    assert_eq!(header_tags(&[1, 40, 0]), Ok(3));
    assert_eq!(header_tags(&[2, 40, 0, 41, 1, 7]), Ok(4));
}

/// A sample with some of its bytes changed, cut or repeated.
fn mutated() -> impl Strategy<Value = Bytes> {
    let changes = proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6);
    let part = (Just(()), any::<Index>(), any::<bool>());
    (select(every_version()), changes, part).prop_map(|((api, version), changes, (_, at, cut))| {
        let mut bytes = sample(api, version).to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            let tail = bytes[at..].to_vec();
            bytes.extend(tail);
        }
        bytes.into()
    })
}

proptest! {
    #[test]
    fn any_bytes_are_walked_without_a_panic(bytes in any::<Vec<u8>>()) {
        let _ = check(&bytes.into());
    }

    #[test]
    fn what_passes_the_walk_decodes_within_its_bytes(bytes in mutated()) {
        if let Ok(frame) = check(&bytes) {
            // Every element takes a byte at least, so what the decoder allocates is bounded by what was sent.
            prop_assert!(frame.shape.elements <= bytes.len());
            let _ = decode_any(&frame);
        }
    }
}
