//! `$(VAR)` in variables, commands, arguments and subPathExpr.

/// Replaces each `$(NAME)` that `lookup` knows; `$$` is a dollar, and what is unknown or unclosed stays as it is.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    replace(text, |name, out| match lookup(name) {
        Some(value) => out.push_str(value),
        None => {
            out.push_str("$(");
            out.push_str(name);
            out.push(')');
        }
    })
}

/// The same, but a name that is unknown is an error: the names in question.
pub fn expand_known<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> Result<String, Vec<String>> {
    let mut unknown = Vec::new();
    let expanded = replace(text, |name, out| match lookup(name) {
        Some(value) => out.push_str(value),
        None => unknown.push(name.to_owned()),
    });
    if unknown.is_empty() { Ok(expanded) } else { Err(unknown) }
}

/// Copies `text`, with a call of `reference` in place of every `$(NAME)`. A value is not looked at again.
fn replace(text: &str, mut reference: impl FnMut(&str, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        rest = match (after.chars().next(), after.find(')')) {
            (Some('('), Some(close)) => {
                reference(&after[1..close], &mut out);
                &after[close + 1..]
            }
            (Some('$'), _) => {
                out.push('$');
                &after[1..]
            }
            // A dollar that begins nothing takes the next character with it, whatever that is: `$x$$` is `$x$`.
            (Some(other), _) => {
                out.push('$');
                out.push(other);
                &after[other.len_utf8()..]
            }
            (None, _) => {
                out.push('$');
                after
            }
        };
    }
    out.push_str(rest);
    out
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
        assert_eq!(expand(text, lookup), expected, "{text:?}");
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
        assert_eq!(expand_known("$(VAR_A)/$(X)/$(Y)", lookup), Err(vec!["X".to_owned(), "Y".to_owned()]));
        assert_eq!(expand_known("$(VAR_A)/b", lookup), Ok("A/b".to_owned()));
    }
}
