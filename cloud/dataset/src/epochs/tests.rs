use std::collections::BTreeSet;

use super::{Counted, Epochs, Part, Shuffle, Stretch};

fn counts(object: u64) -> u64 {
    object % 4 * 5
}

fn counted(shuffle: Shuffle, objects: u64, epochs: u32) -> Epochs {
    let mut all = Epochs::new(shuffle, 7, 2);
    for _ in 0..epochs {
        all.begin(objects);
        while let Some(object) = all.counting().and_then(super::Epoch::next_object) {
            all.count(counts(object));
        }
    }
    all
}

#[test]
fn each_epoch_has_each_record_once_in_every_order() {
    let total: u64 = (0..13).map(counts).sum();
    for shuffle in [Shuffle::None, Shuffle::Shards, Shuffle::Window(16), Shuffle::Window(1000)] {
        let all = counted(shuffle, 13, 3);
        assert_eq!(all.high_watermark(), i64::try_from(3 * total).expect("small"));
        let mut orders = BTreeSet::new();
        for epoch in 0..3 {
            let first = epoch * i64::try_from(total).expect("small");
            let offsets = first..first + i64::try_from(total).expect("small");
            let places: Vec<_> =
                offsets.map(|offset| all.find(offset).expect("below the end")).collect();
            assert!(places.iter().all(|place| i64::from(place.epoch) == epoch));
            let found: BTreeSet<_> = places.iter().map(|p| (p.object, p.record)).collect();
            assert_eq!(found.len() as u64, total, "{shuffle:?}");
            assert!(found.iter().all(|(object, record)| *record < counts(*object)));
            let back = places.iter().map(|p| all.offset_of(p.epoch, p.object, p.record));
            assert!(back.eq((first..).take(places.len()).map(Some)), "{shuffle:?}");
            assert_eq!(all.offset_of(0, 3, counts(3)), None, "it has no such record");
            assert_eq!(all.offset_of(0, 13, 0), None, "nor such an object");
            orders.insert(places.iter().map(|p| (p.object, p.record)).collect::<Vec<_>>());
        }
        assert_eq!(orders.len(), if shuffle == Shuffle::None { 1 } else { 3 });
        assert_eq!(all.find(all.high_watermark()), None);
        assert_eq!(all.find(-1), None);
    }
}

#[test]
fn epochs_that_were_given_up_are_found_again() {
    let mut all = counted(Shuffle::Shards, 13, 9);
    let whole = counted(Shuffle::Shards, 13, 3);
    let total = i64::try_from((0..13).map(counts).sum::<u64>()).expect("small");
    assert_eq!((all.given_up(total * 8), all.given_up(total)), (None, Some(1)));
    assert_eq!(all.find(total), None);
    for number in [1, 2, 0] {
        all.add_up(number, counts);
        let first = i64::from(number) * total;
        assert!((first..first + total).all(|offset| all.find(offset) == whole.find(offset)));
    }
    let kept = all.iter().filter(|epoch| !epoch.starts.is_empty()).count();
    assert_eq!(kept, super::KEPT_EPOCHS + 1);
}

#[test]
fn runs_are_what_lies_together() {
    let all = counted(Shuffle::Shards, 13, 2);
    let mut offset = 0;
    while let Some(place) = all.find(offset) {
        for step in 1..place.run {
            let next = all.find(offset.saturating_add_unsigned(step)).expect("in the run");
            assert_eq!((next.object, next.record), (place.object, place.record + step));
        }
        offset = offset.saturating_add_unsigned(place.run);
    }
    assert_eq!(offset, all.high_watermark());
}

#[test]
fn what_is_being_counted_may_be_read_as_far_as_it_was_found_but_for_open_windows() {
    let mut all = Epochs::new(Shuffle::None, 0, 0);
    all.begin(3);
    assert_eq!((all.high_watermark(), all.find(0)), (0, None));
    all.grow(4);
    assert_eq!(all.high_watermark(), 4);
    all.count(10);
    all.grow(2);
    assert_eq!(all.high_watermark(), 12);
    let place = all.find(11).expect("found so far");
    assert_eq!((place.object, place.record, place.run), (1, 1, 1));
    assert_eq!((all.offset_of(0, 1, 1), all.offset_of(0, 1, 2)), (Some(11), None));
    assert_eq!((all.offset_of(0, 2, 0), all.offset_of(1, 0, 0)), (None, None));
    let first = all.epoch(0).expect("begun");
    let counted = [0, 1, 2, 3].map(|object| first.has_counted(object));
    assert_eq!(counted, [Counted::All, Counted::Part, Counted::Nothing, Counted::Nothing]);

    let mut windows = Epochs::new(Shuffle::Window(8), 0, 0);
    windows.begin(2);
    windows.grow(7);
    assert_eq!(windows.high_watermark(), 0);
    // The first window was shown when all of its object was counted, which took seconds where that is large.
    windows.grow(9);
    assert_eq!(windows.high_watermark(), 8);
    let found = (0..9).map(|offset| windows.find(offset));
    let found: Vec<_> = found.collect();
    assert!(found[..8].iter().all(Option::is_some) && found[8].is_none());
    windows.count(10);
    assert_eq!(windows.high_watermark(), 8);
    assert!((0..9).map(|offset| windows.find(offset)).eq(found), "each as before");
    let seen = (0..10).filter_map(|record| windows.offset_of(0, 1, record));
    assert_eq!(seen.collect::<BTreeSet<_>>(), (0..8).collect::<BTreeSet<_>>(), "as far as visible");
    windows.count(1);
    assert_eq!(windows.high_watermark(), 11);
    let last = windows.stretch(9).expect("the last window");
    let part = |object, record, records| Part { object, record, records };
    assert_eq!(last, Stretch { parts: vec![part(1, 8, 2), part(0, 0, 1)], end: 11 });
}
