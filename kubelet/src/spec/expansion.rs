//! `$(VAR)` in variables, commands, arguments and subPathExpr.

/// Replaces each `$(NAME)` that `lookup` knows; `$$` is a dollar, and what is unknown or unclosed stays as it is.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let _ = (text, lookup("").is_some());
    todo!()
}

/// The same, but a name that is unknown is an error: the names in question.
pub fn expand_known<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> Result<String, Vec<String>> {
    let _ = (text, lookup("").is_some());
    todo!()
}
