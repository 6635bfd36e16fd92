//! Where a value stands, and mistakes that show it: the file's lines, the flag's name.

use super::ConfigError;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No KubeletConfiguration comes near it; what is larger is not one.
const LARGEST_FILE: u64 = 1 << 20;

/// A file that was read.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// It holds credentials: mistakes name its lines, and don't show them.
    pub(crate) secret: bool,
}

/// Where a value stands.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Nobody gave it: it is upstream's default.
    Default,
    /// The command line gave it, by this flag.
    Flag(&'static str),
    /// These bytes of a file gave it.
    File(Arc<Source>, Range<usize>),
}

impl Source {
    /// Reads a whole file.
    pub(crate) fn read(path: &Path) -> Result<Arc<Source>, ConfigError> {
        Source::open(path, false)
    }

    /// Reads a whole file that holds credentials.
    pub(crate) fn read_secret(path: &Path) -> Result<Arc<Source>, ConfigError> {
        Source::open(path, true)
    }

    fn open(path: &Path, secret: bool) -> Result<Arc<Source>, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > LARGEST_FILE {
            return Err(ConfigError::Mistake(format!("error: {} is larger than 1 MiB", path.display())));
        }
        Ok(Arc::new(Source { path: path.to_owned(), text, secret }))
    }

    /// A mistake at some bytes of it; `label` stands beside them.
    pub(crate) fn mistake(&self, title: &str, label: &str, span: Range<usize>) -> ConfigError {
        let path = self.path.display().to_string();
        if self.secret {
            let before = &self.text[..self.clamp(span).start];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            return flat(title, &format!("{path}:{line}:{column}"), label);
        }
        let mut annotation = AnnotationKind::Primary.span(self.clamp(span));
        if !label.is_empty() {
            annotation = annotation.label(label);
        }
        let snippet = Snippet::source(&self.text).path(path.as_str()).annotation(annotation);
        let report = [Level::ERROR.primary_title(title).element(snippet)];
        ConfigError::Mistake(Renderer::plain().render(&report).clone())
    }

    /// A span that the renderer can show: inside the text and on the boundaries of characters.
    fn clamp(&self, span: Range<usize>) -> Range<usize> {
        let boundary = |at: usize| (0..=at.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at));
        let (start, end) = (boundary(span.start).unwrap_or(0), boundary(span.end).unwrap_or(0));
        start..end.max(start)
    }
}

/// A mistake without the text around it.
fn flat(title: &str, at: &str, help: &str) -> ConfigError {
    let help = if help.is_empty() { String::new() } else { format!("\n  = help: {help}") };
    ConfigError::Mistake(format!("error: {title}\n --> {at}{help}"))
}

impl Place {
    /// A mistake there: `title` says what is wrong and `label` what to do.
    pub(crate) fn mistake(&self, title: &str, label: &str) -> ConfigError {
        match self {
            Place::Default => flat(title, "a default", label),
            Place::Flag(name) => flat(title, &format!("--{name}"), label),
            Place::File(source, span) => source.mistake(title, label, span.clone()),
        }
    }

    /// Whether somebody gave the value.
    pub(crate) fn given(&self) -> bool {
        !matches!(self, Place::Default)
    }

    /// The folder that relative paths start at: a file's own; a flag's start where the program does.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Place::File(source, _) => source.path.parent(),
            Place::Default | Place::Flag(_) => None,
        }
    }
}
