//! Whole answers, compared with the files in `tests/it/snapshots`. `scripts/snapshots` writes them.

use serde_json::Value;

/// Compares an answer with the file of this name. All engines must give the same answer, in which
/// nothing may depend on chance: messages come from webhooks, which set their ids and times.
pub fn assert_answer(name: &str, description: &str, answer: &Value) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_description(description);
    let text = serde_json::to_string_pretty(answer).unwrap();
    settings.bind(|| insta::assert_snapshot!(name, text));
}
