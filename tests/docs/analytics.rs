//! The jobs of `deploy/flink`: whole conversations go through two bridges, and a program without Flink (the oracle)
//! computes the rows that the jobs must give.

use std::{fs, path::Path, sync::OnceLock};

use super::{
    SENDER, TOPICS, kafka,
    support::{
        self,
        bridge::{Bridge, Setup},
        certs::ClientOptions,
    },
};

/// The oracle's words when each row is as expected.
pub const EQUAL: &str = "as sent: ";

const CHATS: u32 = 300;
const CALLS: u32 = 20;

/// Writes the jobs, the programs and the certificates for the bridges beside the page's own files.
pub fn prepare(dir: &Path, ours: &dyn Fn(&str) -> String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["events_once.sql", "issues.sql"] {
        fs::write(dir.join(file), ours(&fs::read_to_string(root.join("deploy/flink").join(file)).unwrap())).unwrap();
    }
    for file in ["scenario.py", "oracle.py"] {
        fs::copy(root.join("tests/docs/analytics").join(file), dir.join(file)).unwrap();
    }
    for (number, bridge) in bridges().iter().enumerate() {
        bridge.setup.authority.write(dir, &format!("ca-{number}"));
        bridge.setup.identity(ClientOptions::dns(SENDER)).write(dir, &format!("sender-{number}"));
    }
}

/// The page's script, with the events that it needs and the oracle after it. One half of the events is sent before, the
/// other from a job's first checkpoint on, when the page kills the job.
pub fn around(script: &str) -> String {
    let send = |number: usize| {
        let port = bridges()[number].ingress.port();
        let keys = format!("--ca ca-{number}.crt --cert sender-{number}.crt --key sender-{number}.key");
        format!("causeway send {number}.ndjson --url https://localhost:{port}/ {keys}")
    };
    let (before, meanwhile) = (send(0), send(1));
    let servers = kafka().bootstrap();
    format!(
        "\
python3 scenario.py 1 {CHATS} {CALLS} 0.ndjson 1.ndjson
{before}
until ls events_once/*/chk-*/_metadata >/dev/null 2>&1; do sleep 0.1; done && {meanwhile} --rate 200 &
sending=$!
{script}
wait $sending
venv/bin/python oracle.py {servers} 0.ndjson 1.ndjson
"
    )
}

/// Two instances, which know nothing of each other's events: an event sent to both has two records.
pub fn bridges() -> &'static [Bridge; 2] {
    static BRIDGES: OnceLock<[Bridge; 2]> = OnceLock::new();
    BRIDGES.get_or_init(|| {
        // Records of other pages were not sent here, so their topics are deleted first.
        TOPICS.iter().filter(|topic| !kafka().leaders(topic).is_empty()).for_each(|topic| kafka().delete_topic(topic));
        [(); 2].map(|()| {
            let mut setup = Setup::new(kafka(), Some(support::registry())).unset("dead_letter.topic");
            for feed in ["activity", "journey", "queue", "other"] {
                setup = setup.unset(&format!("feeds.{feed}.topic"));
            }
            setup.start()
        })
    })
}
