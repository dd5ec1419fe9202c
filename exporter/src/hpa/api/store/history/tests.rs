use super::*;

#[test]
fn numbers_are_what_they_were() {
    for value in [0.0, 1.0, 2e8, 4.5e15, 4.6e15, 1e300, -3.0, 0.1, -0.0, f64::INFINITY, f64::MIN_POSITIVE] {
        assert_eq!(Number::exact(value).value().to_bits(), value.to_bits(), "{value}");
    }
    for (value, kept) in [(10.0, Number::Integer(10)), (0.4, Number::Micro(400_000)), (0.000_000_3, Number::Nano(300))]
    {
        assert_eq!((Number::growth(value), kept.value()), (kept, value));
    }
    // 12.34 - 12.33 in binary.
    assert_eq!(Number::growth(0.009_999_999_999_999_787), Number::Micro(10_000));
    assert_eq!(Number::growth(1e15 + 0.5), Number::Float(1e15 + 0.5));
}

#[test]
fn changes_come_and_go_in_order_and_take_no_more_room_than_they_need() {
    let mut history = History::default();
    let values = [Number::Integer(7), Number::Micro(400_000), Number::Float(0.1), Number::Nano(123_456_789)];
    let mut expected: Vec<(u64, Number)> = Vec::new();
    let mut most = 0;
    for second in 0..5000_u64 {
        let at = 1_700_000_000_000 + second * 1000 + second % 7;
        let number = values[second as usize % values.len()];
        history.expire(Changes::Numbers, at - 20_000, false);
        history.push_number(at, number);
        expected.push((at, number));
        expected.retain(|(it, _)| *it >= at - 20_000);
        assert_eq!(history.numbers().collect::<Vec<_>>(), expected, "{second}");
        most = most.max(history.held());
    }
    // 20 changes of 8 bytes.
    assert!(most < 240, "{most}");
    history.expire(Changes::Numbers, u64::MAX, false);
    assert!(history.is_empty() && history.held() == 0 && history.numbers().next().is_none());
}

#[test]
fn what_holds_at_the_cutoff_stays_where_it_is_wanted() {
    let mut history = History::default();
    for (at, value) in [(10, 1), (20, 2), (30, 3)] {
        history.push_number(at, Number::Integer(value));
    }
    history.expire(Changes::Numbers, 25, true);
    assert_eq!(history.numbers().collect::<Vec<_>>(), [(20, Number::Integer(2)), (30, Number::Integer(3))]);
    history.expire(Changes::Numbers, 1_000_000_000_000, true);
    assert_eq!(history.numbers().collect::<Vec<_>>(), [(1_000_000_000_000, Number::Integer(3))]);
    // A clock that is set forth by a year.
    let year = 1_000_000_000_000 + 31_536_000_000;
    history.push_number(year, Number::Integer(4));
    assert_eq!(history.numbers().collect::<Vec<_>>(), [(year, Number::Integer(4))]);
}

#[test]
fn buckets_are_what_they_were() {
    let mut history = History::default();
    history.push_buckets(1000, &[(0, 1), (3, 70_000), (999, u32::MAX)]);
    history.push_buckets(2000, &[(5, 2)]);
    let all = |history: &History, from: u64| {
        let mut all = Vec::new();
        history.each_bucket(|at| at > from, |bucket, count| all.push((bucket, count)));
        all
    };
    assert_eq!(all(&history, 0), [(0, 1), (3, 70_000), (999, u32::MAX), (5, 2)]);
    assert_eq!(all(&history, 1000), [(5, 2)]);
    history.expire(Changes::Buckets, 1001, false);
    assert_eq!(all(&history, 0), [(5, 2)]);
}
