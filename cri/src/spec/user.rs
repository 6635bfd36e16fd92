//! Whom a container runs as, from the request, the image's `User`, and the image's own `/etc/passwd` and `/etc/group`.
//!
//! What looks like a number is a number and is never looked up as a name (CVE-2024-40635); the primary group is always
//! among the groups (CVE-2022-36109). The two files are the image's: bounded, and read inside its root by the caller.

use crate::failure::{Failure, Result};
use proto::{LinuxContainerSecurityContext, LinuxContainerUser, SupplementalGroupsPolicy};

/// The longest `/etc/passwd` or `/etc/group` that is read, in bytes (CVE-2026-47262).
pub(crate) const MAX_FILE: u64 = 10 * 1024 * 1024;

/// Ids of a container's first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvedUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one included.
    pub(crate) groups: Vec<u32>,
}

impl ResolvedUser {
    /// As a status reports it.
    pub(crate) fn to_cri(&self) -> LinuxContainerUser {
        LinuxContainerUser {
            uid: self.uid.into(),
            gid: self.gid.into(),
            supplemental_groups: self.groups.iter().map(|&group| group.into()).collect(),
        }
    }
}

/// The files of an image that say who is who; absent ones are empty.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    pub(crate) passwd: Vec<u8>,
    pub(crate) group: Vec<u8>,
}

/// A user or a group, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who<'a> {
    Id(u32),
    Name(&'a str),
}

impl<'a> Who<'a> {
    /// A total reading: digits, with a sign or without, are an id in range or an error; all else is a name.
    fn parse(text: &'a str, what: &str) -> Result<Who<'a>> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Who::Name(text));
        }
        match text.parse::<i64>() {
            Ok(id) if !text.starts_with('+') => Ok(Who::Id(id_in_range(id, what)?)),
            _ => Err(Failure::invalid(format!("{what} {text:?} is not an id from 0 to {}", i32::MAX))),
        }
    }
}

fn id_in_range(id: i64, what: &str) -> Result<u32> {
    match u32::try_from(id) {
        Ok(id) if i32::try_from(id).is_ok() => Ok(id),
        _ => Err(Failure::invalid(format!("{what} {id} is not an id from 0 to {}", i32::MAX))),
    }
}

/// What a user asks for: the request's own words, or those of the image if it has none.
struct Wanted<'a> {
    user: Who<'a>,
    group: Option<Who<'a>>,
}

fn wanted<'a>(security: &'a LinuxContainerSecurityContext, image: &'a str) -> Result<Wanted<'a>> {
    let group = security.run_as_group.as_ref();
    let group = group.map(|group| id_in_range(group.value, "run_as_group").map(Who::Id)).transpose()?;
    if let Some(user) = &security.run_as_user {
        return Ok(Wanted { user: Who::Id(id_in_range(user.value, "run_as_user")?), group });
    }
    if !security.run_as_username.is_empty() {
        return Ok(Wanted { user: Who::parse(&security.run_as_username, "run_as_username")?, group });
    }
    if group.is_some() {
        return Err(Failure::invalid("run_as_group without run_as_user or run_as_username"));
    }
    let (user, group) = image.split_once(':').map_or((image, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { Who::Id(0) } else { Who::parse(user, "the image's user")? };
    let group = group.filter(|group| !group.is_empty()).map(|group| Who::parse(group, "the image's group"));
    Ok(Wanted { user, group: group.transpose()? })
}

/// Resolves all ids of a container.
///
/// # Errors
/// An id out of range, a name that the image does not know, a group without a user.
pub(crate) fn resolve(
    security: &LinuxContainerSecurityContext,
    image_user: &str,
    accounts: &Accounts,
) -> Result<ResolvedUser> {
    let wanted = wanted(security, image_user)?;
    let entry = passwd(&accounts.passwd).find(|entry| match wanted.user {
        Who::Id(uid) => entry.uid == uid,
        Who::Name(name) => entry.name == name,
    });
    let uid = match (&wanted.user, &entry) {
        (Who::Id(uid), _) => *uid,
        (Who::Name(_), Some(entry)) => entry.uid,
        (Who::Name(name), None) => {
            return Err(Failure::invalid(format!("user {name:?} is not in the image's /etc/passwd")));
        }
    };
    let gid = match wanted.group {
        Some(Who::Id(gid)) => gid,
        Some(Who::Name(name)) => match groups(&accounts.group).find(|group| group.name == name) {
            Some(group) => group.gid,
            None => return Err(Failure::invalid(format!("group {name:?} is not in the image's /etc/group"))),
        },
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut all = vec![gid];
    if security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge
        && let Some(entry) = &entry
    {
        let member = |group: &Group<'_>| group.members.split(',').any(|member| member == entry.name);
        all.extend(groups(&accounts.group).filter(member).map(|group| group.gid));
    }
    for &group in &security.supplemental_groups {
        all.push(id_in_range(group, "supplemental group")?);
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|group| seen.insert(*group));
    Ok(ResolvedUser { uid, gid, groups: all })
}

/// An image's user as an image list shows it: a number or a name, without the group.
pub(crate) fn image_user(user: &str) -> (Option<i64>, String) {
    let name = user.split(':').next().unwrap_or_default();
    match Who::parse(name, "user") {
        _ if name.is_empty() => (Some(0), String::new()),
        Ok(Who::Id(uid)) => (Some(uid.into()), String::new()),
        Ok(Who::Name(_)) | Err(_) => (None, name.to_owned()),
    }
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// The lines that are whole; others are the image's own trouble.
fn passwd(file: &[u8]) -> impl Iterator<Item = Passwd<'_>> {
    file.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = std::str::from_utf8(line).ok()?.split(':');
        let (name, _password, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (!name.is_empty()).then_some(())?;
        Some(Passwd { name, uid: id(uid)?, gid: id(gid)? })
    })
}

fn groups(file: &[u8]) -> impl Iterator<Item = Group<'_>> {
    file.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = std::str::from_utf8(line).ok()?.split(':');
        let (name, _password, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (!name.is_empty()).then_some(())?;
        Some(Group { name, gid: id(gid)?, members })
    })
}

fn id(text: &str) -> Option<u32> {
    text.parse::<i32>().ok().and_then(|id| u32::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::Int64Value;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        broken line\n\
        nobody:x:65534:65534::/:/bin/false\n\
        app:x:1000:1001::/home/app:/bin/sh\n\
        2147483648:x:0:0::/:/bin/sh\n\
        4294967296:x:0:0::/:/bin/sh\n\
        -1:x:0:0::/:/bin/sh\n\
        99999999999999999999:x:0:0::/:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:root,app\ndata:x:50000:app\nempty:x:7:\n4294967296:x:0:\n";

    fn resolve_image(user: &str) -> Result<(u32, u32, Vec<u32>)> {
        resolve_with(&LinuxContainerSecurityContext::default(), user)
    }

    fn resolve_with(security: &LinuxContainerSecurityContext, user: &str) -> Result<(u32, u32, Vec<u32>)> {
        let accounts = Accounts { passwd: PASSWD.to_vec(), group: GROUP.to_vec() };
        resolve(security, user, &accounts).map(|user| (user.uid, user.gid, user.groups))
    }

    #[test]
    fn an_image_s_user_is_resolved_in_the_image() {
        for (user, want) in [
            ("", (0, 0, vec![0, 10])),
            ("root", (0, 0, vec![0, 10])),
            ("app", (1000, 1001, vec![1001, 10, 50000])),
            ("1000", (1000, 1001, vec![1001, 10, 50000])),
            ("4711", (4711, 0, vec![0])),
            ("1000:7", (1000, 7, vec![7, 10, 50000])),
            ("app:data", (1000, 50000, vec![50000, 10])),
            ("nobody", (65534, 65534, vec![65534])),
            ("2147483647:2147483647", (2_147_483_647, 2_147_483_647, vec![2_147_483_647])),
        ] {
            assert_eq!(resolve_image(user).unwrap(), want, "{user:?}");
        }
    }

    /// CVE-2024-40635, CVE-2026-46680: what overflows must neither wrap to root nor be looked up as a name.
    #[test]
    fn numbers_out_of_range_are_refused_even_if_passwd_has_such_a_name() {
        for user in [
            "2147483648",
            "4294967295",
            "4294967296",
            "4294967296:0",
            "0:4294967296",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551616",
            "99999999999999999999",
            "-1",
            "-0001",
            "+0",
            "+1000",
            "-9223372036854775809",
            "1000:-1",
            "1000:2147483648",
            "1000:+1",
        ] {
            let error = resolve_image(user).unwrap_err();
            assert_eq!(error.code, tonic::Code::InvalidArgument, "{user}");
        }
        for user in ["stranger", "app:strangers", "0x0", "1e3", " 0", "0 ", "\u{661}", "root\0"] {
            resolve_image(user).unwrap_err();
        }
    }

    #[test]
    fn the_request_goes_before_the_image() {
        let value = |value| Some(Int64Value { value });
        for (user, name, group, want) in [
            (value(0), "", None, Ok((0, 0))),
            (value(1000), "", None, Ok((1000, 1001))),
            (value(1000), "", value(5), Ok((1000, 5))),
            (value(4711), "", None, Ok((4711, 0))),
            (None, "nobody", None, Ok((65534, 65534))),
            (None, "nobody", value(5), Ok((65534, 5))),
            (None, "1000", None, Ok((1000, 1001))),
            (None, "stranger", None, Err(())),
            (None, "", value(5), Err(())),
            (value(-1), "", None, Err(())),
            (value(1 << 32), "", None, Err(())),
            (value(1), "", value(1 << 31), Err(())),
        ] {
            let security = LinuxContainerSecurityContext {
                run_as_user: user,
                run_as_username: name.into(),
                run_as_group: group,
                ..LinuxContainerSecurityContext::default()
            };
            let got = resolve_with(&security, "app:data").map(|(uid, gid, _)| (uid, gid)).map_err(drop);
            assert_eq!(got, want, "{user:?} {name:?} {group:?}");
        }
    }

    #[test]
    fn strict_groups_are_those_of_the_request_and_the_primary_one() {
        let security = LinuxContainerSecurityContext {
            run_as_user: Some(Int64Value { value: 1000 }),
            supplemental_groups: vec![1234, 1234],
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict.into(),
            ..LinuxContainerSecurityContext::default()
        };
        assert_eq!(resolve_with(&security, "").unwrap().2, [1001, 1234]);
        let merge = LinuxContainerSecurityContext { supplemental_groups_policy: 0, ..security };
        assert_eq!(resolve_with(&merge, "").unwrap().2, [1001, 10, 50000, 1234]);
    }

    #[test]
    fn an_image_s_user_is_a_number_or_a_name() {
        for (user, want) in [
            ("1002", (Some(1002), "")),
            ("www-data", (None, "www-data")),
            ("1003:1004", (Some(1003), "")),
            ("www-data:1004", (None, "www-data")),
            ("", (Some(0), "")),
        ] {
            assert_eq!(image_user(user), (want.0, want.1.to_owned()), "{user}");
        }
    }
}
