//! Marks on packets (Documentation/admin-guide/cgroup-v1/net_cls.rst, net_prio.rst).

use crate::dir::Dir;
use crate::{Network, Result};

/// Sets the class of `net_cls`.
pub(crate) fn apply_class(dir: &Dir, network: &Network) -> Result<()> {
    match network.class_id.filter(|&class| class != 0) {
        Some(class) => dir.write("net_cls.classid", &class.to_string()),
        None => Ok(()),
    }
}

/// Sets the priorities of `net_prio`.
pub(crate) fn apply_priorities(dir: &Dir, network: &Network) -> Result<()> {
    let mut priorities = network.priorities.iter();
    priorities.try_for_each(|(interface, priority)| dir.write("net_prio.ifpriomap", &format!("{interface} {priority}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    #[test]
    fn class_and_priorities_are_written() {
        let fixture = Fixture::new(&[("net_cls.classid", ""), ("net_prio.ifpriomap", "")]);
        let network = Network { class_id: Some(0x10_0001), priorities: [("eth0".to_owned(), 5)].into() };
        apply_class(&fixture.dir, &network).expect("a class");
        apply_priorities(&fixture.dir, &network).expect("priorities");
        assert_eq!(fixture.content("net_cls.classid"), "1048577");
        assert_eq!(fixture.content("net_prio.ifpriomap"), "eth0 5");
    }
}
