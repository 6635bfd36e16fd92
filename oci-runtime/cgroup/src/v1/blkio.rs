//! Block I/O: weights, limits, figures (Documentation/admin-guide/cgroup-v1/blkio-controller.rst).

use nix::errno::Errno;

use crate::details::device;
use crate::dir::Dir;
use crate::{BlockIo, DeviceWeight, Error, IoDetails, IoEntry, Result, Throttled};

/// Sets weights and limits. Weights are CFQ's where it is there, else BFQ's; without either nothing would keep them.
pub(crate) fn apply(dir: &Dir, io: &BlockIo) -> Result<()> {
    if let Some(weight) = given(io.weight) {
        first_of(dir, ["blkio.weight", "blkio.bfq.weight"], &weight.to_string(), "blockIO.weight")?;
    }
    if let Some(weight) = given(io.leaf_weight) {
        first_of(dir, ["blkio.leaf_weight"], &weight.to_string(), "blockIO.leafWeight")?;
    }
    for DeviceWeight { major, minor, weight, leaf_weight } in &io.devices {
        if let Some(weight) = given(*weight) {
            let value = format!("{major}:{minor} {weight}");
            first_of(dir, ["blkio.weight_device", "blkio.bfq.weight_device"], &value, "blockIO.weightDevice")?;
        }
        if let Some(weight) = given(*leaf_weight) {
            let value = format!("{major}:{minor} {weight}");
            first_of(dir, ["blkio.leaf_weight_device"], &value, "blockIO.weightDevice.leafWeight")?;
        }
    }
    for throttle in &io.throttle {
        let file = match throttle.of {
            Throttled::ReadBytes => "blkio.throttle.read_bps_device",
            Throttled::WriteBytes => "blkio.throttle.write_bps_device",
            Throttled::Reads => "blkio.throttle.read_iops_device",
            Throttled::Writes => "blkio.throttle.write_iops_device",
        };
        dir.write(file, &format!("{}:{} {}", throttle.major, throttle.minor, throttle.rate))?;
    }
    Ok(())
}

fn given(weight: Option<u16>) -> Option<u16> {
    weight.filter(|&weight| weight != 0)
}

/// Writes to the first of the files that is there.
fn first_of<const N: usize>(dir: &Dir, files: [&str; N], value: &str, field: &'static str) -> Result<()> {
    for file in files {
        match dir.write(file, value) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            result => return result,
        }
    }
    Err(Error::Missing {
        field,
        missing: format!("this kernel has no I/O scheduler with weights (no {})", files.join(", no ")),
    })
}

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
    fn weights_and_limits_are_written_in_the_words_of_the_scheduler_that_is_there() {
        use crate::Throttle;
        let io = BlockIo {
            weight: Some(500),
            leaf_weight: Some(0),
            devices: vec![DeviceWeight { major: 8, minor: 0, weight: Some(600), leaf_weight: None }],
            throttle: vec![Throttle { major: 8, minor: 16, of: Throttled::Writes, rate: 70 }],
        };
        for prefix in ["blkio", "blkio.bfq"] {
            let (weight, device) = (format!("{prefix}.weight"), format!("{prefix}.weight_device"));
            let limit = "blkio.throttle.write_iops_device";
            let fixture = Fixture::new(&[(&weight, ""), (&device, ""), (limit, "")]);
            apply(&fixture.dir, &io).expect("limits");
            assert_eq!(fixture.content(&weight), "500");
            assert_eq!((fixture.content(&device), fixture.content(limit)), ("8:0 600".into(), "8:16 70".into()));
        }
        let error = apply(&Fixture::new(&[]).dir, &io).expect_err("no scheduler");
        let text = "linux.resources.blockIO.weight: this kernel has no I/O scheduler with weights";
        assert!(error.to_string().starts_with(text), "{error}");
    }

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
