//! `alternator-dns plan`: what a reload of a file would change, without changing anything.

mod differences;
mod effects;
mod text;
mod views;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::Args;

use self::differences::{PlannedChange, ReloadPlan};
use super::{
    Failure, SocketArguments,
    check::{self, STDIN_ARGUMENT},
    included, print,
};
use crate::{
    admin::{
        client::ServerAddress,
        control::ControlError,
        running::{RunningConfiguration, RunningFile, running_configuration, running_zone},
    },
    config::{Config, RawFile},
    table::{Knowledge, ZoneDrains},
    types::ZoneName,
};

/// Flags of `plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The file that would be reloaded; "-" reads standard input [default: the file of the running server]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub socket: SocketArguments,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// `alternator-dns plan`.
///
/// # Errors
/// No server can be reached, the file has errors, or a reload would change something.
pub fn plan(arguments: &PlanArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = ServerAddress::Socket(arguments.socket.path());
    let running = runtime.block_on(running_configuration(&socket))?;
    let path = arguments.file.as_ref().unwrap_or(&running.server.file);
    if let Some(main) = main_file(path, &running.server.file) {
        return Err(Failure::Included { path: path.clone(), main });
    }
    let files = check::read_regular_files(path)?;
    let name = if path.as_os_str() == STDIN_ARGUMENT { Path::new(check::STDIN_NAME) } else { path };
    let wanted = files.parse()?;
    let in_force = in_force(&running)?;
    let mut plan = ReloadPlan::between(&in_force, &wanted);
    let known = runtime.block_on(known(&socket, &plan))?;
    add_effects(&mut plan, (&in_force, &wanted), &known);
    plan.warnings.extend(check::warnings(&wanted, runtime));
    plan.server = running.server.clone();
    plan.file = name.to_owned();
    plan.older_is_served = running.error.is_some();
    let shown = if arguments.json {
        // Writing fails only for a path that is not UTF-8.
        serde_json::to_string(&plan)
            .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
    } else {
        text::render(&plan)
    };
    print(shown.trim_end())?;
    match plan.summary() {
        None => Ok(()),
        Some(summary) => Err(Failure::Planned(summary)),
    }
}

/// The file that includes the planned one: the running server's, or one that is found beside it.
fn main_file(path: &Path, of_server: &Path) -> Option<PathBuf> {
    if path.as_os_str() == STDIN_ARGUMENT {
        return None;
    }
    let directory = included::real_directory(path)?;
    let name = path.file_name()?.to_str()?;
    let is_other = fs::canonicalize(of_server).is_ok_and(|main| main != directory.join(name));
    let by_server = is_other && included::includes(of_server, &directory, name);
    if by_server { Some(of_server.to_owned()) } else { included::main_file_of(path) }
}

/// What the running server knows of a zone.
struct KnownZone {
    knowledge: Knowledge,
    drains: ZoneDrains,
}

/// Adds what follows for the answers, from what the server knows of each zone.
fn add_effects(plan: &mut ReloadPlan, configs: (&Config, &Config), known: &BTreeMap<ZoneName, KnownZone>) {
    for zone in &mut plan.zones {
        zone.effects = effects::of_zone(&zone.name, configs, known.get(&zone.name));
    }
    for section in &mut plan.sections {
        section.effects = effects::of_section(section, configs);
    }
    plan.warnings.extend(effects::warnings(configs.0, configs.1));
}

/// What the server has in force. The version of the command may be another one than the server's.
fn in_force(running: &RunningConfiguration) -> Result<Config, ControlError> {
    let unable = |why: String| ControlError::Unable(format!("cannot read the configuration in force: {why}"));
    let file = |file: &RunningFile| RawFile { path: file.path.clone(), octets: file.text.as_bytes().into() };
    let files: Vec<_> = running.files.iter().map(file).collect();
    Config::parse_files(&files).map_err(|error| unable(error.to_string()))
}

/// What the server knows of the zones that would change or go. One that has gone meanwhile is left out.
async fn known(socket: &ServerAddress, plan: &ReloadPlan) -> Result<BTreeMap<ZoneName, KnownZone>, ControlError> {
    let mut known = BTreeMap::new();
    for zone in plan.zones.iter().filter(|zone| zone.change != PlannedChange::Added) {
        match running_zone(socket, &zone.name).await {
            Ok(running) => {
                let drains = running.drains();
                known.insert(zone.name.clone(), KnownZone { knowledge: running.knowledge(), drains });
            }
            Err(ControlError::Unable(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}
