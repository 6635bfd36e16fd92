//! `$(VAR)` in variables, commands, arguments and subPathExpr.
//!
//! A reference is short and its value may be long, and a value may be made of values: without a bound a few kilobytes of a
//! pod make any amount of memory. The bounds are those of execve(2), which lets nothing larger pass anyway.

/// The longest argument or variable, in bytes: `MAX_ARG_STRLEN`, without the NUL.
pub const MAX_STRING: usize = 128 * 1024 - 1;
/// All arguments and variables of a process, in bytes: three quarters of the kernel's `_STK_LIM`. A limit of the stack can
/// only make it less.
pub const MAX_ALL: usize = 6 << 20;

/// What a process could not be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// One argument or variable.
    #[error("it is longer than {MAX_STRING} bytes, the most that a process can be given in one")]
    One,
    /// All of them.
    #[error("with it, arguments and variables are longer than {MAX_ALL} bytes, the most that a process can be given")]
    All,
}

/// What a process may still be given.
#[derive(Debug)]
pub struct Room(usize);

impl Room {
    /// Nothing was given yet.
    pub fn empty() -> Room {
        Room(MAX_ALL)
    }

    /// Gives away the room of a string of so many bytes.
    ///
    /// # Errors
    /// It is too long, or there is no room for it.
    pub fn take(&mut self, bytes: usize) -> Result<(), TooLong> {
        if bytes > MAX_STRING {
            return Err(TooLong::One);
        }
        // The NUL counts too.
        self.0 = self.0.checked_sub(bytes + 1).ok_or(TooLong::All)?;
        Ok(())
    }

    /// Has back the room of a string of so many bytes, which something else replaces.
    pub fn give_back(&mut self, bytes: usize) {
        self.0 += bytes + 1;
    }
}

/// Replaces each `$(NAME)` that `lookup` knows; `$$` is a dollar, and what is unknown or unclosed stays as it is.
///
/// # Errors
/// The result is longer than [`MAX_STRING`].
pub fn expand<'a>(text: &str, lookup: impl FnMut(&str) -> Option<&'a str>) -> Result<String, TooLong> {
    replace(text, MAX_STRING, lookup).ok_or(TooLong::One)
}

/// All words of a command line, each expanded.
///
/// # Errors
/// The number of the word for which there is no room, from 0.
pub fn words<'a>(
    words: &[String],
    room: &mut Room,
    lookup: impl Fn(&str) -> Option<&'a str>,
) -> Result<Vec<String>, (usize, TooLong)> {
    let expanded = words.iter().enumerate().map(|(index, word)| {
        let word = expand(word, &lookup).map_err(|error| (index, error))?;
        room.take(word.len()).map_err(|error| (index, error))?;
        Ok(word)
    });
    expanded.collect()
}

/// Why a path can't be made of its expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPath {
    /// Names that nobody knows.
    Unknown(Vec<String>),
    /// It would be longer than any path.
    Long,
}

/// The path of an expression, in which each name has to be known.
pub fn path<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> Result<String, NoPath> {
    const PATH_MAX: usize = 4096;
    let mut unknown = Vec::new();
    let expanded = replace(text, PATH_MAX, |name| {
        let value = lookup(name);
        if value.is_none() {
            unknown.push(name.to_owned());
        }
        Some(value.unwrap_or_default())
    });
    if unknown.is_empty() { expanded.ok_or(NoPath::Long) } else { Err(NoPath::Unknown(unknown)) }
}

/// Copies `text`, with its value in place of every `$(NAME)` that has one; a value is not looked at again. `None` if that
/// is longer than `most` bytes.
fn replace<'a>(text: &str, most: usize, mut value: impl FnMut(&str) -> Option<&'a str>) -> Option<String> {
    let mut out = String::new();
    let mut push = |part: &str| {
        let fits = part.len() <= most - out.len();
        if fits {
            out.push_str(part);
        }
        fits.then_some(())
    };
    let mut rest = text;
    // Each dollar would look to the end for what is not there.
    let mut closes = true;
    while let Some(dollar) = rest.find('$') {
        push(&rest[..dollar])?;
        let after = &rest[dollar + 1..];
        let close = if closes && after.starts_with('(') { after.find(')') } else { None };
        closes &= close.is_some() || !after.starts_with('(');
        rest = match (after.chars().next(), close) {
            (Some('('), Some(close)) => {
                match value(&after[1..close]) {
                    Some(value) => push(value)?,
                    None => push(&rest[dollar..dollar + close + 2])?,
                }
                &after[close + 1..]
            }
            (Some('$'), _) => {
                push("$")?;
                &after[1..]
            }
            // A dollar that begins nothing takes the next character with it, whatever that is: `$x$$` is `$x$`.
            (Some(other), _) => {
                push(&rest[dollar..dollar + 1 + other.len_utf8()])?;
                &after[other.len_utf8()..]
            }
            (None, _) => {
                push("$")?;
                after
            }
        };
    }
    push(rest)?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        Some(match name {
            "VAR_A" => "A",
            "VAR_B" => "B",
            "VAR_C" => "C",
            "VAR_REF" => "$(VAR_A)",
            "VAR_EMPTY" => "",
            "" => "nameless",
            "VAR-A" => "dash",
            _ => return None,
        })
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(expand(text, lookup).as_deref(), Ok(expected), "{text:?}");
    }

    #[test]
    fn known_names_are_replaced_once() {
        check("$(VAR_A)", "A");
        check("___$(VAR_B)___", "___B___");
        check("$(VAR_A)$(VAR_B)_$(VAR_C)", "AB_C");
        check("$(VAR_REF)", "$(VAR_A)");
        check("%%$(VAR_REF)--$(VAR_REF)%%", "%%$(VAR_A)--$(VAR_A)%%");
        check("foo$(VAR_EMPTY)bar", "foobar");
        check("$(VAR-A)", "dash");
        check("$()", "nameless");
    }

    #[test]
    fn unknown_names_stay() {
        check("$(VAR_DNE)", "$(VAR_DNE)");
        check("foo$(VAR_DNE)bar", "foo$(VAR_DNE)bar");
        check("$($(VAR_A))", "$($(VAR_A))");
    }

    #[test]
    fn two_dollars_are_one_and_hide_what_follows() {
        check("$$(VAR_A)", "$(VAR_A)");
        check("$$$(VAR_A)", "$A");
        check("$$$$(VAR_A)", "$$(VAR_A)");
        check("f000-$$VAR_A", "f000-$VAR_A");
        check("foo\\$(VAR_C)bar", "foo\\Cbar");
        check("foo\\\\$(VAR_C)bar", "foo\\\\Cbar");
        check("$$", "$");
        check("$$$", "$$");
    }

    #[test]
    fn a_dollar_that_begins_nothing_stays() {
        check("", "");
        check("$", "$");
        check("$VAR_A", "$VAR_A");
        check("$(VAR_A", "$(VAR_A");
        check("$(VAR_B)_______$(A", "B_______$(A");
        check("$(VAR_C)_______$(A$(VAR_A)_", "C_______$(A$(VAR_A)_");
        check("--$(VAR_A--$(VAR_B)", "--$(VAR_A--$(VAR_B)");
        check("$\\(VAR_A)", "$\\(VAR_A)");
        check("a$ü$(VAR_A)", "a$üA");
        check("foo$(VAR_A", "foo$(VAR_A");
    }

    #[test]
    fn a_path_names_what_it_does_not_know() {
        assert_eq!(path("$(VAR_A)/$(X)/$(Y)", lookup), Err(NoPath::Unknown(vec!["X".to_owned(), "Y".to_owned()])));
        assert_eq!(path("$(VAR_A)/b", lookup), Ok("A/b".to_owned()));
    }

    /// A megabyte was 16 s of a worker thread, once: each dollar looked to the end for a bracket.
    #[test]
    fn many_dollars_are_read_once() {
        for text in ["$", "$(", "$x"] {
            assert!(replace(&text.repeat(1 << 18), 1 << 20, lookup).is_some(), "{text}");
        }
    }

    #[test]
    fn nothing_becomes_longer_than_a_process_can_be_given() {
        let long = "x".repeat(MAX_STRING);
        let value = |_: &str| Some(long.as_str());
        assert_eq!(expand("$(A)", value).as_deref(), Ok(long.as_str()));
        assert_eq!(expand("$(A)$(A)", value), Err(TooLong::One));
        assert_eq!(expand("$(A).", value), Err(TooLong::One));
        assert_eq!(expand(&"$(A)".repeat(1 << 18), value), Err(TooLong::One));
        assert_eq!(path("$(A)", value), Err(NoPath::Long));
        let many = vec!["$(A)".to_owned(); 100];
        assert_eq!(words(&many[..48], &mut Room::empty(), value).map(|words| words.len()), Ok(48));
        assert_eq!(words(&many, &mut Room::empty(), value), Err((48, TooLong::All)));
    }
}
