//! `recents serve`

use crate::config::Settings;
use crate::server;

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Address to listen on; overrides the file and the environment
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

pub(crate) async fn run(mut settings: Settings, args: Args) -> anyhow::Result<()> {
    if let Some(listen) = args.listen {
        settings.server.listen = listen;
    }
    server::run(settings).await
}
