//! Lists of CPUs and memory nodes, as the kernel writes them (cpuset(7), "List format"): `0-3,7`.

/// One more than the largest number: no kernel has more CPUs (`NR_CPUS`) or nodes.
const LIMIT: usize = 8192;

/// The members of `list`, bit `n % 64` of word `n / 64`; of an empty list there is no word.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(list: &str) -> Result<Vec<u64>, String> {
    let mut mask = Vec::new();
    if list.is_empty() {
        return Ok(mask);
    }
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first, list)?, number(last, list)?);
        if first > last {
            return Err(format!("{list:?}: {range} runs backwards"));
        }
        if mask.len() <= last / 64 {
            mask.resize(last / 64 + 1, 0);
        }
        (first..=last).for_each(|member| mask[member / 64] |= 1_u64 << (member % 64));
    }
    Ok(mask)
}

fn number(digits: &str, list: &str) -> Result<usize, String> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    match digits.parse() {
        Ok(number) if is_number && number < LIMIT => Ok(number),
        Ok(_) | Err(_) if is_number => Err(format!("{list:?}: {digits} is not below {LIMIT}")),
        _ => Err(format!("{list:?} is not a list such as 0-3,7")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_mask() {
        for (list, mask) in [
            ("", &[][..]),
            ("0", &[1][..]),
            ("0-3,7", &[0b1000_1111][..]),
            ("7,0-3,1", &[0b1000_1111][..]),
            ("63-64", &[1 << 63, 1][..]),
        ] {
            assert_eq!(parse(list).as_deref(), Ok(mask), "{list:?}");
        }
        assert_eq!(parse("8191").unwrap().len(), 128);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for list in [",", "0,", "-", "1-", "-1", "0--1", "a", " 1", "+1", "1-2-3", "0x1"] {
            assert_eq!(parse(list), Err(format!("{list:?} is not a list such as 0-3,7")));
        }
        assert_eq!(parse("3-1"), Err("\"3-1\": 3-1 runs backwards".to_owned()));
        assert_eq!(parse("8192"), Err("\"8192\": 8192 is not below 8192".to_owned()));
        let huge = "9".repeat(30);
        assert_eq!(parse(&huge), Err(format!("{huge:?}: {huge} is not below 8192")));
    }
}
