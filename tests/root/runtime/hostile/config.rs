//! config.json, process.json and `--user` as hostile input: each ends in an error or in a container.

use std::time::Instant;

use serde_json::{Value, json};

use super::attempt::{End, attempt};
use super::host::Host;
use super::random::Random;
use super::{Counts, mutate, safety, seed, seeds, side_by_side};
use crate::runtime::bundle::Bundle;
use crate::runtime::effort;
use crate::runtime::tmpfs::Tmpfs;

#[test]
fn a_config_of_which_anything_was_changed_ends_in_an_error_or_a_container() {
    let begun = Instant::now();
    let all = effort::tries(1_500, 90_000);
    let counts = side_by_side(all, |world, tries| {
        let tmpfs = Tmpfs::mount(world.new_dir("bundle"));
        let (bundle, seeds) = seeds::all(world, tmpfs.0.clone());
        let grafts = seeds::grafts();
        let cgroup = format!("/{}/runtime", world.name());
        for (number, seed) in seeds.iter().enumerate() {
            let end = run(&bundle, seed.to_string().as_bytes()).unwrap_or_else(|error| panic!("{number}: {error}"));
            assert_eq!(end, (End::Ran, "alive\n".to_owned()), "seed {number}");
        }
        let host = Host::new(world);
        let mut counts = Counts::default();
        for number in tries {
            let mut random = Random::new(seed(), number.into());
            let mut config = random.pick(&seeds).clone();
            mutate::mutate(&mut config, &grafts, &mut random);
            let mut text = mutate::text(&config, &mut random);
            // As the runtime will read it: damage to the text can change a name.
            let read: Result<Value, _> = serde_json::from_slice(&text);
            if read.is_ok_and(|config| !safety::is_safe(&config, world.dir(), &bundle.dir, &cgroup)) {
                text = b"{}".to_vec();
            }
            let end = run(&bundle, &text);
            let wrong = match &end {
                Err(error) => Some(error.clone()),
                Ok(_) => host.difference(&bundle, &cgroup),
            };
            if let Some(wrong) = wrong {
                panic!("try {number} of seed {}: {wrong}\n{}", seed(), shown(&text));
            }
            counts.add(end.expect("an end").0);
        }
        counts
    });
    counts.report("config.json", begun);
    let least = u64::from(all) / 20;
    assert!(counts.ran > least && counts.refused > least, "{counts:?}");
}

fn run(bundle: &Bundle<'_>, config: &[u8]) -> Result<(End, String), String> {
    tests::write(&bundle.dir.join("config.json"), config);
    let mut command = bundle.runtime();
    command.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    attempt(command, &bundle.dir, 1)
}

/// As much of a document as helps.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(6000).collect()
}

#[test]
fn a_process_object_of_which_anything_was_changed_ends_in_an_error_or_a_process() {
    let begun = Instant::now();
    let all = effort::tries(400, 9_000);
    let counts = side_by_side(all, |world, tries| {
        let bundle = Bundle::new(world, "touch /ready; while :; do sleep 1; done");
        let running = bundle.start();
        let (_, seeds) = seeds::all(world, world.new_dir("bundle"));
        let grafts: Vec<_> = seeds::grafts();
        let grafts: Vec<(&str, _)> = grafts
            .into_iter()
            .filter_map(|(pointer, value)| Some((pointer.strip_prefix("/process")?, value)))
            .filter(|(pointer, _)| !pointer.is_empty())
            .collect();
        let process = bundle.dir.join("process.json");
        let mut counts = Counts::default();
        for number in tries {
            let mut random = Random::new(seed(), number.into());
            let mut object = random.pick(&seeds)["process"].clone();
            mutate::mutate(&mut object, &grafts, &mut random);
            if !safety::ends(&object) {
                object = json!({});
            }
            let text = mutate::text(&object, &mut random);
            tests::write(&process, &text);
            let mut command = bundle.runtime();
            command.arg("exec").arg("--process").arg(&process).arg(&bundle.id);
            match attempt(command, &bundle.dir, 255) {
                Ok((end, _)) => counts.add(end),
                Err(error) => panic!("try {number} of seed {}: {error}\n{}", seed(), shown(&text)),
            }
        }
        running.exec("true", json!({})).success();
        counts
    });
    counts.report("process.json", begun);
    assert!(counts.ran > 0 && counts.refused > 0);
}

/// CVE-2026-30892.
#[test]
fn a_user_of_random_characters_is_two_numbers_or_an_error() {
    let begun = Instant::now();
    let all = effort::tries(100, 1_000);
    let counts = side_by_side(all, |world, tries| {
        let bundle = Bundle::new(world, "touch /ready; while :; do sleep 1; done");
        let _running = bundle.start();
        let mut counts = Counts::default();
        for number in tries {
            let mut random = Random::new(seed(), number.into());
            let user = user(&mut random);
            let mut command = bundle.runtime();
            command.args(["exec", "--user", &user, &bundle.id, "sh", "-c", "echo $(id -u):$(id -g)"]);
            let (end, shown) = attempt(command, &bundle.dir, 255).unwrap_or_else(|error| panic!("{user:?}: {error}"));
            match (end, meant(&user)) {
                (End::Refused, None) => {}
                (End::Ran, Some((uid, gid))) => assert_eq!(shown, format!("{uid}:{gid}\n"), "{user:?}"),
                (end, meant) => panic!("{user:?} means {meant:?} and was {end:?}: {shown}"),
            }
            counts.add(end);
        }
        counts
    });
    counts.report("--user", begun);
    assert!(counts.ran > 0 && counts.refused > 0);
}

/// A string of what such strings are made of; half of them are right.
fn user(random: &mut Random) -> String {
    let id = |random: &mut Random| match random.below(4) {
        0 => random.below(70_000).to_string(),
        1 => (u64::from(u32::MAX) - 2 + random.below(5) as u64).to_string(),
        _ => random.below(10).to_string(),
    };
    let mut user = id(random);
    if random.once_in(2) {
        user = format!("{user}:{}", id(random));
    }
    if random.once_in(2) {
        let place = random.below(user.len() + 1);
        user.insert(
            place,
            *random.pick(&['0', '1', ':', 'x', ' ', '+', '-', '.', '\t', '\n', 'e', '_', '٣', '\u{200b}']),
        );
    }
    user
}

/// What it means if all of it is digits; an id of all ones is none to the kernel.
fn meant(user: &str) -> Option<(u32, u32)> {
    let id = |text: &str| match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u32>().ok().filter(|id| *id != u32::MAX),
        false => None,
    };
    match user.split_once(':') {
        Some((uid, gid)) => Some((id(uid)?, id(gid)?)),
        None => Some((id(user)?, 0)),
    }
}
