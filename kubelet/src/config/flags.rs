//! The command line of the kubelet: upstream's flags.
//!
//! Most set a field of KubeletConfiguration and are read off its [table](super::fields). The others ([`OWN`]) have no field.

use super::ConfigError;
use super::fields::table::FIELDS;
use super::fields::{Effect, Field, Kind};
use super::source::Place;
use super::yaml::{Key, Node, Value};

/// What the command line says. Who parses it takes the names from [`arguments`].
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The flags that were given, in order: name without dashes, value. They stand over all files.
    pub given: Vec<(String, String)>,
    /// What stands below all files instead of upstream's defaults: a field's dotted path and a value as its flag takes it.
    pub defaults: Vec<(&'static str, String)>,
    /// Where `/pods` is served without TLS; see [`super::Config::local_socket`].
    pub local_socket: Option<std::path::PathBuf>,
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
    /// Whether few people look for it: it is left out of the short help.
    pub rare: bool,
}

/// A flag without a field.
struct Own {
    argument: Argument,
    effect: Effect,
}

const fn own(name: &'static str, value: &'static str, effect: Effect, help: &'static str) -> Own {
    let value = if value.is_empty() { None } else { Some(value) };
    Own { argument: Argument { name, value, help, rare: !matches!(effect, Effect::Now) }, effect }
}

const NO_PLUGINS: &str = "credential provider plugins aren't run yet: images that need them could not be pulled";

/// The flags that are no fields.
#[rustfmt::skip]
const OWN: &[Own] = &[
    own("config", "FILE", Effect::Now, "KubeletConfiguration, kubelet.config.k8s.io/v1beta1"),
    own("config-dir", "DIR", Effect::Now, "Folder of *.conf drop-ins, laid over --config in lexical order"),
    own("kubeconfig", "FILE", Effect::Now, "How to reach the API server; without it, only static pods run"),
    own("bootstrap-kubeconfig", "FILE", Effect::Now, "Accepted where --kubeconfig exists; TLS bootstrap is not built yet"),
    own("hostname-override", "NAME", Effect::Now, "The node's name instead of the host's"),
    own("node-ip", "IP[,IP]", Effect::Now, "The node's address, or one per family; :: prefers IPv6"),
    own("node-labels", "KEY=VALUE,…", Effect::Now, "Labels to register the node with"),
    own("root-dir", "DIR", Effect::Now, "Pods' folders and volumes [default: /var/lib/kubelet]"),
    own("cert-dir", "DIR", Effect::Now, "Where the kubelet keeps certificates that it makes [default: <root-dir>/pki]"),
    own("cloud-provider", "NAME", Effect::Now, "external, or nothing"),
    own("pod-infra-container-image", "IMAGE", Effect::Moot, "Ignored: no pod has a pause container here"),
    own("runtime-cgroups", "NAME", Effect::Later, "The runtime's cgroup"),
    own("vmodule", "PATTERN=N,…", Effect::Later, "Verbosity of single files"),
    own("lock-file", "FILE", Effect::Later, "Upstream's alpha lock file"),
    own("exit-on-lock-contention", "", Effect::Refused("no lock file is watched"), "Upstream's alpha"),
    own("minimum-container-ttl-duration", "DURATION", Effect::Later, "Deprecated upstream: how long a dead container is kept at least"),
    own("maximum-dead-containers-per-container", "N", Effect::Later, "Deprecated upstream: dead containers kept for one"),
    own("maximum-dead-containers", "N", Effect::Later, "Deprecated upstream: dead containers kept in all"),
    own("image-credential-provider-config", "FILE", Effect::Refused(NO_PLUGINS), "Credential provider plugins (not built yet)"),
    own("image-credential-provider-bin-dir", "DIR", Effect::Refused(NO_PLUGINS), "Credential provider plugins (not built yet)"),
    own("experimental-mounter-path", "PATH", Effect::Later, "Deprecated upstream"),
    own("experimental-allocatable-ignore-eviction", "", Effect::Later, "Deprecated upstream"),
];

/// What most people pass, in words; the others' help names their field.
const COMMON: [(&str, &str); 11] = [
    ("container-runtime-endpoint", "The CRI's socket, for example unix:///run/orlop/orlop.sock"),
    ("pod-manifest-path", "Folder of static pods, or one manifest"),
    ("register-with-taints", "Taints to register the node with"),
    ("max-pods", "Pods that the node takes at most [default: 110]"),
    ("cluster-dns", "Servers that pods of dnsPolicy ClusterFirst ask"),
    ("cluster-domain", "Domain that their names are looked up in"),
    ("feature-gates", "Upstream's feature gates"),
    ("port", "Port of the HTTPS server [default: 10250]"),
    ("healthz-port", "Port of /healthz on 127.0.0.1; 0 for none [default: 10248]"),
    ("fail-swap-on", "Whether a machine with swap is refused [default: true]"),
    ("v", "klog's verbosity: 4 for debugging, 6 for every call"),
];

/// All flags.
pub fn arguments() -> impl Iterator<Item = Argument> {
    let fields = FIELDS.iter().filter(|field| !field.flag.is_empty()).map(|field| Argument {
        name: field.flag,
        value: placeholder(field.kind),
        help: common(field.flag).unwrap_or(field.path),
        rare: common(field.flag).is_none(),
    });
    OWN.iter().map(|own| own.argument).chain(fields)
}

fn common(flag: &str) -> Option<&'static str> {
    COMMON.iter().find(|(name, _)| *name == flag).map(|(_, help)| *help)
}

fn placeholder(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Bool => return None,
        Kind::Int(..) | Kind::Float(..) => "N",
        Kind::Text | Kind::Records(_) => "TEXT",
        Kind::OneOf(_) => "WORD",
        Kind::Path => "PATH",
        Kind::Ip => "IP",
        Kind::Duration(..) | Kind::SignedDuration | Kind::DurationOrInt => "DURATION",
        Kind::Quantity => "QUANTITY",
        Kind::Texts | Kind::Ints => "A,B,…",
        Kind::Ips => "IP,IP,…",
        Kind::Map(_) | Kind::Quantities | Kind::Durations | Kind::Headers => "KEY=VALUE,…",
        Kind::Thresholds => "SIGNAL<QUANTITY,…",
        Kind::Gates => "NAME=BOOL,…",
        Kind::Taints => "KEY=VALUE:EFFECT,…",
    })
}

/// Flags that were given, each known.
pub(super) struct Given<'a> {
    flags: Vec<(Known, &'a str)>,
}

#[derive(Clone, Copy)]
enum Known {
    Field(&'static Field),
    Own(&'static Own),
}

impl<'a> Given<'a> {
    /// # Errors
    /// A flag that does not exist; a parser that took its flags from [`arguments`] hands none over.
    pub(super) fn new(flags: &'a [(String, String)]) -> Result<Given<'a>, ConfigError> {
        let known = |name: &str| {
            let field = FIELDS.iter().find(|field| field.flag == name).map(Known::Field);
            let own = || OWN.iter().find(|own| own.argument.name == name).map(Known::Own);
            field.or_else(own).ok_or_else(|| ConfigError::Mistake(format!("error: unknown flag --{name}")))
        };
        let flags = flags.iter().map(|(name, value)| Ok((known(name)?, value.as_str())));
        Ok(Given { flags: flags.collect::<Result<_, ConfigError>>()? })
    }

    /// The last value of a flag that has no field.
    pub(super) fn own(&self, name: &str) -> Option<&'a str> {
        self.all(name).last()
    }

    /// All values of a flag that has no field, in order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        debug_assert!(OWN.iter().any(|own| own.argument.name == name), "--{name} is no flag of ours");
        let named = move |known: Known| matches!(known, Known::Own(own) if own.argument.name == name);
        self.flags.iter().filter(move |(known, _)| named(*known)).map(|(_, value)| *value)
    }

    /// Refuses what would harm, and names what has no effect yet.
    ///
    /// # Errors
    /// The first flag that is refused.
    pub(super) fn effects(&self) -> Result<Vec<String>, ConfigError> {
        let mut later = Vec::new();
        for (known, value) in &self.flags {
            match known {
                Known::Own(Own { argument, effect: Effect::Later }) => later.push(format!("--{}", argument.name)),
                Known::Own(Own { argument, effect: Effect::Refused(reason) }) if !matches!(*value, "" | "false") => {
                    return Err(Place::Flag(argument.name).mistake("this flag is not supported", reason));
                }
                _ => {}
            }
        }
        Ok(later)
    }

    /// The fields that flags set, each once: lists and mappings of a flag that was repeated are joined.
    ///
    /// # Errors
    /// A text that can't be read as the field's kind.
    pub(super) fn fields(&self) -> Result<Vec<(&'static Field, Node)>, ConfigError> {
        let mut set: Vec<(&'static Field, Node)> = Vec::new();
        for (known, text) in &self.flags {
            let Known::Field(field) = known else { continue };
            let node = parse(field, text, Place::Flag(field.flag))?;
            match set.iter_mut().find(|(other, _)| other.path == field.path) {
                Some((_, earlier)) => join(earlier, node),
                None => set.push((field, node)),
            }
        }
        Ok(set)
    }
}

fn join(earlier: &mut Node, node: Node) {
    match (&mut earlier.value, node.value) {
        (Value::List(items), Value::List(more)) => items.extend(more),
        (Value::Map(entries), Value::Map(more)) => {
            entries.retain(|(key, _)| more.iter().all(|(other, _)| other.name != key.name));
            entries.extend(more);
        }
        (slot, value) => *slot = value,
    }
}

/// A flag's text as a value of its field.
///
/// # Errors
/// It can't be read as the field's kind.
pub(super) fn parse(field: &Field, text: &str, place: Place) -> Result<Node, ConfigError> {
    let wrong = |wants: &str| place.mistake(&format!("`{}` wants {wants}, this is {text:?}", field.path), "");
    let value = match field.kind {
        Kind::Bool => Value::Bool(parse_bool(text).ok_or_else(|| wrong("true or false"))?),
        Kind::Int(..) => Value::Int(text.parse().map_err(|_| wrong("an integer"))?),
        Kind::Float(..) => Value::Float(text.parse().map_err(|_| wrong("a number"))?),
        Kind::Texts | Kind::Ips => {
            Value::List(parts(text).map(|part| node(Value::Text(part.to_owned()), &place)).collect())
        }
        Kind::Gates => pairs(text, '=', &place, |value| parse_bool(value).map(Value::Bool))
            .ok_or_else(|| wrong("NAME=true or NAME=false, separated by commas"))?,
        Kind::Map(separator) => {
            text_pairs(text, separator, &place).ok_or_else(|| wrong("KEY=VALUE, separated by commas"))?
        }
        Kind::Quantities | Kind::Durations => {
            text_pairs(text, '=', &place).ok_or_else(|| wrong("KEY=VALUE, separated by commas"))?
        }
        Kind::Thresholds if field.path == "evictionMinimumReclaim" => {
            text_pairs(text, '=', &place).ok_or_else(|| wrong("SIGNAL=QUANTITY, separated by commas"))?
        }
        Kind::Thresholds => {
            text_pairs(text, '<', &place).ok_or_else(|| wrong("SIGNAL<QUANTITY, separated by commas"))?
        }
        Kind::Taints => Value::List(
            parts(text)
                .map(|part| taint(part, &place).ok_or_else(|| wrong("KEY=VALUE:EFFECT, separated by commas")))
                .collect::<Result<_, _>>()?,
        ),
        Kind::Text
        | Kind::OneOf(_)
        | Kind::Path
        | Kind::Ip
        | Kind::Duration(..)
        | Kind::SignedDuration
        | Kind::DurationOrInt
        | Kind::Quantity => Value::Text(text.to_owned()),
        Kind::Ints | Kind::Headers | Kind::Records(_) => return Err(wrong("a file to be given in")),
    };
    Ok(node(value, &place))
}

fn node(value: Value, place: &Place) -> Node {
    Node { value, place: place.clone() }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn text_pairs(text: &str, separator: char, place: &Place) -> Option<Value> {
    pairs(text, separator, place, |value| Some(Value::Text(value.to_owned())))
}

fn pairs(text: &str, separator: char, place: &Place, value: impl Fn(&str) -> Option<Value>) -> Option<Value> {
    let entry = |part: &str| {
        let (name, text) = part.split_once(separator)?;
        Some((Key { name: name.trim().to_owned(), place: place.clone() }, node(value(text.trim())?, place)))
    };
    Some(Value::Map(parts(text).map(entry).collect::<Option<_>>()?))
}

/// As Go's `strconv.ParseBool` has it.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `key=value:effect` or `key:effect`.
fn taint(text: &str, place: &Place) -> Option<Node> {
    let (pair, effect) = text.rsplit_once(':')?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let entry = |name: &str, text: &str| {
        (Key { name: name.to_owned(), place: place.clone() }, node(Value::Text(text.to_owned()), place))
    };
    Some(node(Value::Map(vec![entry("key", key), entry("value", value), entry("effect", effect)]), place))
}
