//! The routes: one for each feed, with its compiled schema and, in front of each value, the schema's id in the registry.

use std::collections::BTreeMap;

use super::{Run, StartError};
use crate::{
    admin::LocalSchema,
    config::Config,
    feed::SchemaSource,
    record::{Route, confluent_prefix},
    registry::{Registry, subject},
    schema::Schema,
};

/// One route for each feed, with its schema compiled.
///
/// # Errors
/// Every schema that cannot be used.
pub fn routes(config: &Config) -> Result<Vec<Route>, Vec<String>> {
    let mut faults = Vec::new();
    let routes = config
        .feeds
        .iter()
        .filter_map(|feed| {
            let (text, from) = match &feed.schema {
                SchemaSource::BuiltIn(text) => (Ok((*text).to_owned()), "the built-in schema".to_owned()),
                SchemaSource::File(file) => (std::fs::read_to_string(file), file.display().to_string()),
            };
            let schema = text
                .map_err(|error| error.to_string())
                .and_then(|text| Schema::parse(&text).map_err(|error| error.to_string()));
            schema
                .map_err(|error| faults.push(format!("feeds.{}.schema = \"{from}\": {error}", feed.label)))
                .ok()
                .map(|schema| Route::new(feed, schema))
        })
        .collect();
    if faults.is_empty() { Ok(routes) } else { Err(faults) }
}

/// The routes with their schemas' ids, for a command that writes records as the bridge does.
///
/// # Errors
/// Every schema that cannot be used, or why its id cannot be had.
pub fn routes_with_ids(config: &Config, run: Run) -> Result<Vec<Route>, StartError> {
    let mut routes = routes(config).map_err(StartError)?;
    match (run, &config.registry) {
        (Run::Dev { .. }, _) => drop(number_locally(&mut routes)),
        (Run::Serve, Some(registry)) => {
            let client = Registry::new(registry).map_err(|error| error.to_string())?;
            fetch_ids(&mut routes, &client, &pinned(config), registry.auto_register)?;
        }
        (Run::Serve, None) => {}
    }
    Ok(routes)
}

/// The ids that the configuration fixes, by feed.
pub(super) fn pinned(config: &Config) -> BTreeMap<String, u32> {
    config.feeds.iter().filter_map(|feed| Some((feed.label.clone(), feed.schema_id?))).collect()
}

/// Numbers the schemas from 1, for an instance without a registry, and tells the admin port about them.
pub(super) fn number_locally(routes: &mut [Route]) -> Vec<LocalSchema> {
    let mut schemas = Vec::new();
    for route in routes {
        for target in &mut route.topics {
            let id = schemas.len() as u32 + 1;
            target.prefix = confluent_prefix(id);
            schemas.push(LocalSchema { id, subject: subject(&target.topic), text: route.schema.text.clone() });
        }
    }
    schemas
}

/// Asks the registry for the id of each schema that the configuration does not pin.
///
/// # Errors
/// The registry does not answer, or does not have a schema and may not be given it.
pub(super) fn fetch_ids(
    routes: &mut [Route],
    registry: &Registry,
    pinned: &BTreeMap<String, u32>,
    auto_register: bool,
) -> Result<(), String> {
    for route in routes {
        for target in &mut route.topics {
            let id = match pinned.get(&route.label) {
                Some(id) => *id,
                None => fetch_id(registry, &subject(&target.topic), &route.schema.text, auto_register)?,
            };
            target.prefix = confluent_prefix(id);
        }
    }
    Ok(())
}

fn fetch_id(registry: &Registry, subject: &str, schema: &str, auto_register: bool) -> Result<u32, String> {
    match registry.find(subject, schema).map_err(|error| error.to_string())? {
        Some(id) => Ok(id),
        None if auto_register => registry.register(subject, schema).map_err(|error| error.to_string()),
        None => Err(format!(
            "subject {subject} does not have this bridge's schema: run `causeway schemas --apply`, or set registry.auto_register = true"
        )),
    }
}
