//! How seeds are written on the command line: `7`, `0x1a2b`, `0..20`, `0..=19`.

use std::ops::Range;

/// More seeds than any sweep can want; a mistyped bound should not fill memory.
const SEEDS_MAX: u64 = 10_000_000;

/// Reads one seed, decimal or hexadecimal.
pub fn parse_seed(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "");
    let parsed = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    parsed.map_err(|error| format!("`{text}` is no seed such as 7 or 0x1a2b: {error}"))
}

/// Reads a range of seeds; the end is excluded unless written with `=`.
pub fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text
        .split_once("..")
        .ok_or_else(|| format!("`{text}` is no range of seeds such as 0..20"))?;
    let start = parse_seed(start)?;
    let end = match end.strip_prefix('=') {
        Some(last) => parse_seed(last)?
            .checked_add(1)
            .ok_or_else(|| "the last seed of a range is at most 2^64 - 2".to_owned())?,
        None => parse_seed(end)?,
    };
    if end.saturating_sub(start) > SEEDS_MAX {
        return Err(format!("`{text}` has more than {SEEDS_MAX} seeds"));
    }
    Ok(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_decimal_or_hexadecimal() {
        assert_eq!(parse_seed("17"), Ok(17));
        assert_eq!(parse_seed("0x1a2b"), Ok(0x1a2b));
        assert_eq!(parse_seed("0xffff_ffff_ffff_ffff"), Ok(u64::MAX));
        assert!(parse_seed("18446744073709551616").is_err());
        assert!(parse_seed("-1").is_err() && parse_seed("").is_err());
    }

    #[test]
    fn ranges_exclude_their_end_unless_they_say_so() {
        assert_eq!(parse_range("0..20"), Ok(0..20));
        assert_eq!(parse_range("0x10..=17"), Ok(16..18));
        assert!(parse_range("5..1").is_ok_and(|range| range.is_empty()));
    }

    #[test]
    fn a_range_that_never_ends_is_refused() {
        assert!(parse_range("0..0xffffffffffffffff").is_err());
        assert!(parse_range("0..=0xffffffffffffffff").is_err());
        assert!(parse_range("7").is_err());
    }
}
