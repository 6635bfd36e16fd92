//! The validation programs of runtime-tools, run on our runtime; with `--peers` on runc too.
//!
//! `tests/expected/runtime-tools.txt` lists the programs that do not pass, with the reason: `program<TAB>cgroups<TAB>reason`, where
//! `cgroups` says on which kind of host: `v1` (also beside v2), `v2` or `any`. A program that fails without being listed is red, and so
//! is one that is listed and passes; none of those that runc passes may be listed. A reason that begins with `either way: ` stands
//! for a program whose verdict something else than the runtime decides: it has to end, and that is all.
//!
//! The programs clean up little. So each gets a `/run` of its own, where the runtime keeps its state, and what it leaves there is
//! deleted. Those about cgroups all use the same two names below the roots of the hierarchies, one after another.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tests::{Output, World, binary, output, peer, tool};

/// How many programs there are.
const PROGRAMS: usize = 58;
/// How many run at the same time: they wait most of the time.
const PARALLEL: usize = 8;

/// Runs the program `$3` in the folder `$2` on the runtime `$1` and deletes the containers that it left; then the cgroups whose
/// directories follow.
const CLEANLY: &str = r#"
runtime=$1 folder=$2 program=$3
shift 3
RUNTIME=$runtime unshare --mount sh -c '
	mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/tmp && export TMPDIR=/run/tmp && cd "$1" || exit 99
	printf "%s" "$PATIENT" >/run/tmp/patient && chmod 755 /run/tmp/patient
	ITSELF=$RUNTIME PROGRAM=$2 RUNTIME=/run/tmp/patient
	export ITSELF PROGRAM
	"./$2"
	status=$?
	for id in $("$ITSELF" list -q); do "$ITSELF" delete --force "$id"; done >/dev/null 2>&1
	exit $status' sh "$folder" "$program"
status=$?
for dir in "$@"; do
	find "$dir" -name cgroup.procs -exec cat {} + 2>/dev/null | while read -r pid; do kill -KILL "$pid"; done
	while [ -e "$dir" ] && ! find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.05; done
done
exit $status
"#;

/// The runtime `$ITSELF`, except for two verbs, where the programs are in a hurry.
///
/// `kill` of killsig comes when the container's shell waits for its child. It sends its signals as soon as the container runs;
/// where a verb takes a few milliseconds, the shell has not set its trap then, or not begun to wait.
///
/// `state` of a container that runs answers later on a slow machine: all but kill and killsig give a container ten seconds to
/// end, wherever they run.
const PATIENT: &str = r#"#!/bin/sh
case $PROGRAM,$1 in
killsig,kill)
	pid=$("$ITSELF" state "$2" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
	tries=1000
	until [ -n "$(cat "/proc/$pid/task/$pid/children")" ] && grep -q '^State:.*S' "/proc/$pid/status" || [ $tries = 0 ]; do
		tries=$((tries - 1))
		sleep 0.01
	done
	;;
kill,* | killsig,*) ;;
*,state)
	tries=$(((${SLOW:-1} - 1) * 100))
	while [ $tries -gt 0 ] && "$ITSELF" state "$2" | grep -q '"status": *"running"'; do
		tries=$((tries - 1))
		sleep 0.1
	done
	;;
esac
exec "$ITSELF" "$@"
"#;

/// How the reason of a program begins whose verdict does not count.
const EITHER_WAY: &str = "either way: ";

/// How the names of the programs about cgroups begin.
const ABOUT_CGROUPS: [&str; 3] = ["linux_cgroups_", "delete_only_create_resources", "delete_resources"];
/// The names that all of them use.
const CGROUPS: [&str; 2] = ["cgrouptest", "testdir"];

#[test]
fn the_validation_suite_passes_as_expected() {
    let ended = run_all(&binary("orlop-runtime"));
    check(&ended, &listed(include_str!("../expected/runtime-tools.txt")));
}

/// Shows that this runner and the machine are right where a mature runtime is, and what it passes.
#[test]
#[ignore = "scripts/test --peers"]
fn the_validation_suite_passes_on_runc_as_expected() {
    let ended = run_all(&peer("runc"));
    check(&ended, &listed(include_str!("../expected/runtime-tools-runc.txt")));
}

#[test]
fn nothing_that_runc_passes_is_listed_for_ours() {
    // runc's list was made on v1: nobody runs it in the VM.
    let [ours, runc] =
        [include_str!("../expected/runtime-tools.txt"), include_str!("../expected/runtime-tools-runc.txt")]
            .map(|list| listed_on("v1", list));
    let more: Vec<&String> = ours.keys().filter(|program| !runc.contains_key(*program)).collect();
    assert!(more.is_empty(), "runc passes {more:?}");
    let either_way = |list: &BTreeMap<String, String>| {
        list.iter()
            .filter(|(_, reason)| reason.starts_with(EITHER_WAY))
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(either_way(&ours), either_way(&runc));
}

/// What each program told, by its name. One suite at a time: they share names.
fn run_all(runtime: &Path) -> BTreeMap<String, Output> {
    static ONE: Mutex<()> = Mutex::new(());
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::enter();
    let folder = tool("runtime-tools");
    let (about_cgroups, others): (Vec<_>, Vec<_>) = programs(&folder)
        .into_iter()
        .partition(|program| ABOUT_CGROUPS.iter().any(|prefix| program.starts_with(prefix)));
    assert_eq!(about_cgroups.len() + others.len(), PROGRAMS, "{about_cgroups:?} {others:?}");
    let ended = Mutex::new(BTreeMap::new());
    let waiting = Mutex::new(VecDeque::from(others));
    let one = |program: String, cgroups: &[PathBuf]| {
        let told = run(&world, runtime, &folder, &program, cgroups);
        ended.lock().expect("the programs that ended").insert(program, told);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| about_cgroups.iter().for_each(|program| one(program.clone(), &shared_cgroups())));
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let Some(program) = waiting.lock().expect("the programs that wait").pop_front() else { break };
                    one(program, &[]);
                }
            });
        }
    });
    ended.into_inner().expect("the programs that ended")
}

/// Where [`CGROUPS`] are if they are there.
fn shared_cgroups() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = match top.join("cgroup.procs").exists() {
        true => vec![top.to_owned()],
        false => {
            std::fs::read_dir(top).expect("the hierarchies").map(|entry| entry.expect("a hierarchy").path()).collect()
        }
    };
    hierarchies.iter().flat_map(|hierarchy| CGROUPS.map(|name| hierarchy.join(name))).collect()
}

fn programs(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder of runtime-tools");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut programs: Vec<String> = names.filter(|name| name != "runtimetest" && !name.contains('.')).collect();
    // The slowest first: they wait ten seconds for something.
    programs.sort_by_key(|name| !["delete", "kill", "pidfile"].contains(&name.as_str()));
    programs
}

fn run(world: &World, runtime: &Path, folder: &Path, program: &str, cgroups: &[PathBuf]) -> Output {
    let mut command = world.command("sh");
    command.env("PATIENT", PATIENT).args(["-c", CLEANLY, "sh"]).arg(runtime).arg(folder).arg(program).args(cgroups);
    output(&mut command)
}

fn check(ended: &BTreeMap<String, Output>, expected: &BTreeMap<String, String>) {
    let failures: BTreeMap<&String, String> =
        ended.iter().filter_map(|(program, told)| failure(told).map(|failure| (program, failure))).collect();
    let mut surprises = Vec::new();
    for (program, failure) in &failures {
        if !expected.contains_key(*program) {
            surprises.push(format!("{program} fails: {failure}"));
        }
    }
    for (program, reason) in expected {
        if !failures.contains_key(program) && !reason.starts_with(EITHER_WAY) {
            surprises.push(format!("{program} is listed and passes"));
        }
    }
    println!("runtime-tools: {} of {PROGRAMS} programs pass", ended.len() - failures.len());
    assert!(surprises.is_empty(), "not as the list says:\n{}", surprises.join("\n"));
}

/// Why a program did not pass: its first `not ok`, or its exit code and what it complained about. Some say nothing if all is well.
fn failure(told: &Output) -> Option<String> {
    if let Some(number) = told.stdout.lines().position(|line| line.starts_with("not ok")) {
        return Some(told.stdout.lines().skip(number).take(8).collect::<Vec<_>>().join("\n    "));
    }
    (told.code != 0).then(|| format!("exit code {}: {}", told.code, told.stderr.trim()))
}

/// The rows of a list that count on this machine.
fn listed(list: &str) -> BTreeMap<String, String> {
    listed_on(tests::cgroup::by_version("v1", "v2"), list)
}

/// The rows of a list that count on a machine with that version of cgroups.
fn listed_on(here: &str, list: &str) -> BTreeMap<String, String> {
    let rows = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows = rows.map(|row| match row.splitn(3, '\t').collect::<Vec<_>>()[..] {
        [program, cgroups @ ("v1" | "v2" | "any"), reason] => (program, cgroups, reason),
        _ => panic!("not program<TAB>cgroups<TAB>reason: {row:?}"),
    });
    let counts = rows.filter(|(_, cgroups, _)| [here, "any"].contains(cgroups));
    counts.map(|(program, _, reason)| (program.to_owned(), reason.to_owned())).collect()
}
