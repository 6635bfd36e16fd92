//! `orlop-cni`: all our CNI plugins in one static binary; the name under which it is started picks one.

use std::process::ExitCode;

use cni::plugins::{self, Environment};

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var_os(name).unwrap_or_default().to_string_lossy().into_owned();
    let program = std::env::args_os().next().unwrap_or_default();
    plugins::main(&program, &Environment::read(variable))
}
