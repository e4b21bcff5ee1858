//! Figures of operations by their names, which are the clients' to invent: so many names have
//! figures at once. A new name takes the place of the one that was used least, and of those the
//! newest: who invents names loses their own first, and a name that is used stays. What is
//! forgotten goes on under "other", so that sums never fall.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

pub(super) const OTHER: &str = "other";
/// Names that have figures of their own.
const NAMES: usize = 200;
/// After so many operations all uses count half, so that names that nobody uses any more give way.
const HALVED_AFTER: u64 = 10_000;
const BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

static FIGURES: LazyLock<Mutex<Figures>> = LazyLock::new(Mutex::default);

/// An operation that was answered.
pub(super) struct Answered<'a> {
    pub(super) name: &'a str,
    pub(super) kind: &'static str,
    /// How long it took; of subscriptions nothing.
    pub(super) elapsed: Option<Duration>,
    /// The field and the code of each error.
    pub(super) errors: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Figures {
    names: HashMap<String, Figure>,
    other: Figure,
    operations: u64,
}

#[derive(Clone, Debug, Default)]
struct Figure {
    uses: u64,
    /// When it came, by the number of operations.
    added: u64,
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
    errors: BTreeMap<(String, String), u64>,
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Figure {
    fn add(&mut self, answered: Answered<'_>) {
        self.uses += 1;
        let outcome = if answered.errors.is_empty() {
            "ok"
        } else {
            "errors"
        };
        *self.outcomes.entry((answered.kind, outcome)).or_default() += 1;
        for error in answered.errors {
            *self.errors.entry(error).or_default() += 1;
        }
        if let Some(seconds) = answered.elapsed.map(|elapsed| elapsed.as_secs_f64()) {
            self.count += 1;
            self.seconds += seconds;
            for (bucket, _) in self
                .buckets
                .iter_mut()
                .zip(BUCKETS)
                .filter(|(_, most)| seconds <= *most)
            {
                *bucket += 1;
            }
        }
    }

    fn take_over(&mut self, gone: Self) {
        for (outcome, count) in gone.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        for (error, count) in gone.errors {
            *self.errors.entry(error).or_default() += count;
        }
        for (bucket, count) in self.buckets.iter_mut().zip(gone.buckets) {
            *bucket += count;
        }
        self.count += gone.count;
        self.seconds += gone.seconds;
    }
}

impl Figures {
    fn add(&mut self, answered: Answered<'_>) {
        self.operations += 1;
        if self.operations.is_multiple_of(HALVED_AFTER) {
            self.names.values_mut().for_each(|figure| figure.uses /= 2);
        }
        if answered.name == OTHER {
            return self.other.add(answered);
        }
        if !self.names.contains_key(answered.name) {
            if self.names.len() >= NAMES {
                self.forget_one();
            }
            self.names.insert(
                answered.name.to_owned(),
                Figure {
                    added: self.operations,
                    ..Figure::default()
                },
            );
        }
        if let Some(figure) = self.names.get_mut(answered.name) {
            figure.add(answered);
        }
    }

    fn forget_one(&mut self) {
        let least = self
            .names
            .iter()
            .min_by_key(|(_, figure)| (figure.uses, std::cmp::Reverse(figure.added)));
        if let Some(gone) = least
            .map(|(name, _)| name.clone())
            .and_then(|name| self.names.remove(&name))
        {
            self.other.take_over(gone);
        }
    }

    fn render(&self) -> String {
        let mut all: Vec<(&str, &Figure)> = self
            .names
            .iter()
            .map(|(name, figure)| (name.as_str(), figure))
            .collect();
        all.push((OTHER, &self.other));
        all.sort_unstable_by_key(|(name, _)| *name);
        let mut text = String::new();
        // Writing into memory does not fail.
        let _ = self.write(&all, &mut text);
        text
    }

    fn write(&self, all: &[(&str, &Figure)], to: &mut String) -> std::fmt::Result {
        writeln!(
            to,
            "# HELP recents_graphql_operations_total Operations by name, kind and outcome."
        )?;
        writeln!(to, "# TYPE recents_graphql_operations_total counter")?;
        for (name, figure) in all {
            for ((kind, outcome), count) in &figure.outcomes {
                let labels = format!("operation=\"{name}\",kind=\"{kind}\",outcome=\"{outcome}\"");
                writeln!(to, "recents_graphql_operations_total{{{labels}}} {count}")?;
            }
        }
        writeln!(
            to,
            "# HELP recents_graphql_operation_seconds Time of queries and mutations by name."
        )?;
        writeln!(to, "# TYPE recents_graphql_operation_seconds histogram")?;
        for (name, figure) in all.iter().filter(|(_, figure)| figure.count > 0) {
            let label = format!("operation=\"{name}\"");
            for (most, count) in BUCKETS.iter().zip(figure.buckets) {
                writeln!(
                    to,
                    "recents_graphql_operation_seconds_bucket{{{label},le=\"{most}\"}} {count}"
                )?;
            }
            writeln!(
                to,
                "recents_graphql_operation_seconds_bucket{{{label},le=\"+Inf\"}} {}",
                figure.count
            )?;
            writeln!(
                to,
                "recents_graphql_operation_seconds_sum{{{label}}} {}",
                figure.seconds
            )?;
            writeln!(
                to,
                "recents_graphql_operation_seconds_count{{{label}}} {}",
                figure.count
            )?;
        }
        writeln!(
            to,
            "# HELP recents_graphql_errors_total Errors by operation, field of its root and code."
        )?;
        writeln!(to, "# TYPE recents_graphql_errors_total counter")?;
        for (name, figure) in all {
            for ((field, code), count) in &figure.errors {
                let labels = format!("operation=\"{name}\",field=\"{field}\",code=\"{code}\"");
                writeln!(to, "recents_graphql_errors_total{{{labels}}} {count}")?;
            }
        }
        Ok(())
    }
}

/// An operation was answered.
pub(super) fn count(answered: Answered<'_>) {
    FIGURES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .add(answered);
}

/// All figures in Prometheus' text format.
pub(crate) fn render() -> String {
    FIGURES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(name: &str) -> Answered<'_> {
        Answered {
            name,
            kind: "query",
            elapsed: Some(Duration::from_millis(3)),
            errors: Vec::new(),
        }
    }

    fn has(figures: &Figures, name: &str) -> bool {
        figures.render().contains(&format!(
            "recents_graphql_operations_total{{operation=\"{name}\","
        ))
    }

    #[test]
    fn invented_names_keep_nobody_else_from_having_figures() {
        let mut figures = Figures::default();
        figures.add(answered("Early"));
        for number in 0..1000 {
            figures.add(answered(&format!("N{number}")));
        }
        assert!(has(&figures, "Early"));
        for round in 0..50 {
            figures.add(answered("Late"));
            assert!(has(&figures, "Late"), "{round}");
            // One that was used twice is not what an invented one takes the place of.
            for number in 0..(if round > 0 { 300 } else { 0 }) {
                figures.add(answered(&format!("M{round}x{number}")));
            }
        }
        let text = figures.render();
        assert!(
            text.contains("recents_graphql_operation_seconds_count{operation=\"Late\"} 50"),
            "{text}"
        );
        assert_eq!(figures.names.len(), NAMES);
    }

    #[test]
    fn sums_never_fall() {
        let mut figures = Figures::default();
        for number in 0..1000 {
            let errors = vec![("node".to_owned(), "NOT_FOUND".to_owned())];
            figures.add(Answered {
                errors,
                ..answered(&format!("N{number}"))
            });
        }
        let sum = |name: &str| -> u64 {
            let text = figures.render();
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
    fn names_that_nobody_uses_any_more_give_way() {
        let mut figures = Figures::default();
        for _ in 0..20 {
            for number in 0..NAMES {
                figures.add(answered(&format!("Old{number}")));
            }
        }
        for _ in 0..8 * HALVED_AFTER {
            figures.add(answered("Now"));
        }
        for number in 0..NAMES - 1 {
            for _ in 0..2 {
                figures.add(answered(&format!("New{number}")));
            }
        }
        assert!(
            has(&figures, "Now")
                && has(&figures, "New0")
                && has(&figures, "New100")
                && !has(&figures, "Old0")
        );
    }
}
