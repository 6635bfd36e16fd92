//! `io.max`, `io.weight`, `io.bfq.weight`, `io.stat` (Documentation/admin-guide/cgroup-v2.rst, "IO").

use crate::details::device;
use crate::dir::Dir;
use crate::{IoDetails, IoEntry, Result};

/// Reads bytes and operations; `io.stat` has a line for each device that was used.
pub(super) fn read(dir: &Dir) -> Result<IoDetails> {
    let mut io = IoDetails::default();
    let text = dir.read_if_there("io.stat")?.unwrap_or_default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let malformed = || dir.malformed("io.stat", line, "a device's figures");
        let (major, minor) = words.next().and_then(device).ok_or_else(malformed)?;
        for word in words {
            let (list, operation) = match word.split_once('=').map(|(key, _)| key) {
                Some("rbytes") => (&mut io.service_bytes, "Read"),
                Some("wbytes") => (&mut io.service_bytes, "Write"),
                Some("rios") => (&mut io.serviced, "Read"),
                Some("wios") => (&mut io.serviced, "Write"),
                _ => continue,
            };
            let value = word.split_once('=').and_then(|(_, value)| value.parse().ok()).ok_or_else(malformed)?;
            list.push(IoEntry { major, minor, operation: operation.to_owned(), value });
        }
    }
    Ok(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn bytes_and_operations_are_read_for_each_device() {
        let text = "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n7:0 \n";
        let io = read(&Fixture::new(&[("io.stat", text)]).dir).expect("figures");
        let figures = |list: &[IoEntry]| -> Vec<(u64, String, u64)> {
            list.iter().map(|entry| (entry.minor, entry.operation.clone(), entry.value)).collect()
        };
        assert_eq!(figures(&io.service_bytes), [(16, "Read".into(), 1_459_200), (16, "Write".into(), 314_773_504)]);
        assert_eq!(figures(&io.serviced), [(16, "Read".into(), 192), (16, "Write".into(), 353)]);
        assert_eq!(read(&Fixture::new(&[]).dir).expect("nothing"), IoDetails::default());
    }
}
