//! The cost of a part of a document.

/// The cost of a part of a document. A fragment counts as often as it is spread.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Number of fields, spreads, directives, arguments and variables.
    pub(super) fields: usize,
    /// Nesting depth; every field, spread and inline fragment is a level.
    pub(super) depth: usize,
    /// Bytes of variables: the value of a variable is copied at each use.
    pub(super) copied: usize,
    /// Number of values in the answer (fields times the entries of the lists around them), plus the
    /// rows read for them, plus the entries of lists in arguments.
    pub(super) complexity: usize,
    pub(super) aliases: usize,
    pub(super) directives: usize,
    /// Number of root fields of the largest operation.
    pub(super) root_fields: usize,
    /// Number of variables that operations define.
    pub(super) variables: usize,
    /// Largest number of arguments on one field or directive.
    pub(super) arguments: usize,
    /// True if the document reads the schema.
    pub(super) introspects: bool,
    /// Number of fields on the top level of a selection.
    pub(super) width: usize,
}

impl Cost {
    pub(super) const ONE: Self = Self {
        fields: 1,
        ..Self::ZERO
    };
    const ZERO: Self = Self {
        fields: 0,
        depth: 0,
        copied: 0,
        complexity: 0,
        aliases: 0,
        directives: 0,
        root_fields: 0,
        variables: 0,
        arguments: 0,
        introspects: false,
        width: 0,
    };

    /// Combines the costs of two parts side by side.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            fields: self.fields.saturating_add(other.fields),
            depth: self.depth.max(other.depth),
            copied: self.copied.saturating_add(other.copied),
            complexity: self.complexity.saturating_add(other.complexity),
            aliases: self.aliases.saturating_add(other.aliases),
            directives: self.directives.saturating_add(other.directives),
            root_fields: self.root_fields.max(other.root_fields),
            variables: self.variables.saturating_add(other.variables),
            arguments: self.arguments.max(other.arguments),
            introspects: self.introspects || other.introspects,
            width: self.width.saturating_add(other.width),
        }
    }
}
