//! Mutations of a JSON document: structure, types, sizes, and values that were the end of others.

use serde_json::{Map, Value, json};

use super::random::Random;

/// Strings that mean something to somebody: paths that lead out, numbers that are none, options, names.
const STRINGS: [&str; 46] = [
    "",
    " ",
    ".",
    "..",
    "../..",
    "/",
    "//",
    "/..",
    "a/../../b",
    "/proc",
    "/proc/self/fd/7",
    "/proc/self/root",
    "/proc/1/root",
    "/proc/self/exe",
    "/sys/fs/cgroup",
    "/dev/null",
    "/dev/ptmx",
    "rootfs",
    "config.json",
    "nosuch",
    "/nosuch/path",
    "a\0b",
    "line\nbreak",
    "\u{202e}right",
    "ÄÖ\u{10ffff}",
    "%s%n",
    "$(id)",
    "-1",
    "0",
    "18446744073709551616",
    "1e9",
    "0x10",
    "tmpfs",
    "proc",
    "sysfs",
    "mqueue",
    "bind",
    "cgroup",
    "rbind",
    "ro",
    "remount",
    "size=1",
    "mode=07777",
    "all",
    "RLIMIT_NOFILE",
    "CAP_SYS_ADMIN",
];

/// Around the bounds of every width, and those that mean "all" or "none".
const NUMBERS: [i64; 24] = [
    0,
    1,
    -1,
    2,
    7,
    63,
    64,
    255,
    256,
    511,
    512,
    1000,
    1001,
    -1000,
    -1001,
    4095,
    65_535,
    65_536,
    2_147_483_647,
    2_147_483_648,
    4_294_967_295,
    4_294_967_296,
    i64::MAX,
    i64::MIN,
];

/// Changes `config` at one to three places.
pub(super) fn mutate(config: &mut Value, grafts: &[(&str, Value)], random: &mut Random) {
    for _ in 0..*random.pick(&[1, 1, 1, 2, 3]) {
        if random.once_in(3) {
            graft(config, grafts, random);
        } else {
            let place = somewhere(config, random);
            change(config, &place, random);
        }
    }
}

/// Puts a field that most configurations don't have into this one.
fn graft(config: &mut Value, grafts: &[(&str, Value)], random: &mut Random) {
    let Some((pointer, value)) = (!grafts.is_empty()).then(|| random.pick(grafts)) else { return };
    let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
    match config.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.insert(key.to_owned(), value.clone())),
        Some(Value::Array(list)) => list.push(value.clone()),
        _ => {}
    }
}

/// A JSON pointer to something in the document, but not to all of it; one level after the other, so that a long list does
/// not take all the blows.
fn somewhere(config: &Value, random: &mut Random) -> String {
    let mut place = String::new();
    let mut here = config;
    loop {
        let next = match here {
            Value::Object(fields) if !fields.is_empty() => {
                let (key, value) = fields.iter().nth(random.below(fields.len())).expect("a field");
                here = value;
                key.replace('~', "~0").replace('/', "~1")
            }
            Value::Array(list) if !list.is_empty() => {
                let index = random.below(list.len());
                here = &list[index];
                index.to_string()
            }
            _ => return place,
        };
        place = format!("{place}/{next}");
        if random.once_in(4) {
            return place;
        }
    }
}

fn change(config: &mut Value, place: &str, random: &mut Random) {
    let Some((parent, key)) = place.rsplit_once('/') else { return };
    match random.below(8) {
        0 => remove(config, parent, key),
        1 => double(config, parent, key, random),
        _ => {
            if let Some(value) = config.pointer_mut(place) {
                *value = another(value, random);
            }
        }
    }
}

fn remove(config: &mut Value, parent: &str, key: &str) {
    match config.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.remove(key)),
        Some(Value::Array(list)) => drop(list.remove(key.parse().expect("an index"))),
        _ => {}
    }
}

/// The same again: once, or very often.
fn double(config: &mut Value, parent: &str, key: &str, random: &mut Random) {
    let often = if random.once_in(4) { 2000 } else { 1 };
    match config.pointer_mut(parent) {
        Some(Value::Array(list)) => {
            let entry = list[key.parse::<usize>().expect("an index")].clone();
            list.extend(std::iter::repeat_n(entry, often));
        }
        Some(Value::Object(fields)) => {
            let value = fields.get(key).cloned().unwrap_or_default();
            drop(fields.insert(format!("{key}2"), value));
        }
        _ => {}
    }
}

/// A value in the place of `old`: usually of its type, sometimes of another.
fn another(old: &Value, random: &mut Random) -> Value {
    let of_type = match random.once_in(4) {
        true => random.below(7),
        false => match old {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Number(_) => 2,
            Value::String(_) => 3,
            Value::Array(_) => 4,
            Value::Object(_) => 5,
        },
    };
    match of_type {
        0 => Value::Null,
        1 => json!(!old.as_bool().unwrap_or(false)),
        2 => number(random),
        3 => string(old, random),
        4 => Value::Array(if random.once_in(2) { Vec::new() } else { vec![old.clone(); 2] }),
        5 => {
            Value::Object(if random.once_in(2) { Map::new() } else { Map::from_iter([("x".to_owned(), old.clone())]) })
        }
        _ => deep(old.clone(), random),
    }
}

fn number(random: &mut Random) -> Value {
    match random.below(8) {
        0 => json!(u64::MAX),
        1 => json!(0.5),
        2 => json!(-1e300),
        _ => json!(*random.pick(&NUMBERS)),
    }
}

fn string(old: &Value, random: &mut Random) -> Value {
    let old = old.as_str().unwrap_or("x");
    json!(match random.below(8) {
        0 => format!("{old}{}", random.pick(&STRINGS)),
        1 => format!("{}{old}", random.pick(&STRINGS)),
        2 => old.repeat(1 + random.below(5000)),
        3 => old.chars().rev().collect(),
        4 => old.to_uppercase(),
        _ => (*random.pick(&STRINGS)).to_owned(),
    })
}

/// Nested beyond what a parser should follow. How deep one without any limit gets is shown by [`text`], which needs no stack of ours.
fn deep(mut value: Value, random: &mut Random) -> Value {
    let depth = *random.pick(&[3, 100, 130, 500]);
    for _ in 0..depth {
        value = if random.once_in(2) { json!([value]) } else { json!({"x": value}) };
    }
    value
}

/// The most that the runtime reads, in bytes.
const MAX_SIZE: usize = 16 << 20;

/// The document as text, now and then damaged as text only can be.
pub(super) fn text(config: &Value, random: &mut Random) -> Vec<u8> {
    let mut text = config.to_string().into_bytes();
    if !random.once_in(10) {
        return text;
    }
    let place = random.below(text.len());
    match random.below(7) {
        0 => text.truncate(place),
        1 => text[place] ^= 1 << random.below(8),
        2 => text.insert(place, 0xff),
        3 => text.splice(place..place, vec![b'['; 100_000]).for_each(drop),
        // As long as may be, or a byte longer.
        4 => text.resize(MAX_SIZE + random.below(2), b' '),
        5 => text.splice(1..1, *br#""linux":{},"process":null,"#).for_each(drop),
        _ => text.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
    }
    text
}
