//! A command in the container.

use super::{Answer, text};
use crate::config::duration;
use crate::runtime::Runtime;
use crate::spec::expansion::{self, Room};
use k8s_openapi::api::core::v1::{Container, ExecAction};
use std::time::Duration;

/// The command, with `$(VAR)` replaced for variables whose value stands in the spec. Those that come from elsewhere are
/// not known here, as upstream.
///
/// # Errors
/// It is longer than a process can be given.
pub(super) fn command(exec: &ExecAction, container: &Container) -> Result<Vec<String>, String> {
    let value = |name: &str| {
        let variables = container.env.iter().flatten();
        // A variable with `valueFrom` is empty here, and a later one of the same name wins.
        variables.rev().find(|variable| variable.name == name).map(|found| found.value.as_deref().unwrap_or(""))
    };
    let words = exec.command.as_deref().unwrap_or_default();
    expansion::words(words, &mut Room::empty(), value)
        .map_err(|(index, error)| format!("exec.command[{index}] can't be passed to a process: {error}"))
}

/// Runs it: yes is exit code 0, no is another one or no end in time.
pub(super) async fn ask(runtime: &dyn Runtime, container_id: &str, command: &[String], timeout: Duration) -> Answer {
    match runtime.exec_sync(container_id, command, timeout).await {
        Ok(response) if response.exit_code == 0 => Answer::Success,
        Ok(response) => Answer::Failure(text(&[&response.stdout[..], &response.stderr].concat())),
        Err(error) if error.code == tonic::Code::DeadlineExceeded => Answer::Failure(format!(
            "command timed out: {:?} timed out after {}",
            command.join(" "),
            duration::format(timeout)
        )),
        Err(error) => Answer::unknown(error.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource};

    #[test]
    fn a_command_sees_the_variables_that_stand_in_the_spec() {
        let set = |name: &str, value: &str| EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            ..EnvVar::default()
        };
        let elsewhere = EnvVar { name: "B".to_owned(), value_from: Some(EnvVarSource::default()), ..EnvVar::default() };
        let container =
            Container { env: Some(vec![set("A", "old"), elsewhere, set("A", "1")]), ..Container::default() };
        let words = ["$(A)", "[$(B)]", "$(C)", "$$(A)"].map(str::to_owned).to_vec();
        let exec = ExecAction { command: Some(words) };
        assert_eq!(command(&exec, &container).unwrap(), ["1", "[]", "$(C)", "$(A)"]);
        let many = ExecAction { command: Some(vec!["$(A)$(A)".to_owned()]) };
        let long = Container { env: Some(vec![set("A", &"x".repeat(100_000))]), ..Container::default() };
        let error = command(&many, &long).unwrap_err();
        assert!(error.starts_with("exec.command[0] can't be passed to a process"), "{error}");
    }
}
