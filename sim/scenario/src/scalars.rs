//! Scalars with units: durations, ranges, sizes, cores, rates, numbers. Text to value with an error
//! that says what was wanted, and value to text for people. Integer arithmetic only.

use std::fmt::Write as _;
use std::time::Duration;

use crate::plan::Range;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Units of time, longest first.
const TIME_UNITS: &[(&str, u128)] = &[
    ("h", 3600 * NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("s", NANOS_PER_SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Longest duration that a file may name: a year. Sums of a few of them fit into every counter.
const NANOS_MAX: u128 = 366 * 24 * 3600 * NANOS_PER_SECOND;

const SIZE_UNITS: &[(&str, u128)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Largest size that a file may name: a pebibyte.
const BYTES_MAX: u128 = 1 << 50;

/// `250ms`, `5s`, `1m30s`, `1.5h`; a bare `0` needs no unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let nanos = nanos(text)?;
    let seconds = u64::try_from(nanos / NANOS_PER_SECOND).unwrap_or(u64::MAX);
    let rest = u32::try_from(nanos % NANOS_PER_SECOND).unwrap_or(0);
    Ok(Duration::new(seconds, rest))
}

/// A duration that may be negative, in nanoseconds.
pub(crate) fn signed_nanos(text: &str) -> Result<i64, String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    i64::try_from(nanos(rest)?)
        .map(|nanos| sign * nanos)
        .map_err(|_| "too long".to_owned())
}

fn nanos(text: &str) -> Result<u128, String> {
    if text == "0" {
        return Ok(0);
    }
    let mut total = 0u128;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| c != '.' && !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number);
        let unit = tail
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        total = total.saturating_add(scaled(number, time_unit(number, unit)?)?);
        rest = tail;
    }
    match total {
        _ if text.is_empty() => Err("a duration is missing".to_owned()),
        total if total > NANOS_MAX => Err("longer than a year".to_owned()),
        total => Ok(total),
    }
}

fn time_unit(number: &str, unit: &str) -> Result<u128, String> {
    let unit = unit.trim();
    if number.is_empty() {
        return Err("not a duration".to_owned());
    }
    if unit.is_empty() {
        return Err(format!(
            "a duration needs a unit: `{number}s` or `{number}ms`"
        ));
    }
    let unit = if unit == "µs" || unit == "μs" {
        "us"
    } else {
        unit
    };
    let known = TIME_UNITS.iter().find(|(name, _)| *name == unit);
    known
        .map(|(_, nanos)| *nanos)
        .ok_or_else(|| format!("`{unit}` is no unit of time; there are ns, us, ms, s, m and h"))
}

/// A decimal number times `unit`, exactly; more digits than the unit has are an error.
fn scaled(number: &str, unit: u128) -> Result<u128, String> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return Err(format!("`{number}` is not a number"));
    }
    if whole.len() > 20 || fraction.len() > 12 {
        return Err(format!("`{number}` has too many digits"));
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let whole: u128 = whole.parse().map_err(|_| "too large".to_owned())?;
    let fraction: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().unwrap_or(0)
    };
    let parts = fraction.saturating_mul(unit);
    if !parts.is_multiple_of(scale) {
        return Err(format!("`{number}` is finer than its unit allows"));
    }
    Ok(whole.saturating_mul(unit).saturating_add(parts / scale))
}

/// `200us..2ms`, or a single duration for a range of one.
pub(crate) fn range(text: &str) -> Result<Range, String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let min = duration(min.trim())?;
    let max = duration(max.trim())?;
    if min > max {
        return Err("the range ends before it begins".to_owned());
    }
    Ok(Range { min, max })
}

/// `4MiB`, `8GiB`, `1500B`; a bare number counts bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let number = text
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number);
    let unit = unit.trim();
    let bytes = match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, bytes)) => *bytes,
        None if unit.is_empty() => 1,
        None => {
            return Err(format!(
                "`{unit}` is no unit of size; there are B, KiB, MiB, GiB, TiB"
            ));
        }
    };
    let total = scaled(number, bytes)?;
    if total > BYTES_MAX {
        return Err("larger than a pebibyte".to_owned());
    }
    u64::try_from(total).map_err(|_| "too large".to_owned())
}

/// Cores in thousandths: `4`, `0.5`, `500m`.
pub(crate) fn cpu_millis(text: &str) -> Result<u32, String> {
    let millis = match text.strip_suffix('m') {
        Some(millis) => scaled(millis, 1)?,
        None => scaled(text, 1000)?,
    };
    match u32::try_from(millis) {
        Ok(millis) if millis <= 1_000_000 => Ok(millis),
        _ => Err("more than a thousand cores".to_owned()),
    }
}

/// A rate as a number of times per this long: `2/min`, `1/10s`.
pub(crate) fn rate(text: &str) -> Result<(u32, Duration), String> {
    let wanted = || "not a rate".to_owned();
    let (number, period) = text.split_once('/').ok_or_else(wanted)?;
    let number: u32 = number.trim().parse().map_err(|_| wanted())?;
    let period = match period.trim() {
        "s" | "sec" | "second" => Duration::from_secs(1),
        "m" | "min" | "minute" => Duration::from_secs(60),
        "h" | "hour" => Duration::from_secs(3600),
        other => duration(other)?,
    };
    if number == 0 || number > 10_000 || period.is_zero() {
        return Err("a rate is from 1 to 10000 times in some time".to_owned());
    }
    Ok((number, period))
}

/// A whole number, decimal or `0x` hexadecimal, with optional sign and `_` between digits.
pub(crate) fn integer(text: &str) -> Result<i128, String> {
    let error = || "not a whole number".to_owned();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let digits = digits.replace('_', "");
    let value = match digits.strip_prefix("0x") {
        Some(hex) if hex.len() <= 16 && !hex.starts_with(['+', '-']) => {
            u64::from_str_radix(hex, 16).map_err(|_| error())?
        }
        Some(_) => return Err(error()),
        None if digits.starts_with(['+', '-']) => return Err(error()),
        None => digits.parse().map_err(|_| error())?,
    };
    Ok(sign * i128::from(value))
}

/// The shortest exact text: `1m30s`, `250ms`.
pub(crate) fn show(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, nanos) in TIME_UNITS {
        if rest >= *nanos {
            let _ = write!(text, "{}{name}", rest / nanos);
            rest %= nanos;
        }
    }
    text
}

/// A measured duration, rounded to microseconds, in one unit: `850us`, `36.12ms`, `1.5s`.
pub(crate) fn show_decimal(duration: Duration) -> String {
    let micros = (duration.as_nanos() + 500) / 1_000;
    let (unit, name) = match micros {
        0..1_000 => return format!("{micros}us"),
        1_000..1_000_000 => (1_000, "ms"),
        _ => (1_000_000, "s"),
    };
    let digits = if unit == 1_000 { 3 } else { 6 };
    let fraction = format!("{:0digits$}", micros % unit);
    let text = format!("{}.{fraction}", micros / unit);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{name}")
}

/// A range for a person.
pub(crate) fn show_range(range: Range) -> String {
    if range.min == range.max {
        show(range.min)
    } else {
        format!("{}..{}", show(range.min), show(range.max))
    }
}

/// A size for a person: in the largest unit that divides it.
pub(crate) fn show_size(bytes: u64) -> String {
    let binary = SIZE_UNITS.iter().filter(|(name, _)| name.ends_with("iB"));
    let unit = binary
        .copied()
        .find(|(_, unit)| bytes > 0 && u128::from(bytes) % unit == 0);
    match unit {
        Some((name, unit)) => format!("{}{name}", u128::from(bytes) / unit),
        None => format!("{bytes}B"),
    }
}

/// Signed nanoseconds for a person.
pub(crate) fn show_signed(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "+" };
    format!("{sign}{}", show(Duration::from_nanos(nanos.unsigned_abs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let ms = Duration::from_millis;
        for (text, value) in [
            ("250ms", ms(250)),
            ("5s", ms(5_000)),
            ("1m30s", ms(90_000)),
            ("1.5h", ms(5_400_000)),
            ("200us", Duration::from_micros(200)),
            ("0", ms(0)),
            ("0ms", ms(0)),
        ] {
            assert_eq!(duration(text), Ok(value), "{text}");
        }
        for text in [
            "5",
            "s",
            "",
            "-5s",
            "5 parsecs",
            "5s5",
            "1.",
            "0.1ns",
            "99999999h",
            "5S",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_do_not_end_before_they_begin() {
        let range_of = |min, max| Range {
            min: Duration::from_micros(min),
            max: Duration::from_micros(max),
        };
        assert_eq!(range("200us..2ms"), Ok(range_of(200, 2_000)));
        assert_eq!(range("2ms"), Ok(range_of(2_000, 2_000)));
        assert!(range("2ms..1ms").is_err() && range("..").is_err() && range("1s..").is_err());
    }

    #[test]
    fn sizes_cores_rates_and_numbers() {
        assert_eq!(size("4MiB"), Ok(4 << 20));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert!(size("4 parsecs").is_err() && size("").is_err() && size("2000TiB").is_err());
        assert_eq!((cpu_millis("0.5"), cpu_millis("250m")), (Ok(500), Ok(250)));
        assert_eq!(rate("2/min"), Ok((2, Duration::from_secs(60))));
        assert!(rate("0/min").is_err() && rate("2").is_err());
        assert_eq!((integer("0x1a2b"), integer("-7")), (Ok(0x1a2b), Ok(-7)));
        assert!(integer("--7").is_err() && integer("0x").is_err() && integer("7.5").is_err());
        assert_eq!(signed_nanos("-20s"), Ok(-20_000_000_000));
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["1m30s", "250ms", "1h", "1s5us"] {
            assert_eq!(show(duration(text).unwrap()), text);
        }
        for text in ["0us", "850us", "1ms", "36.12ms", "100ms", "1.5s", "20s"] {
            assert_eq!(show_decimal(duration(text).unwrap()), text);
        }
        assert_eq!(show_decimal(Duration::from_nanos(36_119_600)), "36.12ms");
        assert_eq!(show_size(3 << 29), "1536MiB");
    }
}
