//! RDMA: `rdma.max`, the same on v1 and v2 (Documentation/admin-guide/cgroup-v1/rdma.rst).

use std::collections::BTreeMap;

use crate::dir::Dir;
use crate::{Rdma, Result};

/// Sets the limits; a number that is absent keeps its limit.
pub(crate) fn apply(dir: &Dir, devices: &BTreeMap<String, Rdma>) -> Result<()> {
    for (device, limits) in devices {
        let mut line = device.clone();
        for (key, limit) in [("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects)] {
            line.extend(limit.map(|limit| format!(" {key}={limit}")));
        }
        if line.len() > device.len() {
            dir.write("rdma.max", &line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn what_is_limited_of_a_device_is_written() {
        let check = |hca_handles, hca_objects, expected: &str| {
            let fixture = Fixture::new(&[("rdma.max", "?")]);
            let devices = [("mlx4_0".to_owned(), Rdma { hca_handles, hca_objects })].into();
            apply(&fixture.dir, &devices).expect("limits");
            assert_eq!(fixture.content("rdma.max"), expected);
        };
        check(Some(2), Some(2000), "mlx4_0 hca_handle=2 hca_object=2000");
        check(None, Some(0), "mlx4_0 hca_object=0");
        check(None, None, "?");
    }
}
