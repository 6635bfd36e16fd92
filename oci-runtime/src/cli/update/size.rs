//! Sizes as docker's command line writes them: `512k`, `64M`, `1.5GiB`.

/// Bytes: a number, which may have a fraction, and a unit of 1024, 1024², …; `None` for anything else. `-1` is itself.
pub(super) fn parse(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.strip_prefix(' ').unwrap_or(unit) {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    match number.split_once('.') {
        None => number.parse::<i64>().ok()?.checked_mul(1 << shift),
        Some(_) => {
            let bytes = number.parse::<f64>().ok()? * f64::from(2_u32).powi(shift);
            // Beyond 2⁵³ a float has no single bytes; nobody writes such a size with a fraction.
            (bytes < 2_f64.powi(53)).then_some(bytes as i64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("1k", 1024),
            ("64M", 64 << 20),
            ("64MB", 64 << 20),
            ("1GiB", 1 << 30),
            ("1.5g", 3 << 29),
            ("2 t", 2 << 40),
            ("-1", -1),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "foo", "1x", "1mm", "-2", "1.2.3", "0x10", "9999999999p", " 1", "1e3", "."] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
