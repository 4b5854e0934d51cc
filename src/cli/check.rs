//! `causeway check`: is everything as the promise needs it?

mod brokers;
mod budget;
mod sender;
mod token;

use std::path::PathBuf;

use budget::{BudgetLines, rate};
use console::style;
use serde_json::json;
use time::OffsetDateTime;

use super::{
    Exit, Failure,
    findings::{Findings, Level, say},
    runtime, schemas,
    target::{Target, TargetArgs},
    topics::{self, Demands},
};
use crate::{
    config::{self, ClientName, Config, Faults},
    ingress,
    kafka::{Connection, admin::Admin},
    serve::routes,
    tls::{Expiry, ServerTls},
};

/// Check configuration, certificates, brokers, topics and schemas: what is found, and what to do.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  causeway check --config causeway.toml   the configuration as it is understood, and every finding
  causeway check --quiet --rate 200       the findings, and what 200 events/s mean in an outage
  causeway check --sender asapp.crt       would a sender with this certificate be let in?
  causeway check --json --strict | jq '.findings[] | select(.level != \"ok\")'

It changes nothing, and may run beside the bridge.
Exit codes: 0 no error (with --strict: no warning either); 3 otherwise.")]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Do not print the configuration.
    #[arg(long, short)]
    quiet: bool,
    /// Events per second, for the arithmetic of outages.
    #[arg(long, default_value_t = 1000.0, value_name = "N", value_parser = rate)]
    rate: f64,
    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Only judge this certificate (PEM, intermediates after it), as if a sender presented it.
    #[arg(long, value_name = "FILE")]
    sender: Option<PathBuf>,
    /// Print all keys of the configuration, as Markdown, and check nothing.
    #[arg(long)]
    reference: bool,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    if args.reference {
        say(config::reference().trim_end())?;
        return Ok(Exit::Done);
    }
    let mut findings = Findings::default();
    let target = match args.target.read(&[])? {
        Ok(target) => target,
        Err(faults) => {
            add_faults(&faults, &mut findings);
            return args.tell(None, &findings);
        }
    };
    findings.ok("configuration", "every key is known, no limit contradicts another");
    look_at_config(&target, &mut findings);
    look_at_certificates(&target.config, &mut findings);
    if let Some(file) = &args.sender {
        sender::look_at_sender(file, &target.config, &mut findings);
        return args.tell(None, &findings);
    }
    let connection = Connection::new(&target.config);
    let has_token = token::look(&connection, &mut findings);
    match Admin::new(&connection) {
        // No broker answers a client without a token.
        Ok(_) if !has_token => {}
        Ok(admin) => look_at_brokers(&admin, &target, &mut findings)?,
        Err(error) => findings.add(
            Level::Error,
            "kafka.client",
            error.to_string(),
            "correct the property that it names, or its file: PEM where it is no keystore",
        ),
    }
    let budget = BudgetLines::of(&target.config, args.rate);
    budget.judge(&mut findings);
    look_at_schemas(&target, &mut findings);
    args.tell(Some((&target, &budget)), &findings)
}

impl Args {
    /// Prints the result, and returns the exit code.
    fn tell(&self, known: Option<(&Target, &BudgetLines)>, findings: &Findings) -> Result<Exit, Failure> {
        if self.json {
            let budget = known.map(|(_, budget)| budget.json());
            let (errors, warnings) = (findings.count(Level::Error), findings.count(Level::Warning));
            say(format_args!(
                "{:#}",
                json!({ "budget": budget, "findings": findings, "errors": errors, "warnings": warnings })
            ))?;
        } else {
            if let Some((target, budget)) = known {
                if !self.quiet {
                    say(format_args!("{}", style("# The configuration as it is understood").bold()))?;
                    say(target.config.resolved())?;
                }
                say(format_args!("{}\n{}", style("# What follows from it").bold(), budget.text()))?;
            }
            say(format_args!("{}\n{}\n{}", style("# Findings").bold(), findings.text(), findings.summary()))?;
        }
        Ok(findings.exit(if self.strict { Level::Warning } else { Level::Error }))
    }
}

fn add_faults(faults: &Faults, findings: &mut Findings) {
    for fault in faults.iter() {
        let what = if fault.key.is_empty() { fault.what.clone() } else { format!("{} {}", fault.key, fault.what) };
        findings.add(Level::Error, &fault.origin.to_string(), what, fault.remedy.clone());
    }
}

/// Notes settings that are allowed, but that the user should know of.
fn look_at_config(target: &Target, findings: &mut Findings) {
    let config = &target.config;
    if config.ingress.tls.client_names.contains(&ClientName::Any) {
        findings.note("ingress.tls", "client_names = [\"*\"]: every sender with a certificate of that CA may post");
    }
    if config.ingress.tls.tls_1_2 {
        findings.note("ingress.tls", "min_version = \"1.2\": ASAPP needs 1.3 only");
    }
    let protocol = config.kafka.client.get("security.protocol").map_or("plaintext", String::as_str);
    if target.dev.is_none() && protocol.to_ascii_lowercase().ends_with("plaintext") {
        findings.note("kafka", format!("security.protocol is {protocol}: events go to the brokers unencrypted"));
    }
    if let Some(config::OAuth { source: config::TokenSource::Endpoint(endpoint), .. }) = &config.kafka.oauth
        && endpoint.url.starts_with("http://")
    {
        findings.note("token", "the token server's address is http://: the client's secret goes there unencrypted");
    }
    if config.registry.as_ref().is_some_and(|registry| registry.auto_register) {
        findings.note("registry", "auto_register = true: every instance registers the schemas that it brings");
    }
}

const DAY_SECONDS: i64 = 86_400;
const EXPIRES_SOON_DAYS: i64 = 30;

fn look_at_certificates(config: &Config, findings: &mut Findings) {
    match ServerTls::load(&ingress::tls(config)) {
        Ok((_, expiries)) => {
            findings
                .ok("private key", format!("{} belongs to the certificate", config.ingress.tls.private_key.display()));
            let now = OffsetDateTime::now_utc().unix_timestamp();
            expiries.iter().for_each(|expiry| judge_expiry(expiry, now, findings));
        }
        Err(faults) => {
            for fault in faults {
                findings.add(Level::Error, &fault.key, format!("\"{}\": {}", fault.file, fault.reason), fault.remedy);
            }
        }
    }
}

fn judge_expiry(expiry: &Expiry, now: i64, findings: &mut Findings) {
    let date = OffsetDateTime::from_unix_timestamp(expiry.at)
        .map_or_else(|_| "the end of time".to_owned(), |end| end.date().to_string());
    let days = (expiry.at - now).div_euclid(DAY_SECONDS);
    let (file, over) = (&expiry.file, expiry.at <= now);
    if expiry.what == "crl" {
        let what = format!("{file}: its next update {} {date}", if over { "was due" } else { "is due" });
        return match over {
            true => findings.add(
                Level::Warning,
                "crl",
                format!("{what}: what was revoked since is not refused"),
                "fetch the CA's current CRL",
            ),
            false => findings.ok("crl", what),
        };
    }
    let (about, remedy, level, then) = match expiry.what {
        "server" => (
            "certificate",
            "have a new one issued, and give it as ingress.tls.certificate with its key",
            Level::Error,
            "handshakes fail, unless it is an intermediate that senders do not need",
        ),
        // rustls takes a trust anchor as a name and a key, and ignores the end of its validity.
        _ => (
            "client CA",
            "ask that CA's operator for the new one, and keep both in ingress.tls.client_ca until the old one is not used any more",
            Level::Warning,
            "what it signed is let in until that ends",
        ),
    };
    if over {
        findings.add(level, about, format!("{file} expired {date}: {then}"), remedy);
    } else if days < EXPIRES_SOON_DAYS {
        findings.add(Level::Warning, about, format!("{file} expires {date}, in {days} days"), remedy);
    } else {
        findings.ok(about, format!("{file} is valid until {date}, {days} days"));
    }
}

/// Asks the cluster about its brokers and our topics.
fn look_at_brokers(admin: &Admin, target: &Target, findings: &mut Findings) -> Result<(), Failure> {
    let config = &target.config;
    let demands = Demands::of(target);
    let mut survey = match admin.survey(&config.topics()) {
        Ok(survey) => survey,
        Err(error) => {
            let what = format!("none of {} answers: {error}", config.kafka.brokers.join(", "));
            findings.add(Level::Error, "brokers", what, "is kafka.brokers right, does [kafka.client] fit the listener (security.protocol), and is the cluster up?");
            return Ok(());
        }
    };
    if demands.embedded {
        findings.note("brokers", "the embedded broker of `causeway dev` keeps records in memory, without replicas and settings: for trying things");
    } else {
        runtime()?.block_on(admin.describe(&mut survey));
    }
    brokers::look(config, &survey, findings);
    for topic in config.topics() {
        findings.append(topics::judge(&topic, &survey, &demands));
    }
    Ok(())
}

fn look_at_schemas(target: &Target, findings: &mut Findings) {
    // `serve` reads these files whether or not a registry is configured.
    if let Err(faults) = routes(&target.config) {
        for fault in faults {
            findings.add(
                Level::Error,
                "schema",
                fault,
                "give a readable .avsc with a record that the bridge can write",
            );
        }
        return;
    }
    let Some(registry) = &target.config.registry else {
        return findings.note("registry", "there is none: values are in Avro's single-object encoding");
    };
    match schemas::survey(target) {
        Ok(subjects) => {
            findings.ok("registry", format!("{} answers", registry.urls.join(", ")));
            for subject in &subjects {
                findings.append(subject.judge(target));
            }
        }
        Err(failure) => {
            let (what, remedy) = failure.message.split_once("\n  ").unwrap_or((&failure.message, "see registry.url"));
            findings.add(Level::Error, "registry", what, remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_judged_by_what_ends() {
        let now = 1_700_000_000;
        for (what, at, level, words) in [
            ("server", now - 1, Level::Error, "certificate  a.pem expired 2023-11-14"),
            ("server", now + 29 * DAY_SECONDS, Level::Warning, "in 29 days"),
            ("client_ca", now - 1, Level::Warning, "expired 2023-11-14: what it signed is let in"),
            ("client_ca", now + 30 * DAY_SECONDS, Level::Ok, "client CA  a.pem is valid until"),
            ("crl", now - 1, Level::Warning, "was due 2023-11-14: what was revoked since"),
            ("crl", now + 1, Level::Ok, "is due"),
        ] {
            let mut findings = Findings::default();
            judge_expiry(&Expiry { what, file: "a.pem".to_owned(), at }, now, &mut findings);
            assert_eq!(findings.worst(), level, "{what}");
            assert!(findings.text().contains(words), "{}", findings.text());
        }
    }
}
