//! `alternator-dns status`: all zones at a glance, and whether two servers agree.

mod compare;
mod document;
mod table;

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;

use self::{
    compare::differences,
    document::Document,
    table::{Appearance, render},
};
use super::{Failure, ServerArguments, print};
use crate::{
    admin::{
        client::{AdminUrl, ServerAddress},
        control::ControlError,
    },
    telemetry::wants_color,
};

/// Between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// To the upper left corner, what was there stays until it is overwritten.
const TO_TOP: &str = "\x1b[H";

/// Clears the rest of a line; the rest of the screen.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub server: ServerArguments,
    /// Print the document of /api/zones
    #[arg(long)]
    pub json: bool,
    /// Show it again every second, until ^C
    #[arg(long)]
    pub watch: bool,
    /// Print in what the server differs from the one with this admin interface; exit status 1 if there is any difference
    #[arg(long, value_name = "URL", conflicts_with_all = ["json", "watch"])]
    pub compare: Option<AdminUrl>,
}

/// `alternator-dns status`.
///
/// # Errors
/// No server can be reached, a zone is unanswered, the file is refused, or two servers differ.
pub fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = arguments.server.address();
    runtime.block_on(async {
        if let Some(other) = &arguments.compare {
            return compare(&address, &ServerAddress::Admin(other.clone())).await;
        }
        if arguments.watch {
            return watch(&address, arguments.json).await;
        }
        let (text, document) = read(&address).await?;
        let shown = if arguments.json {
            text
        } else {
            render(&document, Appearance { colors: wants_color(&std::io::stdout()), lines: None })
        };
        print(shown.trim_end())?;
        document.trouble().map_or(Ok(()), |trouble| Err(Failure::Status(trouble)))
    })
}

async fn read(address: &ServerAddress) -> Result<(String, Document), Failure> {
    let text = address.read("/api/zones", &[]).await?;
    let document = Document::parse(&text)
        .map_err(|error| ControlError::Unable(format!("{address} sends no document of zones: {error}")))?;
    Ok((text, document))
}

/// Shows the table until the process is ended. A server that is being restarted is no reason to end.
async fn watch(address: &ServerAddress, json: bool) -> Result<(), Failure> {
    let is_terminal = std::io::stdout().is_terminal();
    if is_terminal && !json {
        print_part("\x1b[2J");
    }
    loop {
        let shown = match read(address).await {
            Ok((text, _)) if json => text,
            Ok((_, document)) => {
                render(&document, Appearance { colors: wants_color(&std::io::stdout()), lines: screen_lines() })
            }
            Err(failure) => format!("{failure}\n"),
        };
        let is_written = match is_terminal && !json {
            true => print_part(&format!("{TO_TOP}{}{CLEAR_BELOW}", shown.replace('\n', &format!("{CLEAR_LINE}\n")))),
            false => print_part(&format!("{}\n", shown.trim_end())),
        };
        if !is_written {
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

async fn compare(address: &ServerAddress, other: &ServerAddress) -> Result<(), Failure> {
    let ((_, here), (_, there)) = tokio::try_join!(read(address), read(other))?;
    let found = differences(&here, &there);
    let mut text = format!("here:  {}\nthere: {other}, {}\n", here.server(), there.server());
    for line in &found {
        text += &format!("{line}\n");
    }
    match found.len() {
        0 => {
            text += &format!(
                "both have the configuration {}, the same drains, and the same answers in all {} zones",
                here.config.hash,
                here.zones.len()
            );
            print(&text)?;
            Ok(())
        }
        count => {
            print(text.trim_end())?;
            let word = if count == 1 { "difference" } else { "differences" };
            Err(Failure::Status(format!("the servers have {count} {word}")))
        }
    }
}

/// The lines of the terminal; `None`: it is none.
fn screen_lines() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0).then_some(usize::from(size.ws_row))
}

/// Prints without a line end. Returns whether it could: the reader of a pipe may be gone.
fn print_part(text: &str) -> bool {
    use std::io::Write as _;
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_ok()
}
