//! The environment: what the runtime adds, then the image's, then the request's; a later value takes an earlier one's
//! place.

use super::Inputs;
use crate::failure::{Failure, Result};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn build(inputs: &Inputs<'_>) -> Result<Vec<String>> {
    let mut env: Vec<(String, String)> = vec![("PATH".into(), PATH.into())];
    let hostname = inputs.sandbox.hostname.as_ref().unwrap_or(&inputs.host.hostname);
    set(&mut env, "HOSTNAME", hostname);
    if inputs.config.tty {
        set(&mut env, "TERM", "xterm");
    }
    for line in &inputs.image.env {
        // What is no assignment sets nothing: the image is a stranger's.
        if let Some((key, value)) = line.split_once('=') {
            set(&mut env, key, value);
        }
    }
    for variable in &inputs.config.envs {
        let key = &variable.key;
        let Ok(value) = std::str::from_utf8(&variable.value) else {
            return Err(Failure::invalid(format!(
                "envs: the value of {key} is not UTF-8, which a runtime spec can't hold"
            )));
        };
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(Failure::invalid(format!("envs: {key:?} can't be a variable")));
        }
        set(&mut env, key, value);
    }
    Ok(env.into_iter().map(|(key, value)| format!("{key}={value}")).collect())
}

fn set(env: &mut Vec<(String, String)>, key: &str, value: &str) {
    match env.iter_mut().find(|(known, _)| known == key) {
        Some((_, old)) => *old = value.to_owned(),
        None => env.push((key.to_owned(), value.to_owned())),
    }
}
