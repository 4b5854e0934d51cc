//! Debian's Prometheus, which scrapes one bridge each second.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value as Json;

use crate::support::{process::Child, scratch, wait_until};

pub struct Prometheus {
    _child: Child,
    url: String,
    started: f64,
    /// The time at which each alert was last seen firing.
    fired: Arc<Mutex<BTreeMap<String, Instant>>>,
}

pub fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

impl Prometheus {
    pub fn start(rules: &str, admin: SocketAddr) -> Self {
        let dir = scratch::dir("prometheus");
        let listen = format!("127.0.0.1:{}", scratch::port());
        fs::write(dir.join("alerts.yaml"), rules).unwrap();
        let configuration = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [alerts.yaml]\nscrape_configs:\n\
             - job_name: causeway\n  static_configs:\n  - targets: ['{admin}']\n    labels: {{namespace: test}}\n"
        );
        fs::write(dir.join("prometheus.yml"), configuration).unwrap();
        let mut command = Command::new("prometheus");
        command.arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=data").current_dir(&dir);
        command.arg(format!("--web.listen-address={listen}"));
        let mut child = Child::spawn("prometheus", &command, &dir);
        let url = format!("http://{listen}");
        child.wait_ready(|| ureq::get(format!("{url}/-/ready")).call().is_ok());
        let prometheus = Self { _child: child, url, started: now(), fired: Arc::default() };
        prometheus.note_what_fires();
        prometheus
    }

    /// Notes the firing alerts several times a second, as some do not fire for long.
    fn note_what_fires(&self) {
        let (fired, url) = (Arc::downgrade(&self.fired), self.url.clone());
        std::thread::spawn(move || {
            while let Some(fired) = fired.upgrade() {
                if let Ok(mut answer) = ureq::get(format!("{url}/api/v1/alerts")).call() {
                    let answer: Json = serde_json::from_reader(answer.body_mut().as_reader()).unwrap();
                    let firing = answer["data"]["alerts"].as_array().unwrap().iter();
                    let firing = firing.filter(|alert| alert["state"] == "firing");
                    let names = firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned());
                    fired.lock().unwrap().extend(names.map(|name| (name, Instant::now())));
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }

    /// Every alert that has fired so far.
    pub fn fired(&self) -> BTreeSet<String> {
        self.fired.lock().unwrap().keys().cloned().collect()
    }

    /// The alerts that fire now, in Prometheus's words.
    pub fn firing(&self) -> Json {
        self.get("alerts", &[])
    }

    /// Waits until each alert has fired after this call.
    pub fn wait_for(&self, alerts: &[&str]) {
        let since = Instant::now();
        for alert in alerts {
            let what = format!("{alert} fires");
            wait_until(&what, || self.fired.lock().unwrap().get(*alert).is_some_and(|at| *at > since));
            println!("{:5.0} s  {what}", now() - self.started);
        }
    }

    /// Every alert of the rules, none of which may have failed.
    pub fn alerts(&self) -> BTreeSet<String> {
        let answer = self.get("rules", &[]);
        let groups = answer["data"]["groups"].as_array().unwrap().iter();
        let rules: Vec<&Json> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
        for rule in &rules {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
        let alerts = rules.iter().filter(|rule| rule["type"] == "alerting");
        alerts.map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The answer to a query over the whole run, second by second.
    pub fn range(&self, query: &str) -> Json {
        let (start, end) = (self.started.to_string(), now().to_string());
        self.get("query_range", &[("query", query), ("start", &start), ("end", &end), ("step", "1")])
    }

    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Json {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = agent.get(format!("{}/api/v1/{path}", self.url)).query_pairs(parameters.iter().copied());
        let mut answer = request.call().unwrap();
        serde_json::from_reader(answer.body_mut().as_reader()).unwrap()
    }
}
