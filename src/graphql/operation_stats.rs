//! Statistics by operation name. Clients choose the names, so their number is bounded: a new name
//! replaces the least used one, and among those the newest. Clients that invent names therefore
//! replace their own, and names in use stay. The counts of replaced names are added to "other", so
//! that sums never decrease.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

pub(super) const OTHER: &str = "other";
/// Maximum number of names with statistics of their own.
const MAX_NAMES: usize = 200;
/// Use counts are halved after this many operations, so that names that are not used any more can
/// be replaced.
const DECAY_INTERVAL: u64 = 10_000;
const BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

static STATS: LazyLock<Mutex<StatsByName>> = LazyLock::new(Mutex::default);

/// A completed operation.
pub(super) struct CompletedOperation<'a> {
    pub(super) name: &'a str,
    pub(super) kind: &'static str,
    /// The duration; `None` for subscriptions.
    pub(super) elapsed: Option<Duration>,
    /// The root field and the code of each error.
    pub(super) errors: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct StatsByName {
    names: HashMap<String, OperationStats>,
    other: OperationStats,
    operations: u64,
}

#[derive(Clone, Debug, Default)]
struct OperationStats {
    uses: u64,
    /// The number of operations at the time when the name was added.
    added_at: u64,
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
    errors: BTreeMap<(String, String), u64>,
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl OperationStats {
    fn add(&mut self, operation: CompletedOperation<'_>) {
        self.uses += 1;
        let outcome = if operation.errors.is_empty() {
            "ok"
        } else {
            "errors"
        };
        *self.outcomes.entry((operation.kind, outcome)).or_default() += 1;
        for error in operation.errors {
            *self.errors.entry(error).or_default() += 1;
        }
        if let Some(seconds) = operation.elapsed.map(|elapsed| elapsed.as_secs_f64()) {
            self.count += 1;
            self.seconds += seconds;
            for (bucket, _) in self
                .buckets
                .iter_mut()
                .zip(BUCKETS)
                .filter(|(_, limit)| seconds <= *limit)
            {
                *bucket += 1;
            }
        }
    }

    fn merge(&mut self, evicted: Self) {
        for (outcome, count) in evicted.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        for (error, count) in evicted.errors {
            *self.errors.entry(error).or_default() += count;
        }
        for (bucket, count) in self.buckets.iter_mut().zip(evicted.buckets) {
            *bucket += count;
        }
        self.count += evicted.count;
        self.seconds += evicted.seconds;
    }
}

impl StatsByName {
    fn add(&mut self, operation: CompletedOperation<'_>) {
        self.operations += 1;
        if self.operations.is_multiple_of(DECAY_INTERVAL) {
            self.names.values_mut().for_each(|stats| stats.uses /= 2);
        }
        if operation.name == OTHER {
            return self.other.add(operation);
        }
        if !self.names.contains_key(operation.name) {
            if self.names.len() >= MAX_NAMES {
                self.evict_least_used();
            }
            self.names.insert(
                operation.name.to_owned(),
                OperationStats {
                    added_at: self.operations,
                    ..OperationStats::default()
                },
            );
        }
        if let Some(stats) = self.names.get_mut(operation.name) {
            stats.add(operation);
        }
    }

    fn evict_least_used(&mut self) {
        let least = self
            .names
            .iter()
            .min_by_key(|(_, stats)| (stats.uses, std::cmp::Reverse(stats.added_at)));
        if let Some(evicted) = least
            .map(|(name, _)| name.clone())
            .and_then(|name| self.names.remove(&name))
        {
            self.other.merge(evicted);
        }
    }

    fn render(&self) -> String {
        let mut all: Vec<(&str, &OperationStats)> = self
            .names
            .iter()
            .map(|(name, stats)| (name.as_str(), stats))
            .collect();
        all.push((OTHER, &self.other));
        all.sort_unstable_by_key(|(name, _)| *name);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&all, &mut text);
        text
    }

    fn write(&self, all: &[(&str, &OperationStats)], to: &mut String) -> std::fmt::Result {
        writeln!(
            to,
            "# HELP recents_graphql_operations_total Operations by name, kind and outcome."
        )?;
        writeln!(to, "# TYPE recents_graphql_operations_total counter")?;
        for (name, stats) in all {
            for ((kind, outcome), count) in &stats.outcomes {
                let labels = format!("operation=\"{name}\",kind=\"{kind}\",outcome=\"{outcome}\"");
                writeln!(to, "recents_graphql_operations_total{{{labels}}} {count}")?;
            }
        }
        writeln!(
            to,
            "# HELP recents_graphql_operation_seconds Time of queries and mutations by name."
        )?;
        writeln!(to, "# TYPE recents_graphql_operation_seconds histogram")?;
        for (name, stats) in all.iter().filter(|(_, stats)| stats.count > 0) {
            let label = format!("operation=\"{name}\"");
            for (limit, count) in BUCKETS.iter().zip(stats.buckets) {
                writeln!(
                    to,
                    "recents_graphql_operation_seconds_bucket{{{label},le=\"{limit}\"}} {count}"
                )?;
            }
            writeln!(
                to,
                "recents_graphql_operation_seconds_bucket{{{label},le=\"+Inf\"}} {}",
                stats.count
            )?;
            writeln!(
                to,
                "recents_graphql_operation_seconds_sum{{{label}}} {}",
                stats.seconds
            )?;
            writeln!(
                to,
                "recents_graphql_operation_seconds_count{{{label}}} {}",
                stats.count
            )?;
        }
        writeln!(
            to,
            "# HELP recents_graphql_errors_total Errors by operation, root field and code."
        )?;
        writeln!(to, "# TYPE recents_graphql_errors_total counter")?;
        for (name, stats) in all {
            for ((field, code), count) in &stats.errors {
                let labels = format!("operation=\"{name}\",field=\"{field}\",code=\"{code}\"");
                writeln!(to, "recents_graphql_errors_total{{{labels}}} {count}")?;
            }
        }
        Ok(())
    }
}

/// Records a completed operation.
pub(super) fn record(operation: CompletedOperation<'_>) {
    STATS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .add(operation);
}

/// Renders all statistics in Prometheus' text format.
pub(crate) fn render() -> String {
    STATS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(name: &str) -> CompletedOperation<'_> {
        CompletedOperation {
            name,
            kind: "query",
            elapsed: Some(Duration::from_millis(3)),
            errors: Vec::new(),
        }
    }

    fn has(stats: &StatsByName, name: &str) -> bool {
        stats.render().contains(&format!(
            "recents_graphql_operations_total{{operation=\"{name}\","
        ))
    }

    #[test]
    fn invented_names_do_not_displace_used_names() {
        let mut stats = StatsByName::default();
        stats.add(operation("Early"));
        for number in 0..1000 {
            stats.add(operation(&format!("N{number}")));
        }
        assert!(has(&stats, "Early"));
        for round in 0..50 {
            stats.add(operation("Late"));
            assert!(has(&stats, "Late"), "{round}");
            // A name that was used twice is not replaced by an invented one.
            for number in 0..(if round > 0 { 300 } else { 0 }) {
                stats.add(operation(&format!("M{round}x{number}")));
            }
        }
        let text = stats.render();
        assert!(
            text.contains("recents_graphql_operation_seconds_count{operation=\"Late\"} 50"),
            "{text}"
        );
        assert_eq!(stats.names.len(), MAX_NAMES);
    }

    #[test]
    fn sums_never_decrease() {
        let mut stats = StatsByName::default();
        for number in 0..1000 {
            let errors = vec![("node".to_owned(), "NOT_FOUND".to_owned())];
            stats.add(CompletedOperation {
                errors,
                ..operation(&format!("N{number}"))
            });
        }
        let sum = |name: &str| -> u64 {
            let text = stats.render();
            let lines = text
                .lines()
                .filter(|line| line.starts_with(name) && !line.contains("le="));
            lines
                .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
                .sum()
        };
        assert_eq!(sum("recents_graphql_operations_total{"), 1000);
        assert_eq!(sum("recents_graphql_errors_total{"), 1000);
        assert_eq!(sum("recents_graphql_operation_seconds_count{"), 1000);
    }

    #[test]
    fn unused_names_are_replaced() {
        let mut stats = StatsByName::default();
        for _ in 0..20 {
            for number in 0..MAX_NAMES {
                stats.add(operation(&format!("Old{number}")));
            }
        }
        for _ in 0..8 * DECAY_INTERVAL {
            stats.add(operation("Now"));
        }
        for number in 0..MAX_NAMES - 1 {
            for _ in 0..2 {
                stats.add(operation(&format!("New{number}")));
            }
        }
        assert!(
            has(&stats, "Now")
                && has(&stats, "New0")
                && has(&stats, "New100")
                && !has(&stats, "Old0")
        );
    }
}
