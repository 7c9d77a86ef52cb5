#![expect(clippy::single_range_in_vec_init, reason = "lists of ranges of offsets are meant")]

use std::time::Instant;

use proptest::prelude::{any, proptest};

use super::{CursorOffset, Deliveries, FIRST, NeverDelivered, Sequence, Token};

#[test]
fn virtual_offsets_are_exact_in_doubles_and_told_from_real_ones() {
    for (id, sequence) in [(0, FIRST), (1, FIRST), (Token::COUNT - 1, Sequence(u32::MAX))] {
        let cursor = CursorOffset { token: Token::of(id), sequence };
        let offset = cursor.encode();
        assert_eq!(CursorOffset::decode(offset), Some(cursor));
        assert!(offset < 1 << 53, "{offset} is exact in a double");
    }
    for real in [-1, 0, 1 << 51, (1 << 52) - 1, 1 << 53, i64::MAX, i64::MIN, 3 << 52] {
        assert_eq!(CursorOffset::decode(real), None, "{real}");
    }
    assert_eq!(Token::of(Token::COUNT), Token::of(0));
}

proptest! {
    #[test]
    fn any_offset_is_read_without_a_panic(offset in any::<i64>()) {
        if let Some(cursor) = CursorOffset::decode(offset) {
            assert_eq!(cursor.encode(), offset);
        }
    }
}

/// 100..110, then 110..115 (one delivery with it), then 50..53.
fn delivered() -> Deliveries {
    let mut deliveries = Deliveries::default();
    let now = Instant::now();
    assert_eq!(deliveries.push(100..110, now), FIRST);
    assert_eq!(deliveries.push(110..115, now), FIRST.after(10));
    assert_eq!(deliveries.push(50..53, now), FIRST.after(15));
    deliveries
}

#[test]
fn an_acknowledgement_names_the_offsets_before_it_once() {
    let mut deliveries = delivered();
    assert_eq!(deliveries.in_flight(), 18);
    assert_eq!(deliveries.acknowledge(FIRST), Ok(vec![]));
    assert_eq!(deliveries.acknowledge(FIRST.after(3)), Ok(vec![100..103]));
    assert_eq!(deliveries.acknowledge(FIRST.after(16)), Ok(vec![103..115, 50..51]));
    assert_eq!(deliveries.acknowledge(FIRST.after(2)), Ok(vec![]), "an older commit");
    assert_eq!(deliveries.clone().give_all_back(), vec![51..53]);
    assert_eq!(deliveries.acknowledge(deliveries.next()), Ok(vec![51..53]));
    assert_eq!(deliveries.in_flight(), 0);
}

#[test]
fn positions_that_were_never_reached_are_told() {
    let mut deliveries = delivered();
    let never = |position| NeverDelivered { position, next: FIRST.after(18) };
    for position in [FIRST.after(19), Sequence(u32::MAX), Sequence(0), Sequence(FIRST.0 - 1)] {
        assert_eq!(deliveries.acknowledge(position), Err(never(position)));
        assert_eq!(deliveries.given(position), Err(never(position)));
    }
    assert_eq!(deliveries.in_flight(), 18);
}

#[test]
fn what_was_given_is_found_again_also_when_it_is_acknowledged() {
    let mut deliveries = delivered();
    deliveries.acknowledge(FIRST.after(18)).expect("delivered");
    let check = |after: u32, expected: std::ops::Range<i64>| {
        let position = FIRST.after(after);
        assert_eq!(deliveries.given(position), Ok(Some((position, expected))));
    };
    check(0, 100..115);
    check(12, 112..115);
    check(15, 50..53);
    check(17, 52..53);
    assert_eq!(deliveries.given(FIRST.after(18)), Ok(None));
}

#[test]
fn old_deliveries_are_forgotten_and_positions_among_them_lead_to_the_oldest_known() {
    let mut deliveries = Deliveries::default();
    let most = robustmq_common::limits::shared::REMEMBERED_DELIVERIES;
    for number in 0..i64::try_from(most).expect("a small limit") + 10 {
        deliveries.push(number * 2..number * 2 + 1, Instant::now());
    }
    deliveries.acknowledge(deliveries.next()).expect("delivered");
    let oldest = FIRST.after(10);
    assert_eq!(deliveries.given(FIRST), Ok(Some((oldest, 20..21))));
    assert_eq!(deliveries.known.len(), most);
}
