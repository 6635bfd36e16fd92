//! Kubernetes quantities: `100m`, `1.5Gi`, `1e3`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A text that is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity")]
pub struct QuantityError(String);

/// No quantity is larger: that many units are upstream's most, too. It also keeps every sum of some within an i128.
const MAX: i128 = i64::MAX as i128 * 1_000_000_000;

/// The amount in billionths, rounded away from zero as upstream rounds what is finer.
pub fn nano(quantity: &Quantity) -> Result<i128, QuantityError> {
    parse(&quantity.0).ok_or_else(|| QuantityError(quantity.0.clone()))
}

/// The amount in thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> Result<i64, QuantityError> {
    scaled(quantity, 1_000_000)
}

/// The amount in whole units, rounded up.
pub fn units(quantity: &Quantity) -> Result<i64, QuantityError> {
    scaled(quantity, 1_000_000_000)
}

fn scaled(quantity: &Quantity, nanos: i128) -> Result<i64, QuantityError> {
    let amount = nano(quantity)?;
    let rounded = amount.div_euclid(nanos) + i128::from(amount.rem_euclid(nanos) != 0);
    i64::try_from(rounded).map_err(|_| QuantityError(quantity.0.clone()))
}

fn parse(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let (numerator, denominator) = scale(suffix)?;
    let divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(denominator)?;
    let nanos = digits.checked_mul(1_000_000_000)?.checked_mul(numerator)?;
    let rounded = (nanos / divisor + i128::from(nanos % divisor != 0)).min(MAX);
    Some(if negative { -rounded } else { rounded })
}

/// What a suffix multiplies by, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let power = |base: i128, exponent: u32| base.checked_pow(exponent);
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, power(10, 9)?),
        "u" => (1, power(10, 6)?),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (power(10, 6)?, 1),
        "G" => (power(10, 9)?, 1),
        "T" => (power(10, 12)?, 1),
        "P" => (power(10, 15)?, 1),
        "E" => (power(10, 18)?, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            match exponent {
                0..=24 => (power(10, exponent.unsigned_abs())?, 1),
                -24..0 => (1, power(10, exponent.unsigned_abs())?),
                _ => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<i128>) {
        assert_eq!(nano(&Quantity(text.to_owned())).ok(), expected, "{text}");
    }

    #[test]
    fn every_form_of_a_quantity_is_read() {
        check("1", Some(1_000_000_000));
        check("100m", Some(100_000_000));
        check("1.5Gi", Some(1_610_612_736_000_000_000));
        check(".5", Some(500_000_000));
        check("1e3", Some(1_000_000_000_000));
        check("99999999999E", Some(MAX));
        check("-99999999999E", Some(-MAX));
        check("2E", Some(2_000_000_000_000_000_000_000_000_000));
        check("0.1n", Some(1));
        check("-1k", Some(-1_000_000_000_000));
        for wrong in ["", "m", "1.2.3", "1 Gi", "1KiB", "1e", "0x1", "1e99"] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_finer_than_the_unit_is_rounded_up() {
        assert_eq!(milli(&Quantity("1n".into())), Ok(1));
        assert_eq!(units(&Quantity("1500m".into())), Ok(2));
    }
}
