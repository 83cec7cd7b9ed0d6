//! What the node itself says about its functions, read from its metrics.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Figures of the example's two functions.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Figures {
    pub signal_cold_starts: u64,
    pub city_cold_starts: u64,
    /// Invocations of `city`, and bytes of request bodies that reached it.
    pub deliveries: u64,
    pub forwarded_bytes: u64,
    pub signal_cpu_seconds: f64,
}

/// Where the node that keeps this store serves its metrics.
pub fn admin(store: &Path) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Node {
        admin: String,
    }
    let file = store.join("node.json");
    let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let node: Node = serde_json::from_slice(&text).context("node.json is not readable")?;
    Ok(node.admin)
}

pub fn read(agent: &ureq::Agent, admin: &str) -> Result<Figures> {
    Ok(parse(&super::super::get(
        agent,
        &format!("{admin}/_tombolo/metrics"),
    )?))
}

fn parse(text: &str) -> Figures {
    let whole = |name: &str, labels: &[&str]| sample(text, name, labels) as u64;
    let (signal, city) = ("function=\"signal\"", "function=\"city\"");
    Figures {
        signal_cold_starts: whole("faas_coldstarts_total", &[signal]),
        city_cold_starts: whole("faas_coldstarts_total", &[city]),
        deliveries: whole("faas_invocations_total", &[city]),
        forwarded_bytes: whole(
            "tombolo_function_io_bytes_total",
            &[city, "direction=\"in\""],
        ),
        signal_cpu_seconds: sample(text, "tombolo_function_cpu_seconds_total", &[signal]),
    }
}

/// The value of the sample with this name and these labels in OpenMetrics text; 0 when nothing was counted yet.
fn sample(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once('}'))
        .find(|(found, _)| labels.iter().all(|label| found.contains(label)))
        .and_then(|(_, value)| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let text = "# TYPE faas_coldstarts counter\n\
            faas_coldstarts_total{app=\"smart-traffic\",function=\"city\"} 2\n\
            tombolo_function_io_bytes_total{app=\"a\",function=\"city\",direction=\"out\"} 9\n\
            tombolo_function_io_bytes_total{app=\"a\",function=\"city\",direction=\"in\"} 4096\n";
        let expected = Figures {
            city_cold_starts: 2,
            forwarded_bytes: 4_096,
            ..Figures::default()
        };
        assert_eq!(parse(text), expected);
    }
}
