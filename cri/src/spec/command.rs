//! What is run and where: the image's ENTRYPOINT and CMD, and what the request puts in their place.

use crate::failure::{Failure, Result};
use image::ImageConfig;
use proto::ContainerConfig;
use std::path::{Path, PathBuf};

/// `command` replaces ENTRYPOINT and drops CMD; `args` alone replaces CMD.
pub(super) fn build(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>> {
    let entrypoint = match image.entrypoint.as_slice() {
        [empty] if empty.is_empty() => &[],
        entrypoint => entrypoint,
    };
    let command = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => [entrypoint, &image.cmd].concat(),
        (true, false) => [entrypoint, &config.args].concat(),
        (false, _) => [config.command.as_slice(), &config.args].concat(),
    };
    if command.is_empty() {
        return Err(Failure::invalid("no command: neither the request nor the image (ENTRYPOINT, CMD) has one"));
    }
    if let Some(word) = command.iter().find(|word| word.contains('\0')) {
        return Err(Failure::invalid(format!("command: {word:?} holds a NUL")));
    }
    Ok(command)
}

/// The request's, the image's, or the root; a relative one begins at the root. It is made if it is missing.
pub(super) fn working_dir(config: &ContainerConfig, image: &ImageConfig) -> PathBuf {
    let dir = if config.working_dir.is_empty() { &image.working_dir } else { &config.working_dir };
    Path::new("/").join(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_and_args_take_the_place_of_the_image_s() {
        for (entrypoint, cmd, command, args, want) in [
            ("e", "c", "", "", "e c"),
            ("e", "c", "", "a", "e a"),
            ("e", "c", "x", "", "x"),
            ("e", "c", "x", "a", "x a"),
            ("", "c", "", "", "c"),
            ("", "", "", "a", "a"),
        ] {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let image = ImageConfig { entrypoint: words(entrypoint), cmd: words(cmd), ..ImageConfig::default() };
            let config = ContainerConfig { command: words(command), args: words(args), ..ContainerConfig::default() };
            assert_eq!(build(&config, &image).unwrap(), words(want), "{entrypoint} {cmd} + {command} {args}");
        }
    }

    #[test]
    fn an_entrypoint_of_one_empty_word_is_none() {
        let image = ImageConfig { entrypoint: vec![String::new()], cmd: vec!["c".into()], ..ImageConfig::default() };
        assert_eq!(build(&ContainerConfig::default(), &image).unwrap(), ["c"]);
    }

    #[test]
    fn no_command_at_all_is_refused() {
        let error = build(&ContainerConfig::default(), &ImageConfig::default()).unwrap_err();
        assert!(error.message.starts_with("no command"), "{error}");
    }

    #[test]
    fn the_working_directory_is_absolute() {
        for (config, image, want) in [("", "", "/"), ("", "srv", "/srv"), ("/a", "/b", "/a"), ("x", "/b", "/x")] {
            let config = ContainerConfig { working_dir: config.into(), ..ContainerConfig::default() };
            let image = ImageConfig { working_dir: image.into(), ..ImageConfig::default() };
            assert_eq!(working_dir(&config, &image), Path::new(want));
        }
    }
}
