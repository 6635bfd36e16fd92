//! The programs inside the test images that busybox does not have: one static binary, chosen by the name it is called as.
//!
//! It depends on nothing but std, so that it builds in a second and runs in an image that holds only it.

use std::process::ExitCode;

mod accounts;
mod count;
mod processes;
mod shell;
mod web;

fn main() -> ExitCode {
    let mut arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let mut name = base_name(arguments.first().map_or("workload", String::as_str)).to_owned();
    if name == "workload" && arguments.len() > 1 {
        arguments.remove(0);
        name = base_name(&arguments[0]).to_owned();
    }
    let arguments = &arguments[1..];
    match name.as_str() {
        "sh" => shell::sh(arguments),
        "pgrep" => processes::pgrep(arguments),
        "ipcs" => processes::ipcs(arguments),
        "nnp" => accounts::effective_uid(),
        "pause" => accounts::pause(),
        "count" => count::count(arguments),
        "nginx" => web::nginx(arguments),
        "nginx: master process nginx" => web::serve_pages(arguments),
        "httpd" => web::httpd(arguments),
        other => {
            eprintln!("workload: no program called {other:?}");
            ExitCode::from(127)
        }
    }
}

fn base_name(path: &str) -> &str {
    // A process title may hold slashes and blanks; only a path is cut.
    path.rsplit('/').next().unwrap_or(path)
}
