//! `causeway schemas`: the schemas that the bridge writes with, beside those that the registry has.

mod compatibility;
mod difference;
mod subject;

use serde_json::{Value as Json, json};
use subject::{EVOLVE, State, TITLES, unanswered};
pub use subject::{Subject, survey};

use super::{
    Exit, Failure,
    findings::{Findings, Level, say, table},
    target::{Target, TargetArgs},
};
use crate::{
    config::Config,
    registry::{COMPATIBILITY, Registry, RegistryError},
    serve::routes,
};

/// Show the bridge's schemas beside those of the registry; --apply registers the missing ones.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  causeway schemas --config causeway.toml            which subject has which schema
  causeway schemas --config causeway.toml --apply    register what is missing, under FULL_TRANSITIVE
  causeway schemas --print journey > journey.avsc    a feed's schema, docs included

Fingerprints are CRC-64-AVRO in hexadecimal, byte by byte as in the single-object encoding.
Exit codes: 0 all is there; 1 the registry does not answer, or refuses; 3 a schema is missing
(unless the bridge registers it: registry.auto_register) or not compatible.")]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Register what the registry does not have.
    #[arg(long)]
    apply: bool,
    /// Print the schema of this feed (.avsc) and nothing else.
    #[arg(long, value_name = "FEED", conflicts_with_all = ["apply", "json"])]
    print: Option<String>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let target = args.target.load(&[])?;
    if let Some(label) = &args.print {
        return print(label, &target.config);
    }
    let mut subjects = survey(&target)?;
    let mut applied = Vec::new();
    if args.apply
        && target.dev.is_none()
        && let Some(registry) = open(&target.config)?
    {
        applied = apply(&registry, &subjects)?;
        subjects = survey(&target)?;
    }
    let mut findings = Findings::default();
    for subject in &subjects {
        findings.append(subject.judge(&target));
    }
    if args.json {
        let shown: Vec<Json> = subjects.iter().map(Subject::json).collect();
        let registry = target.config.registry.as_ref().map(|registry| registry.urls.join(", "));
        say(format_args!(
            "{:#}",
            json!({ "registry": registry, "subjects": shown, "applied": applied, "findings": findings })
        ))?;
    } else {
        say(text(&subjects, &applied, &findings, &target, args.apply).trim_end())?;
    }
    Ok(findings.exit(Level::Error))
}

fn print(label: &str, config: &Config) -> Result<Exit, Failure> {
    let routes = routes(config).map_err(|faults| Failure::findings(faults.join("\n")))?;
    let Some(route) = routes.iter().find(|route| route.label == label) else {
        return Err(Failure::no_feed("--print", label, config));
    };
    say(route.schema.text.trim_end())?;
    Ok(Exit::Done)
}

/// The registry's client, if a registry is configured.
///
/// # Errors
/// Its CA file cannot be used.
pub fn open(config: &Config) -> Result<Option<Registry>, Failure> {
    config.registry.as_ref().map(Registry::new).transpose().map_err(unanswered)
}

/// Registers the missing schemas, and returns a line for each.
fn apply(registry: &Registry, subjects: &[Subject]) -> Result<Vec<String>, Failure> {
    let mut applied = Vec::new();
    for wanted in subjects {
        let level_right = wanted.compatibility.as_deref() == Some(COMPATIBILITY);
        match &wanted.state {
            State::Registered { .. } if level_right => continue,
            State::NoRegistry | State::Pinned { .. } => continue,
            State::Registered { .. } | State::Empty | State::Others { .. } => {}
        }
        let id = registry
            .register(&wanted.subject, &wanted.schema.text)
            .map_err(|error| not_taken(&error, wanted, &applied))?;
        applied.push(format!("{}: id {id}, {COMPATIBILITY}", wanted.subject));
    }
    Ok(applied)
}

fn not_taken(error: &RegistryError, wanted: &Subject, applied: &[String]) -> Failure {
    let mut message = format!("{}: {error}", wanted.subject);
    match (&wanted.state, error) {
        (State::Others { newest, incompatible: Some(why) }, RegistryError::Refused { .. }) => {
            message.push_str(&format!(
                "\n  against version {}: {why}\n  {}",
                newest.version,
                EVOLVE.replace('\n', "\n  ")
            ));
        }
        (_, RegistryError::Refused { status: 409, .. }) => {
            message.push_str(&format!(
                "\n  it is compatible with the newest version, not with an older one\n  {}",
                EVOLVE.replace('\n', "\n  ")
            ));
        }
        (_, RegistryError::Refused { status: 401 | 403, .. }) => {
            message.push_str("\n  registry.user may not register schemas or set a subject's compatibility");
        }
        _ => {}
    }
    if !applied.is_empty() {
        message.push_str(&format!("\n  registered before that: {}", applied.join("; ")));
    }
    Failure::new(message)
}

fn text(subjects: &[Subject], applied: &[String], findings: &Findings, target: &Target, apply: bool) -> String {
    let mut text = table(&TITLES, &subjects.iter().map(Subject::row).collect::<Vec<_>>());
    for done in applied {
        text.push_str(&format!("\nRegistered {done}"));
    }
    if !applied.is_empty() {
        text.push('\n');
    }
    if target.config.registry.is_none() {
        text.push_str("\nThere is no [registry]: values are in Avro's single-object encoding, C3 01 and the fingerprint before each.\n");
    } else if target.dev.is_some() {
        text.push_str("\n`causeway dev` serves these schemas itself, on its admin port: there is nothing to apply.\n");
    } else if apply && applied.is_empty() {
        text.push_str("\nNothing to apply.\n");
    }
    let notable = findings.notable();
    if !notable.is_empty() {
        text.push('\n');
        text.push_str(&notable.text());
    }
    text
}
