//! `orlop cri`: the daemon.

use crate::settings::Settings;

pub(crate) fn run(_settings: &Settings) -> anyhow::Result<()> {
    anyhow::bail!("being built")
}
