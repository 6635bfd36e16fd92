//! The classic Prometheus text format, version 0.0.4: what upstream's kubelet speaks, and what every scraper reads.
//!
//! prometheus-client writes OpenMetrics, which differs: a counter's family is named without `_total`, there are `# UNIT`
//! and `# EOF`. [`Text`] takes its output in, and single samples with timestamps, which prometheus-client can't write.

use prometheus_client::registry::Registry;
use std::fmt::Write;

/// The media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counters that upstream named before `_total` became the rule; alerts ask for them by these names.
const WITHOUT_TOTAL: [&str; 5] = [
    "kubelet_evictions",
    "kubelet_preemptions",
    "kubelet_pleg_discard_events",
    "kubelet_certificate_manager_client_expiration_renew_errors",
    "kubelet_server_expiration_renew_errors",
];

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A scrape's answer, being written.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
}

impl Text {
    /// Nothing yet.
    pub fn new() -> Text {
        Text::default()
    }

    /// What was written.
    pub fn finish(self) -> String {
        self.out
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, help: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample of the family begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.head(name, labels);
        self.value(value);
        self.out.push('\n');
    }

    /// One sample that was taken at a certain millisecond since 1970.
    pub fn sample_at(&mut self, name: &str, labels: &[(&str, &str)], value: f64, millisecond: i64) {
        self.head(name, labels);
        self.value(value);
        let _ = writeln!(self.out, " {millisecond}");
    }

    /// Everything in a registry.
    pub fn registry(&mut self, registry: &Registry) {
        let mut open_metrics = String::new();
        // Writing to a String does not fail, and a collector of ours has no other reason to.
        let _ = prometheus_client::encoding::text::encode_registry(&mut open_metrics, registry);
        classic(&open_metrics, &mut self.out);
    }

    fn head(&mut self, name: &str, labels: &[(&str, &str)]) {
        self.out.push_str(name);
        for (index, (key, value)) in labels.iter().enumerate() {
            self.out.push(if index == 0 { '{' } else { ',' });
            self.out.push_str(key);
            self.out.push_str("=\"");
            escape(value, &mut self.out);
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
    }

    fn value(&mut self, value: f64) {
        let _ = match value {
            f64::INFINITY => write!(self.out, " +Inf"),
            f64::NEG_INFINITY => write!(self.out, " -Inf"),
            value => write!(self.out, " {value}"),
        };
    }
}

fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// Rewrites OpenMetrics text, one line at a time.
fn classic(open_metrics: &str, out: &mut String) {
    let mut kept_help: Option<(&str, &str)> = None;
    let mut bare = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            kept_help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            bare = WITHOUT_TOTAL.iter().copied().find(|bare| *bare == name);
            let suffix = if kind == "counter" && bare.is_none() { "_total" } else { "" };
            let help = kept_help.take().map_or("", |(_, help)| help);
            let kind = if kind == "unknown" { "untyped" } else { kind };
            let _ = write!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            sample(line, bare, out);
        }
    }
}

/// A sample, without `_total` if its family is one of [`WITHOUT_TOTAL`].
fn sample(line: &str, bare: Option<&str>, out: &mut String) {
    let rest = bare.and_then(|bare| line.strip_prefix(bare)?.strip_prefix("_total"));
    match (bare, rest) {
        (Some(bare), Some(rest)) => {
            out.push_str(bare);
            out.push_str(rest);
        }
        _ => out.push_str(line),
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::histogram::Histogram;

    #[test]
    fn counters_are_named_as_a_classic_scraper_expects() {
        let mut registry = Registry::default();
        registry.register("kubelet_started_pods", "Pods", Counter::<u64>::default());
        registry.register("kubelet_evictions", "Evictions", Counter::<u64>::default());
        let mut text = Text::new();
        text.registry(&registry);
        assert_eq!(
            text.finish(),
            "# HELP kubelet_started_pods_total Pods.\n# TYPE kubelet_started_pods_total counter\n\
             kubelet_started_pods_total 0\n\
             # HELP kubelet_evictions Evictions.\n# TYPE kubelet_evictions counter\nkubelet_evictions 0\n"
        );
    }

    #[test]
    fn histograms_stay_what_they_are_and_nothing_ends_with_eof() {
        let mut registry = Registry::default();
        let histogram = Histogram::new([0.5]);
        histogram.observe(0.25);
        registry.register("a_seconds", "A", histogram);
        let mut text = Text::new();
        text.registry(&registry);
        let out = text.finish();
        assert!(
            out.contains("# TYPE a_seconds histogram\n") && out.contains("a_seconds_bucket{le=\"+Inf\"} 1\n"),
            "{out}"
        );
        assert!(!out.contains("EOF"), "{out}");
    }

    #[test]
    fn label_values_can_not_break_out_of_their_quotes() {
        let mut text = Text::new();
        text.family("x", "X", Kind::Gauge);
        text.sample_at("x", &[("a", "q\"b\\s\nn"), ("b", "")], 1.5, 1700);
        text.sample("x", &[], f64::INFINITY);
        assert_eq!(text.finish(), "# HELP x X\n# TYPE x gauge\nx{a=\"q\\\"b\\\\s\\nn\",b=\"\"} 1.5 1700\nx +Inf\n");
    }
}
