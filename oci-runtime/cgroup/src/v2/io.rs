//! `io.max`, `io.weight`, `io.bfq.weight`, `io.stat` (Documentation/admin-guide/cgroup-v2.rst, "IO").

use nix::errno::Errno;

use crate::details::device;
use crate::dir::Dir;
use crate::{BlockIo, Error, IoDetails, IoEntry, Result, Throttled};

/// Whether nothing is asked for.
pub(super) fn is_empty(io: &BlockIo) -> bool {
    let given = |weight: Option<u16>| weight.unwrap_or(0) != 0;
    !given(io.weight) && !io.devices.iter().any(|device| given(device.weight)) && io.throttle.is_empty()
}

/// Refuses what v2 has no file for.
pub(super) fn validate(io: &BlockIo) -> Result<()> {
    let leaves = io.devices.iter().map(|device| device.leaf_weight).chain([io.leaf_weight]);
    match leaves.into_iter().any(|weight| weight.unwrap_or(0) != 0) {
        true => Err(Error::Missing {
            field: "blockIO.leafWeight",
            missing: "cgroup v2 has no weight of a cgroup's own tasks against those below it".to_owned(),
        }),
        false => Ok(()),
    }
}

/// Sets weights, BFQ's where it is there, and limits.
pub(super) fn apply(dir: &Dir, io: &BlockIo) -> Result<()> {
    if let Some(weight) = io.weight.filter(|&weight| weight != 0) {
        set_weight(dir, "", weight, "blockIO.weight")?;
    }
    for device in &io.devices {
        if let Some(weight) = device.weight.filter(|&weight| weight != 0) {
            set_weight(dir, &format!("{}:{} ", device.major, device.minor), weight, "blockIO.weightDevice")?;
        }
    }
    for throttle in &io.throttle {
        let key = match throttle.of {
            Throttled::ReadBytes => "rbps",
            Throttled::WriteBytes => "wbps",
            Throttled::Reads => "riops",
            Throttled::Writes => "wiops",
        };
        let rate = if throttle.rate == 0 { "max".to_owned() } else { throttle.rate.to_string() };
        dir.write("io.max", &format!("{}:{} {key}={rate}", throttle.major, throttle.minor))?;
    }
    Ok(())
}

/// BFQ takes the runtime-spec's weights as they are; the cost model's go from 1 to 10000.
fn set_weight(dir: &Dir, device: &str, weight: u16, field: &'static str) -> Result<()> {
    match dir.write("io.bfq.weight", &format!("{device}{weight}")) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => {}
        result => return result,
    }
    match dir.write("io.weight", &format!("{device}{}", cost_weight(weight))) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => {
            let missing = "this kernel has no I/O weights (no io.bfq.weight, no io.weight)".to_owned();
            Err(Error::Missing { field, missing })
        }
        result => result,
    }
}

/// On a straight line from 10 → 1 to 1000 → 10000, as runc has it.
fn cost_weight(weight: u16) -> u32 {
    1 + (u32::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

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
    fn weights_are_bfqs_or_else_converted() {
        for (weight, converted) in [(10, 1), (100, 910), (500, 4950), (1000, 10_000), (1, 1)] {
            assert_eq!(cost_weight(weight), converted, "{weight}");
        }
        let device = crate::DeviceWeight { major: 8, minor: 0, weight: Some(100), leaf_weight: None };
        let io = BlockIo { devices: vec![device], ..BlockIo::default() };
        for (file, content) in [("io.bfq.weight", "8:0 100"), ("io.weight", "8:0 910")] {
            let fixture = Fixture::new(&[(file, "")]);
            apply(&fixture.dir, &io).expect("a weight");
            assert_eq!(fixture.content(file), content);
        }
        let error = apply(&Fixture::new(&[]).dir, &io).expect_err("no weights");
        assert!(error.to_string().starts_with("linux.resources.blockIO.weightDevice: this kernel has no"), "{error}");
    }

    #[test]
    fn limits_are_keyed_by_device_and_none_is_max() {
        use crate::Throttle;
        for (of, rate, line) in [
            (Throttled::ReadBytes, 1024, "8:16 rbps=1024"),
            (Throttled::WriteBytes, 1, "8:16 wbps=1"),
            (Throttled::Reads, 0, "8:16 riops=max"),
            (Throttled::Writes, 7, "8:16 wiops=7"),
        ] {
            let fixture = Fixture::new(&[("io.max", "")]);
            let throttle = vec![Throttle { major: 8, minor: 16, of, rate }];
            apply(&fixture.dir, &BlockIo { throttle, ..BlockIo::default() }).expect("a limit");
            assert_eq!(fixture.content("io.max"), line);
        }
        validate(&BlockIo { leaf_weight: Some(10), ..BlockIo::default() }).expect_err("no leaf weight");
        validate(&BlockIo { leaf_weight: Some(0), ..BlockIo::default() }).expect("absent");
    }

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
