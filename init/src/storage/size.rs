//! Sizes as LVM's tools take them: `20G` is 20 GiB.

/// Reads a size: digits and one of `K`, `M`, `G`, `T` (powers of 1024), or `0`. Returns bytes.
///
/// # Errors
/// It is nothing of that kind, or too large.
pub fn parse(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let wrong = || format!("{text:?} is no size: digits and K, M, G or T, for example 20G");
    let unit = match text.chars().last() {
        Some('K') => 1_u64 << 10,
        Some('M') => 1 << 20,
        Some('G') => 1 << 30,
        Some('T') => 1 << 40,
        _ => return Err(wrong()),
    };
    let digits = text.get(..text.len() - 1).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).ok_or_else(|| format!("{text} is too large"))
}

/// A size for people: `19.5 GiB`.
#[must_use]
pub fn text(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..0x10_0000 => (1_u64 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        0x4000_0000..0x100_0000_0000 => (1 << 30, "GiB"),
        _ => (1 << 40, "TiB"),
    };
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    if tenths % 10 == 0 { format!("{} {name}", tenths / 10) } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_strictly_and_written_for_people() {
        assert_eq!((parse("20G"), parse("512M"), parse("0")), (Ok(20 << 30), Ok(512 << 20), Ok(0)));
        for wrong in ["", "G", "20", "20g", "20GB", "-1G", "+1G", "1.5G", "٣G", "20 G"] {
            assert!(parse(wrong).unwrap_err().contains("for example 20G"), "{wrong}");
        }
        assert!(parse("99999999999999T").unwrap_err().contains("too large"));
        assert_eq!((text(20 << 30), text(1536 << 20), text(4096)), ("20 GiB".into(), "1.5 GiB".into(), "4 KiB".into()));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(word in ".*") {
            let _ = parse(&word);
        }
    }
}
