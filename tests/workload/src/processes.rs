//! `pgrep` and `ipcs`, which Debian's busybox is built without.

use std::fs;
use std::process::ExitCode;

/// `pgrep [-f] [-x] PATTERN`: the ids of the processes whose name (`-f`: command line) contains PATTERN. PATTERN is text,
/// not an expression.
pub(crate) fn pgrep(arguments: &[String]) -> ExitCode {
    let full = arguments.iter().any(|argument| argument == "-f");
    let exact = arguments.iter().any(|argument| argument == "-x");
    let Some(pattern) = arguments.iter().find(|argument| !argument.starts_with('-')) else {
        eprintln!("pgrep: no pattern");
        return ExitCode::from(2);
    };
    let own = std::process::id();
    let mut found = false;
    for pid in pids().filter(|pid| *pid != own) {
        let title = if full { command_line(pid) } else { read(pid, "comm") };
        let title = title.trim_end();
        if (exact && title == pattern) || (!exact && title.contains(pattern.as_str())) {
            println!("{pid}");
            found = true;
        }
    }
    ExitCode::from(u8::from(!found))
}

/// `ipcs -m`: the System V shared memory segments of the IPC namespace.
pub(crate) fn ipcs(_arguments: &[String]) -> ExitCode {
    println!("\n------ Shared Memory Segments --------");
    println!("{:<10} {:<10} {:<10} {:<10} {:<10}", "key", "shmid", "owner", "perms", "bytes");
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [key, id, permissions, size, _creator, _last, _attached, uid, ..] = fields[..] {
            let key = key.parse::<i64>().unwrap_or(0);
            println!("0x{key:08x} {id:<10} {uid:<10} {permissions:<10} {size:<10}");
        }
    }
    println!();
    ExitCode::SUCCESS
}

fn pids() -> impl Iterator<Item = u32> {
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter()
}

fn command_line(pid: u32) -> String {
    read(pid, "cmdline").replace('\0', " ")
}

fn read(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}
