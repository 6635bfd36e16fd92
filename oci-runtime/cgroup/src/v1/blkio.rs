//! Block I/O: weights, limits, figures (Documentation/admin-guide/cgroup-v1/blkio-controller.rst).

use crate::details::device;
use crate::dir::Dir;
use crate::{IoDetails, IoEntry, Result};

/// Reads the figures. Those of the proportional schedulers are there only with CFQ (kernels before 5.0) or BFQ; else the
/// throttling layer's, which counts what every container does.
pub(crate) fn read(dir: &Dir) -> Result<IoDetails> {
    let table = |name: &str| -> Result<Vec<IoEntry>> {
        for file in [format!("blkio.bfq.{name}_recursive"), format!("blkio.{name}_recursive")] {
            if let Some(entries) = entries(dir, &file)?.filter(|entries| !entries.is_empty()) {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    let throttled = |name: &str| -> Result<Vec<IoEntry>> {
        let found = table(name)?;
        if !found.is_empty() {
            return Ok(found);
        }
        for file in [format!("blkio.throttle.{name}_recursive"), format!("blkio.throttle.{name}")] {
            if let Some(entries) = entries(dir, &file)? {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    Ok(IoDetails {
        service_bytes: throttled("io_service_bytes")?,
        serviced: throttled("io_serviced")?,
        queued: table("io_queued")?,
        service_time: table("io_service_time")?,
        wait_time: table("io_wait_time")?,
        merged: table("io_merged")?,
        time: table("time")?,
        sectors: table("sectors")?,
    })
}

/// `8:0 Read 4096` or `8:0 4096`, and a line `Total …`, which has no device.
fn entries(dir: &Dir, file: &str) -> Result<Option<Vec<IoEntry>>> {
    let Some(text) = dir.read_if_there(file)? else { return Ok(None) };
    let mut entries = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("Total")) {
        let mut words = line.split_whitespace();
        let mut parsed = || {
            let (major, minor) = device(words.next()?)?;
            let word = words.next()?;
            let (operation, value) = words.next().map_or(("", word), |value| (word, value));
            Some(IoEntry { major, minor, operation: operation.to_owned(), value: value.parse().ok()? })
        };
        entries.push(parsed().ok_or_else(|| dir.malformed(file, line, "a figure of a device"))?);
    }
    Ok(Some(entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn figures_are_the_schedulers_or_else_the_throttling_layers() {
        let fixture = Fixture::new(&[
            ("blkio.throttle.io_service_bytes", "8:0 Read 4096\n8:0 Total 4096\nTotal 4096\n"),
            ("blkio.bfq.io_serviced_recursive", "8:16 Write 3\nTotal 3\n"),
            ("blkio.throttle.io_serviced", "8:0 Read 1\n"),
            ("blkio.time_recursive", "8:0 12\n"),
        ]);
        let entry = |minor, operation: &str, value| IoEntry { major: 8, minor, operation: operation.to_owned(), value };
        let io = read(&fixture.dir).expect("figures");
        assert_eq!(io.service_bytes, [entry(0, "Read", 4096), entry(0, "Total", 4096)]);
        assert_eq!(io.serviced, [entry(16, "Write", 3)]);
        assert_eq!(io.time, [entry(0, "", 12)]);
        assert!(io.queued.is_empty());
    }
}
