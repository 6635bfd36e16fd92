//! The command line of the kubelet: upstream's flags, each with the field that it sets.

/// What the command line says. Who parses it takes the names from [`arguments`].
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The flags that were given, in order: name without dashes, value. They stand over all files.
    pub given: Vec<(String, String)>,
    /// What stands below all files instead of upstream's defaults, in the same form.
    pub defaults: Vec<(String, String)>,
}

/// A flag, for the parser of a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// Without dashes: `max-pods`.
    pub name: &'static str,
    /// What stands for the value in the help; `None` for a switch, which may stand without one.
    pub value: Option<&'static str>,
    /// One line.
    pub help: &'static str,
}

/// All flags.
pub fn arguments() -> impl Iterator<Item = Argument> {
    std::iter::empty()
}
