//! `linux.uidMappings` and `gidMappings`, and those of a mount: which ids inside are which ids outside.

use std::fmt::Write as _;

use oci_spec::runtime::LinuxIdMapping;

use super::{Device, MountKind, MountPlan, Namespace, Parameter, Plan, PlanError, ProcessPlan, invalid};

/// The kernel's limit for one map (`UID_GID_MAP_MAX_EXTENTS`).
const MAX_RANGES: usize = 340;

/// One write has to hold the whole map and stay below a page (user_namespaces(7)).
const MAX_BYTES: usize = 4095;

/// Ids that follow each other on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdRange {
    /// The first one inside; for a mount, in its file system.
    pub inside: u32,
    /// The first one outside, of the runtime's user namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// One map: ranges that overlap on neither side, lowest inside first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap(Vec<IdRange>);

/// The two maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    /// Of users.
    pub users: IdMap,
    /// Of groups.
    pub groups: IdMap,
}

impl IdMap {
    fn from_spec(field: &str, list: &[LinuxIdMapping]) -> Result<IdMap, PlanError> {
        let too_many = || {
            let limit = format!("{MAX_RANGES}, written in {MAX_BYTES} bytes");
            invalid(field, format!("{} ranges are more than the kernel takes: {limit}", list.len()))
        };
        // Before each is compared with all others.
        if list.len() > MAX_RANGES {
            return Err(too_many());
        }
        let mut ranges = Vec::with_capacity(list.len());
        for (index, mapping) in list.iter().enumerate() {
            let range = IdRange { inside: mapping.container_id(), outside: mapping.host_id(), count: mapping.size() };
            // 4294967295 is no id (user_namespaces(7)), so a range ends before it.
            let ends = |first: u32| first.checked_add(range.count).is_some();
            if range.count == 0 || !ends(range.inside) || !ends(range.outside) {
                let reason = format!("{} ids from {} to {} are not ids", range.count, range.inside, range.outside);
                return Err(invalid(format!("{field}[{index}]"), reason));
            }
            if ranges.iter().any(|known| overlap(known, &range)) {
                return Err(invalid(format!("{field}[{index}]"), "overlaps with another one"));
            }
            ranges.push(range);
        }
        let map = IdMap::new(ranges);
        match map.to_text().len() > MAX_BYTES {
            true => Err(too_many()),
            false => Ok(map),
        }
    }

    fn new(mut ranges: Vec<IdRange>) -> IdMap {
        ranges.sort();
        IdMap(ranges)
    }

    /// Reads `/proc/<pid>/uid_map` or `gid_map`; `None` if it is not one.
    pub fn parse(text: &str) -> Option<IdMap> {
        let range = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some(IdRange { inside: next()?, outside: next()?, count: next()? })
        };
        text.lines().map(range).collect::<Option<Vec<_>>>().map(IdMap::new)
    }

    /// As the kernel takes it: a line per range.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for IdRange { inside, outside, count } in &self.0 {
            let _ = writeln!(text, "{inside} {outside} {count}");
        }
        text
    }

    /// The id outside of an id inside; `None` if it has none.
    pub fn outside(&self, id: u32) -> Option<u32> {
        let holds = |range: &&IdRange| id.checked_sub(range.inside).is_some_and(|offset| offset < range.count);
        self.0.iter().find(holds).map(|range| range.outside + (id - range.inside))
    }
}

fn overlap(a: &IdRange, b: &IdRange) -> bool {
    let meet = |a_first: u32, b_first: u32| a_first < b_first + b.count && b_first < a_first + a.count;
    meet(a.inside, b.inside) || meet(a.outside, b.outside)
}

impl IdMaps {
    /// Of the two lists of a config, whose fields begin with `prefix`; `None` if both are empty.
    pub(super) fn from_spec(
        prefix: &str,
        users: Option<&[LinuxIdMapping]>,
        groups: Option<&[LinuxIdMapping]>,
    ) -> Result<Option<IdMaps>, PlanError> {
        let lists = [("uidMappings", users.unwrap_or_default()), ("gidMappings", groups.unwrap_or_default())];
        if lists.iter().all(|(_, list)| list.is_empty()) {
            return Ok(None);
        }
        let [users, groups] = lists.map(|(name, list)| match list {
            [] => Err(invalid(format!("{prefix}{name}"), "missing: users and groups have to be mapped both")),
            list => IdMap::from_spec(&format!("{prefix}{name}"), list),
        });
        Ok(Some(IdMaps { users: users?, groups: groups? }))
    }

    /// User and group of the container's root, outside.
    ///
    /// # Errors
    /// It has none: nothing of the container could be set up as its root.
    pub fn root(&self) -> Result<(u32, u32), PlanError> {
        let root =
            |map: &IdMap, field| map.outside(0).ok_or_else(|| invalid(field, "the container's id 0 is not mapped"));
        Ok((root(&self.users, "linux.uidMappings")?, root(&self.groups, "linux.gidMappings")?))
    }

    /// Refuses ids in the plan that a container with these maps does not have: the kernel would only say EINVAL.
    pub(crate) fn check(&self, plan: &Plan) -> Result<(), PlanError> {
        self.root()?;
        self.check_process(&plan.process)?;
        for device in &plan.devices {
            self.check_device(device)?;
        }
        plan.mounts.iter().try_for_each(|mount| self.check_mount(mount))
    }

    /// The same for a process alone.
    pub(crate) fn check_process(&self, process: &ProcessPlan) -> Result<(), PlanError> {
        has(&self.users, process.uid, || "process.user.uid".to_owned())?;
        has(&self.groups, process.gid, || "process.user.gid".to_owned())?;
        process.groups.iter().try_for_each(|gid| has(&self.groups, *gid, || "process.user.additionalGids".to_owned()))
    }

    fn check_device(&self, device: &Device) -> Result<(), PlanError> {
        let field = |name: &str| format!("linux.devices: {name} of {}", device.path.display());
        has(&self.users, device.uid, || field("uid"))?;
        has(&self.groups, device.gid, || field("gid"))
    }

    /// The owners that a file system is given, such as the terminals' group of devpts.
    fn check_mount(&self, mount: &MountPlan) -> Result<(), PlanError> {
        let MountKind::Filesystem { fstype, parameters, .. } = &mount.kind else { return Ok(()) };
        for parameter in parameters {
            let Parameter::Value(name, value) = parameter else { continue };
            let map = match name.as_str() {
                "uid" => &self.users,
                "gid" => &self.groups,
                _ => continue,
            };
            let Ok(id) = value.parse() else { continue };
            has(map, id, || format!("mounts: option {name}={value} of {fstype} on {}", mount.target.display()))?;
        }
        Ok(())
    }
}

fn has(map: &IdMap, id: u32, field: impl FnOnce() -> String) -> Result<(), PlanError> {
    match map.outside(id) {
        Some(_) => Ok(()),
        None => Err(invalid(field(), format!("{id} is not mapped in the container's user namespace"))),
    }
}

/// `linux.uidMappings` and `gidMappings`, as the namespace allows. A namespace that is joined brings its own; what the
/// config says has to be the same then, which is compared when it is opened.
pub(super) fn of_container(
    user: &Namespace,
    users: Option<&[LinuxIdMapping]>,
    groups: Option<&[LinuxIdMapping]>,
) -> Result<Option<IdMaps>, PlanError> {
    let maps = IdMaps::from_spec("linux.", users, groups)?;
    match (user, &maps) {
        (Namespace::Inherited, Some(_)) => {
            Err(invalid("linux.uidMappings", "there is no user namespace in linux.namespaces that they could be for"))
        }
        (Namespace::New, None) => {
            Err(invalid("linux.uidMappings", "missing: a new user namespace without them is of no use"))
        }
        _ => Ok(maps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::worked;

    fn parse(list: &[(u32, u32, u32)]) -> Result<IdMap, String> {
        let list: Vec<LinuxIdMapping> = list
            .iter()
            .map(|(inside, outside, count)| {
                serde_json::from_value(serde_json::json!({"containerID": inside, "hostID": outside, "size": count}))
                    .unwrap()
            })
            .collect();
        IdMap::from_spec("linux.uidMappings", &list).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_refused(list: &[(u32, u32, u32)], expected: &str) {
        assert_eq!(parse(list).unwrap_err(), expected);
    }

    #[test]
    fn an_id_inside_is_found_outside() {
        let map = parse(&[(1000, 0, 1), (0, 100_000, 1000), (1001, 101_001, u32::MAX - 101_001)]).unwrap();
        for (inside, outside) in
            [(0, Some(100_000)), (999, Some(100_999)), (1000, Some(0)), (1001, Some(101_001)), (u32::MAX, None)]
        {
            assert_eq!(map.outside(inside), outside, "{inside}");
        }
        assert_eq!(map.to_text(), "0 100000 1000\n1000 0 1\n1001 101001 4294866294\n");
        assert_eq!(IdMap::parse("      1000 0    1\n 0     100000       1000\n1001 101001 4294866294\n"), Some(map));
        assert_eq!(IdMap::parse("0 100000\n"), None);
    }

    #[test]
    fn the_whole_of_the_hosts_ids_is_a_map() {
        assert_eq!(parse(&[(0, 0, u32::MAX)]).unwrap().outside(u32::MAX - 1), Some(u32::MAX - 1));
    }

    #[test]
    fn ranges_that_the_kernel_refuses_are_refused_by_their_index() {
        check_refused(&[(0, 0, 0)], "linux.uidMappings[0]: 0 ids from 0 to 0 are not ids");
        check_refused(&[(0, 1, u32::MAX)], "linux.uidMappings[0]: 4294967295 ids from 0 to 1 are not ids");
        check_refused(&[(0, 10, 5), (4, 100, 5)], "linux.uidMappings[1]: overlaps with another one");
        check_refused(&[(0, 10, 5), (5, 14, 5)], "linux.uidMappings[1]: overlaps with another one");
        check_refused(&[(5, 10, 2), (0, 100, 100)], "linux.uidMappings[1]: overlaps with another one");
    }

    #[test]
    fn a_map_that_does_not_fit_one_write_is_refused() {
        let ranges = |count: u32| (0..count).map(|id| (2 * id, 2 * id, 1)).collect::<Vec<_>>();
        assert!(parse(&ranges(340)).is_ok());
        check_refused(
            &ranges(341),
            "linux.uidMappings: 341 ranges are more than the kernel takes: 340, written in 4095 bytes",
        );
        let begun = worked();
        assert!(parse(&ranges(200_000)).is_err());
        let took = worked() - begun;
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
        let long: Vec<_> = (0..340).map(|id| (4_000_000 + 2 * id, 4_000_000 + 2 * id, 1)).collect();
        assert!(parse(&long).unwrap_err().contains("340 ranges are more than the kernel takes"));
    }
}
