//! The result of a comparison.

use std::collections::BTreeMap;

/// Maximum number of differences that are described.
const MAX_DESCRIBED: usize = 50;

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Number of compared users.
    pub users: u64,
    /// Number of conversations there.
    pub conversations: u64,
    /// Number of messages there, each counted once.
    pub messages: u64,
    /// Number of differences by kind.
    pub differences: BTreeMap<String, u64>,
    /// Number of differences by kind that follow from the different rules of the servers.
    pub expected: BTreeMap<String, u64>,
    /// Descriptions of the first differences.
    pub named: Vec<String>,
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |counts: &BTreeMap<String, u64>| {
            let counts: Vec<String> = counts
                .iter()
                .map(|(kind, count)| format!("{kind} {count}"))
                .collect();
            if counts.is_empty() {
                "nothing".to_owned()
            } else {
                counts.join(", ")
            }
        };
        for line in &self.named {
            writeln!(f, "{line}")?;
        }
        let described = self.named.len() as u64;
        let found: u64 = self.differences.values().sum();
        if found > described {
            writeln!(f, "… and {} more", found - described)?;
        }
        writeln!(
            f,
            "{} users, {} conversations, {} messages compared",
            self.users, self.conversations, self.messages
        )?;
        writeln!(f, "different by rule: {}", list(&self.expected))?;
        write!(f, "different: {}", list(&self.differences))
    }
}

impl Comparison {
    /// Counts a difference.
    pub(super) fn record(&mut self, kind: &str, text: impl FnOnce() -> String) {
        self.record_many(kind, 1, text);
    }

    /// Counts several differences that have one description.
    pub(super) fn record_many(&mut self, kind: &str, count: u64, text: impl FnOnce() -> String) {
        *self.differences.entry(kind.to_owned()).or_default() += count;
        if self.named.len() < MAX_DESCRIBED {
            self.named.push(text());
        }
    }

    /// Counts differences that follow from the rules.
    pub(super) fn expect(&mut self, kind: &str, count: usize) {
        if count > 0 {
            *self.expected.entry(kind.to_owned()).or_default() += count as u64;
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.users += other.users;
        self.conversations += other.conversations;
        self.messages += other.messages;
        for (kind, count) in other.differences {
            *self.differences.entry(kind).or_default() += count;
        }
        for (kind, count) in other.expected {
            *self.expected.entry(kind).or_default() += count;
        }
        let free = MAX_DESCRIBED - self.named.len();
        self.named.extend(other.named.into_iter().take(free));
    }
}
