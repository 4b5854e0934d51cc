//! The bridge before it is ready: what it waits for.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};

use super::{
    HANG,
    bridge::{Bridge, Setup},
    process::Child,
    scratch,
};

/// A bridge that is not ready yet, and perhaps never will be.
pub struct Starting {
    pub setup: Setup,
    pub child: Child,
    pub admin: SocketAddr,
    ingress: SocketAddr,
}

impl Starting {
    pub fn new(setup: Setup) -> Self {
        // Ports are told once ready; here they must be known before.
        let [ingress, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], scratch::port())));
        let setup = setup.set("admin.listen", &admin.to_string()).set("ingress.listen", &ingress.to_string());
        let command = setup.command(&["serve", "--ready-file", "ready.json"]);
        let child = Child::spawn("causeway", &command, &setup.dir);
        Self { setup, child, admin, ingress }
    }

    /// What /readyz gives as its reasons; `None` while the port is not open yet.
    fn reasons(&self) -> Option<Vec<String>> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent.get(format!("http://{}/readyz", self.admin)).call().ok()?;
        let body: Json = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        assert_eq!(body["ready"], json!(answer.status().as_u16() == 200), "{body}");
        Some(body["waiting_for"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect())
    }

    /// Waits until /readyz has a reason with `part` in it, and returns that.
    pub fn waits_for(&mut self, part: &str) -> String {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.exited() {
                panic!("ended ({status}) instead of waiting\n{}", self.child.tail());
            }
            let reasons = self.reasons().unwrap_or_default();
            if let Some(reason) = reasons.iter().find(|reason| reason.contains(part)) {
                return reason.clone();
            }
            assert!(started.elapsed() < HANG, "none has {part:?}: {reasons:?}\n{}", self.child.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn accepts_connections(&self) -> bool {
        TcpStream::connect(self.ingress).is_ok()
    }

    /// Waits until it accepts events.
    pub fn ready(mut self) -> Bridge {
        let file = self.setup.dir.join("ready.json");
        self.child.wait_ready(|| file.exists());
        Bridge { ingress: self.ingress, admin: self.admin, child: self.child, setup: self.setup }
    }
}
