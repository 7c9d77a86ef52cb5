//! Numbers as people read them.

use std::time::{Duration, UNIX_EPOCH};

/// With commas: 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of something: `1 partition`, `1,200 partitions`.
pub(super) fn counted(number: u64, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {what}{ending}", grouped(number))
}

/// 1.2 GB: decimal, as disks and links are sold.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// A size as people write it: `64MiB`, `1.5GB`, `8589934592`.
///
/// # Errors
/// Says how it is written.
pub(super) fn parsed_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let ends = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
    let (figures, unit) = ends.unwrap_or((text, 1));
    let wrong = || {
        format!("{text:?} is no size: bytes, or a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB")
    };
    let (whole, part) = figures.trim_end().split_once('.').unwrap_or((figures.trim_end(), "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // More than nine decimals are less than a byte of any unit that people mean.
    if !is_number(whole) || !is_number(part) || part.len() > 9 {
        return Err(wrong());
    }
    let scale = 10_u128.pow(u32::try_from(part.len()).unwrap_or(9));
    let whole: u128 = whole.parse::<u64>().map_err(|_| wrong())?.into();
    let part: u128 = part.parse::<u64>().map_err(|_| wrong())?.into();
    u64::try_from((whole * scale + part) * u128::from(unit) / scale).map_err(|_| wrong())
}

/// A part of a whole, in percent; 0 of nothing.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part.min(whole)) * 1000 / u128::from(whole.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Milliseconds since 1970 as a time.
pub(super) fn time(ms: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_millis(ms)) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, counted, grouped, parsed_bytes, percent, time};

    #[test]
    fn numbers_are_for_people() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), expected);
        }
        for (number, expected) in [(0, "0 objects"), (1, "1 object"), (2000, "2,000 objects")] {
            assert_eq!(counted(number, "object"), expected);
        }
        for (number, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_990_000, "1.9 MB"),
            (15_230_000_000, "15.2 GB"),
            (u64::MAX, "18446744.0 TB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        for (part, whole, expected) in [(1, 3, "33.3 %"), (3, 3, "100.0 %"), (0, 0, "0.0 %")] {
            assert_eq!(percent(part, whole), expected);
        }
        for (text, expected) in [
            ("8589934592", Some(8_589_934_592)),
            ("64MiB", Some(67_108_864)),
            ("1.5 GB", Some(1_500_000_000)),
            ("2TiB", Some(2_199_023_255_552)),
            ("10B", Some(10)),
            ("64mib", None),
            ("-1", None),
            ("MB", None),
            ("99999999TB", None),
        ] {
            assert_eq!(parsed_bytes(text).ok(), expected, "{text}");
        }
        assert_eq!(time(1_795_723_200_000), "2026-11-26T20:00:00Z");
    }
}
