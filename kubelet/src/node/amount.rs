//! Quantities as the API server writes them: statuses are compared as text with what it has.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// An amount in bytes, with the largest power of 1024 that divides it: `3933380Ki`.
pub(super) fn binary(bytes: u64) -> Quantity {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let power = if bytes < 1024 { 0 } else { (bytes.trailing_zeros() / 10).min(6) };
    Quantity(format!("{}{}", bytes >> (10 * power), SUFFIXES[power as usize]))
}

/// An amount in thousandths, with the largest power of 1000 that divides it: `1900m`, `4`, `2k`.
pub(super) fn decimal(milli: u64) -> Quantity {
    const SUFFIXES: [&str; 7] = ["m", "", "k", "M", "G", "T", "P"];
    let (mut amount, mut power) = (milli, 0);
    while power + 1 < SUFFIXES.len() && amount.is_multiple_of(1000) && (amount > 0 || power == 0) {
        (amount, power) = (amount / 1000, power + 1);
    }
    Quantity(format!("{amount}{}", SUFFIXES[power]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_as_upstream_does() {
        for (bytes, expected) in [
            (0, "0"),
            (100, "100"),
            (1024, "1Ki"),
            (1536, "1536"),
            (4_027_781_120, "3933380Ki"),
            (18_566_299_208, "18566299208"),
            (8 << 30, "8Gi"),
        ] {
            assert_eq!(binary(bytes).0, expected);
        }
        for (milli, expected) in
            [(0, "0"), (1, "1m"), (1900, "1900m"), (4000, "4"), (110_000, "110"), (2_000_000, "2k")]
        {
            assert_eq!(decimal(milli).0, expected);
        }
    }
}
