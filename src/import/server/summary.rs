//! The result of an import.

/// The result of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Number of requested users.
    pub users: u64,
    /// Users that an earlier import completed: only missing messages were added.
    pub imported_before: u64,
    /// Users without conversations there.
    pub without_conversations: u64,
    /// Conversations of all users.
    pub conversations: u64,
    /// Conversations that are not listed there, and were therefore deleted here.
    pub deleted: u64,
    /// Conversations, and users, that the server refused to return.
    pub failed: u64,
    /// Groups of `--groups`.
    pub groups: u64,
    /// Groups of `--groups` that no user has a conversation of.
    pub groups_without_users: u64,
    /// Messages stored by this import.
    pub stored: u64,
    /// Messages that were stored before.
    pub repeated: u64,
    /// Messages and conversations that are invalid.
    pub refused: u64,
    /// Messages whose seq or id is taken by another message.
    pub conflicts: u64,
    /// True for a v3.
    pub is_v3: bool,
}

impl ImportSummary {
    pub(super) fn add(&mut self, other: &Self) {
        self.users += other.users;
        self.imported_before += other.imported_before;
        self.without_conversations += other.without_conversations;
        self.conversations += other.conversations;
        self.deleted += other.deleted;
        self.failed += other.failed;
        self.groups += other.groups;
        self.groups_without_users += other.groups_without_users;
        self.stored += other.stored;
        self.repeated += other.repeated;
        self.refused += other.refused;
        self.conflicts += other.conflicts;
    }
}

impl std::fmt::Display for ImportSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} users: {} imported before, {} without conversations; {} conversations, {} deleted there",
            self.users,
            self.imported_before,
            self.without_conversations,
            self.conversations,
            self.deleted
        )?;
        if self.groups > 0 {
            writeln!(
                f,
                "{} groups: {} without a user that lists them",
                self.groups, self.groups_without_users
            )?;
        }
        write!(
            f,
            "messages: {} stored, {} already there, {} refused, {} in conflict",
            self.stored, self.repeated, self.refused, self.conflicts
        )?;
        if self.failed > 0 {
            write!(
                f,
                "\n{} conversations failed: the log has the reasons, and the next import tries them again",
                self.failed
            )?;
        }
        if self.is_v3 {
            write!(
                f,
                "\nfrom v3: it does not say which messages had a red dot, so all have one; times are those of the message ids"
            )?;
        }
        Ok(())
    }
}
