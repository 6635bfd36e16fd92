//! Flags as engines give them.

use super::*;

fn parsed(line: &str) -> Result<Command, String> {
    match parse(line.split_whitespace().map(OsString::from).collect()) {
        Ok(Parsed::Command(command)) => Ok(command),
        Ok(Parsed::Print(text)) => Err(text),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn containerds_way_of_calling_is_understood() {
    let line = "--root /run/x --log /l/log.json --log-format json create --bundle /b --pid-file /b/init.pid c1";
    let Command { global, verb: Verb::Create(create) } = parsed(line).unwrap() else { panic!("not create") };
    assert_eq!(global.root.path, Path::new("/run/x"));
    assert!(global.log.json);
    assert_eq!((create.id.as_str(), create.bundle.as_deref()), ("c1", Some(Path::new("/b"))));
    assert_eq!(create.streams.pid_file.as_deref(), Some(Path::new("/b/init.pid")));
}

#[test]
fn flags_may_follow_the_id_but_not_in_exec_and_ps() {
    let Verb::Delete(delete) = parsed("delete c1 --force").unwrap().verb else { panic!("not delete") };
    assert!(delete.force);
    let Verb::Exec(exec) = parsed("exec -e A=1 c1 sh -c -d --tty -h").unwrap().verb else { panic!("not exec") };
    assert_eq!(exec.args, ["sh", "-c", "-d", "--tty", "-h"]);
    assert!(!exec.detach && !exec.tty);
    let Verb::Ps(ps) = parsed("ps c1 -o pid,comm").unwrap().verb else { panic!("not ps") };
    assert_eq!((ps.id.as_str(), ps.arguments.as_slice()), ("c1", ["-o".to_owned(), "pid,comm".to_owned()].as_slice()));
}

#[test]
fn kill_all_is_still_accepted() {
    let Verb::Kill(kill) = parsed("kill --all c1 KILL").unwrap().verb else { panic!("not kill") };
    assert_eq!((kill.signal.as_str(), kill.all), ("KILL", true));
    let Verb::Kill(kill) = parsed("kill c1").unwrap().verb else { panic!("not kill") };
    assert_eq!(kill.signal, "SIGTERM");
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    assert!(parsed("--systemd-cgroup list").unwrap_err().starts_with("--systemd-cgroup"));
    assert!(parsed("--rootless true list").unwrap_err().starts_with("--rootless true"));
    assert!(parsed("run --no-pivot c1").unwrap_err().starts_with("--no-pivot"));
    parsed("run --no-pivot=false c1").unwrap();
    assert_eq!(parsed("run --teleport c1").unwrap_err(), "flag provided but not defined: -teleport");
}

#[test]
fn what_is_missing_is_told_in_the_words_that_engines_look_for() {
    assert_eq!(parsed("create --bundle").unwrap_err(), "flag needs an argument: -bundle");
    assert_eq!(parsed("create").unwrap_err(), "orlop-runtime: \"create\" requires exactly 1 argument(s)");
    assert_eq!(parsed("exec").unwrap_err(), "orlop-runtime: \"exec\" requires a minimum of 1 argument(s)");
    let misuse = parse(vec!["teleport".into()]).unwrap_err();
    assert_eq!((misuse.to_string().as_str(), misuse.exit_code), ("No help topic for 'teleport'", 3));
}

#[test]
fn every_verb_tells_of_its_flags() {
    for entry in &verb::VERBS {
        for line in [format!("{} -h", entry.name), format!("help {}", entry.name), format!("{} --help", entry.name)] {
            let text = parsed(&line).unwrap_err();
            assert!(text.starts_with(&format!("NAME:\n   orlop-runtime {} - ", entry.name)), "{line}: {text}");
        }
        assert!(parsed("").unwrap_err().contains(&format!("\n   {} ", entry.name)), "{}", entry.name);
    }
    let create = parsed("create -h").unwrap_err();
    for flag in ["--bundle DIR, -b DIR", "--console-socket", "--pid-file", "--preserve-fds"] {
        assert!(create.contains(flag), "{flag}: {create}");
    }
}

#[test]
fn a_root_that_is_the_root_is_refused() {
    for root in ["/", "/..", "../../../../../../../../../..", "/a/.."] {
        let error = parsed(&format!("--root {root} list")).unwrap_err();
        assert_eq!(error, "Option --root argument should not be set to /", "{root}");
    }
}

#[test]
fn a_switch_is_what_go_takes_for_one() {
    let force = |line: &str| match parsed(line).map(|command| command.verb) {
        Ok(Verb::Delete(delete)) => Ok(delete.force),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(force("delete --force=T c"), Ok(true));
    assert_eq!(force("delete --force=0 c"), Ok(false));
    assert!(force("delete --force=maybe c").unwrap_err().starts_with("invalid boolean value"));
}

#[test]
fn a_number_with_something_behind_it_is_no_number() {
    parsed("create --preserve-fds 1x c1").unwrap_err();
    parsed("exec -g 1x c1 true").unwrap_err();
    parsed("exec -g -1 c1 true").unwrap_err();
}
