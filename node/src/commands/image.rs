//! `orlop image`.

use crate::args::Image;
use crate::settings::Settings;

pub(crate) fn run(_image: Image, _settings: &Settings) -> anyhow::Result<()> {
    anyhow::bail!("being built")
}
