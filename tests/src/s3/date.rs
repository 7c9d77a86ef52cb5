//! Times as S3 writes them, in whole seconds since 1970.

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_SECONDS: u64 = 86_400;

/// As HTTP's `Last-Modified` has it.
pub(super) fn http(seconds: u64) -> String {
    let (year, month, day) = date(seconds / DAY_SECONDS);
    // 1970 began on a Thursday.
    let weekday = named(&DAYS, (seconds / DAY_SECONDS + 4) % 7);
    let month = named(&MONTHS, month - 1);
    format!("{weekday}, {day:02} {month} {year} {} GMT", clock(seconds))
}

/// As listings have it.
pub(super) fn iso(seconds: u64) -> String {
    let (year, month, day) = date(seconds / DAY_SECONDS);
    format!("{year}-{month:02}-{day:02}T{}.000Z", clock(seconds))
}

fn named(names: &[&'static str], index: u64) -> &'static str {
    usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default()
}

fn clock(seconds: u64) -> String {
    let of_day = seconds % DAY_SECONDS;
    format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// Year, month and day. The calendar repeats every 146,097 days; counted from a first of March, leap days come last
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::{http, iso};

    #[test]
    fn times_are_written_as_clients_parse_them() {
        let check = |seconds, as_http, as_iso| {
            assert_eq!((http(seconds).as_str(), iso(seconds).as_str()), (as_http, as_iso));
        };
        check(0, "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00.000Z");
        check(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT", "2000-02-29T00:00:00.000Z");
        check(951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT", "2000-02-29T23:59:59.000Z");
        check(951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT", "2000-03-01T00:00:00.000Z");
        check(1_767_225_600, "Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01T00:00:00.000Z");
        check(4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT", "2100-02-28T23:59:59.000Z");
        check(4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT", "2100-03-01T00:00:00.000Z");
    }
}
