//! Apicurio Registry, in memory, with Confluent's API.

use std::process::Command;

use serde_json::{Value, json};

use super::process::Child;
use super::{fetch, scratch};

pub struct Registry {
    url: String,
    agent: ureq::Agent,
    process: Child,
}

impl Registry {
    pub fn start() -> Self {
        let dir = scratch::dir("registry");
        let port = scratch::port();
        let mut command = Command::new(fetch::java());
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
        command.arg(format!("-Djava.io.tmpdir={}", dir.display()));
        command.arg("-Dquarkus.http.host=127.0.0.1").arg(format!("-Dquarkus.http.port={port}"));
        command.arg("-jar").arg(fetch::registry()).current_dir(&dir);
        let mut registry = Self {
            url: format!("http://127.0.0.1:{port}/apis/ccompat/v7"),
            agent: ureq::Agent::new_with_config(ureq::config::Config::builder().http_status_as_error(false).build()),
            process: Child::spawn("registry", &command, &dir),
        };
        let subjects = format!("{}/subjects", registry.url);
        let agent = registry.agent.clone();
        registry.process.wait_ready(|| agent.get(&subjects).call().is_ok_and(|it| it.status() == 200));
        registry
    }

    /// The base of Confluent's API: what `registry.url` in the bridge's configuration says.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// For faults: SIGSTOP and SIGCONT. A killed one loses its schemas.
    pub fn process(&self) -> &Child {
        &self.process
    }

    /// `path` starts with a slash and is relative to [`Self::url`]. Status and body, whatever the status.
    pub fn get(&self, path: &str) -> (u16, Value) {
        answer(self.agent.get(self.at(path)).call())
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(self.agent.post(self.at(path)).send_json(body))
    }

    pub fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(self.agent.put(self.at(path)).send_json(body))
    }

    /// Registers `schema` (its JSON text) and returns its id, or status and error where the registry refuses it.
    ///
    /// The same schema with other spaces is another version to Apicurio, unless the request says `?normalize=true`.
    pub fn register(&self, subject: &str, schema: &str) -> Result<u32, (u16, Value)> {
        match self.post(&format!("/subjects/{subject}/versions"), &json!({ "schema": schema })) {
            (200, body) => Ok(u32::try_from(body["id"].as_u64().unwrap()).unwrap()),
            refused => Err(refused),
        }
    }

    /// The schema's JSON text.
    pub fn schema(&self, id: u32) -> String {
        let (status, body) = self.get(&format!("/schemas/ids/{id}"));
        assert_eq!(status, 200, "schema {id}: {body}");
        body["schema"].as_str().unwrap().to_owned()
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut response = result.expect("the registry answers");
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
