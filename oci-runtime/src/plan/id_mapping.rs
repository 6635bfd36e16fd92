//! Id-mapped mounts: `uidMappings` and `gidMappings` of a mount, and its options `idmap` and `ridmap`.

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};

use super::{IdMaps, PlanError, invalid, unsupported};

/// How the owners in a mounted tree are shown: an id of the file system as the id outside that the maps have for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMapping {
    /// `None`: those of the container's user namespace.
    pub maps: Option<IdMaps>,
    /// For the mounts below it as well.
    pub recursive: bool,
}

/// What the options say.
#[derive(Debug, Default)]
pub(super) struct IdMapped {
    pub(super) recursive: bool,
    pub(super) users: Vec<LinuxIdMapping>,
    pub(super) groups: Vec<LinuxIdMapping>,
}

impl IdMapping {
    /// Maps without one of the options make a mount id-mapped as well, as with runc.
    pub(super) fn from_spec(
        mount: &Mount,
        options: Option<IdMapped>,
        field: &str,
    ) -> Result<Option<IdMapping>, PlanError> {
        let prefix = format!("{field}.");
        let maps = IdMaps::from_spec(&prefix, mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref())?;
        let Some(options) = options else {
            return Ok(maps.map(|maps| IdMapping { maps: Some(maps), recursive: false }));
        };
        let in_options =
            IdMaps::from_spec(&format!("{field}.options: idmap "), Some(&options.users), Some(&options.groups))?;
        match maps.is_some() && in_options.is_some() {
            true => Err(invalid(format!("{field}.options"), "idmap has other maps than uidMappings and gidMappings")),
            false => Ok(Some(IdMapping { maps: maps.or(in_options), recursive: options.recursive })),
        }
    }
}

impl IdMapped {
    /// crun's `idmap=uids=0-1000-10#10-2000-5;gids=0-1000-10`: first id in the file system, first id shown, count.
    pub(super) fn parse(option: &str, field: &str) -> Result<IdMapped, PlanError> {
        let refuse = |reason: &str| invalid(format!("{field}.options"), format!("{option:?}: {reason}"));
        let mut mapped = IdMapped::default();
        for part in option.trim_start_matches("idmap=").split(';').filter(|part| !part.is_empty()) {
            let (ranges, list) = match part.split_once('=') {
                Some(("uids", ranges)) => (ranges, &mut mapped.users),
                Some(("gids", ranges)) => (ranges, &mut mapped.groups),
                _ => return Err(refuse("not of the form uids=FROM-TO-COUNT;gids=FROM-TO-COUNT")),
            };
            for range in ranges.split('#') {
                if range.starts_with('@') {
                    let reason =
                        format!("{option:?}: ids relative to the container's user namespace; name those outside");
                    return Err(unsupported(format!("{field}.options"), reason));
                }
                list.push(parse_range(range).ok_or_else(|| refuse("a range is not FROM-TO-COUNT"))?);
            }
        }
        Ok(mapped)
    }
}

fn parse_range(range: &str) -> Option<LinuxIdMapping> {
    let mut numbers = range.split('-').map(|digits| digits.parse::<u32>().ok());
    let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let mapping = LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(count);
    numbers.next().is_none().then(|| mapping.build().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::IdMap;

    fn parse(mount: &str) -> Result<Option<IdMapping>, String> {
        let mount: Mount =
            serde_json::from_str(&format!(r#"{{"destination":"/x","type":"bind","source":"/a",{mount}}}"#)).unwrap();
        let plan = crate::plan::MountPlan::from_spec(&mount, "mounts[0]");
        plan.map(|plan| plan.id_mapping).map_err(|error| error.to_string())
    }

    fn maps(users: &str, groups: &str) -> IdMaps {
        IdMaps { users: IdMap::parse(users).unwrap(), groups: IdMap::parse(groups).unwrap() }
    }

    const MAPS: &str = r#""uidMappings":[{"containerID":0,"hostID":1000,"size":5}],
        "gidMappings":[{"containerID":1,"hostID":2000,"size":6}]"#;

    #[test]
    fn a_mount_is_mapped_by_its_maps_or_by_its_options() {
        let expected = maps("0 1000 5", "1 2000 6");
        let mapped = |maps: Option<IdMaps>, recursive| Ok(Some(IdMapping { maps, recursive }));
        assert_eq!(parse(MAPS), mapped(Some(expected.clone()), false));
        assert_eq!(parse(&format!(r#"{MAPS},"options":["ridmap"]"#)), mapped(Some(expected.clone()), true));
        assert_eq!(parse(r#""options":["rbind","idmap"]"#), mapped(None, false));
        assert_eq!(parse(r#""options":["idmap=uids=0-1000-5;gids=1-2000-6"]"#), mapped(Some(expected), false));
        let two = maps("0 1000 5\n10 3000 1", "0 0 1");
        assert_eq!(parse(r#""options":["idmap=uids=0-1000-5#10-3000-1;gids=0-0-1"]"#), mapped(Some(two), false));
        assert_eq!(parse(r#""options":["rbind"]"#), Ok(None));
    }

    #[test]
    fn maps_that_are_half_double_or_garbled_are_refused() {
        let refused = |mount: &str, expected: &str| {
            let error = parse(mount).unwrap_err();
            assert!(error.contains(expected), "{expected} in {error}");
        };
        refused(r#""uidMappings":[{"containerID":0,"hostID":1000,"size":5}]"#, "mounts[0].gidMappings: missing");
        refused(&format!(r#"{MAPS},"options":["idmap=uids=0-1-1;gids=0-1-1"]"#), "other maps than uidMappings");
        for option in ["idmap=uids=0-1", "idmap=uids=0-1-1-1", "idmap=uids=a-1-1", "idmap=x=0-1-1", "idmap=uids="] {
            refused(&format!(r#""options":["{option};gids=0-0-1"]"#), "mounts[0].options");
        }
        refused(r#""options":["idmap=uids=@0-1-1;gids=0-0-1"]"#, "relative to the container's user namespace");
    }
}
