//! `recents schema`

use crate::graphql;

pub(crate) fn run() -> anyhow::Result<()> {
    super::print(graphql::sdl().trim_end())
}
