//! Kafka behind SASL/OAUTHBEARER: tokens of a token server and of a file, renewed while events come.

use std::{collections::BTreeMap, fs, time::Duration};

use serde_json::Value as Json;

use crate::{
    security::{client, secured, wait_for_more},
    sending::{Load, assert_all_there, copies, journey},
    support::{
        bridge::{Bridge, Setup},
        certs::Authority,
        client::Http,
        starting::Starting,
        stopwatch::{self, Stopwatch},
        tokens::{CLIENT, TokenServer},
        wait_until,
    },
};

/// No output may show it.
const SECRET: &str = "canary-client-secret-77aa";

fn setup(properties: &[(&'static str, String)]) -> Setup {
    let mut all = vec![
        ("security.protocol", "SASL_SSL".to_owned()),
        ("sasl.mechanism", "OAUTHBEARER".to_owned()),
        ("ssl.ca.location", secured().security().ca.display().to_string()),
        ("debug", "security".to_owned()),
    ];
    all.extend_from_slice(properties);
    Setup::new(secured(), None)
        .set("kafka.brokers", &secured().security().sasl_ssl_bootstrap())
        .set("log", "trace")
        .toml(&client(&all))
}

fn by_server(server: &TokenServer, secret: &str) -> Setup {
    by_server_with(server, secret, None)
}

fn by_server_with(server: &TokenServer, secret: &str, ca: Option<&Authority>) -> Setup {
    let mut properties = vec![
        ("sasl.oauthbearer.method", "oidc".to_owned()),
        ("sasl.oauthbearer.token.endpoint.url", server.url()),
        ("sasl.oauthbearer.client.id", CLIENT.to_owned()),
        ("sasl.oauthbearer.client.secret_file", "secret".to_owned()),
        ("sasl.oauthbearer.scope", "a scope".to_owned()),
        ("sasl.oauthbearer.extensions", "logicalCluster=lkc-1,identityPoolId=pool-1".to_owned()),
    ];
    properties.extend(ca.map(|_| ("https.ca.location", "token-ca.crt".to_owned())));
    let setup = setup(&properties);
    if let Some(ca) = ca {
        ca.write(&setup.dir, "token-ca");
    }
    fs::write(setup.dir.join("secret"), format!("{secret}\n")).unwrap();
    setup
}

fn by_file(token: &str) -> Setup {
    let setup = setup(&[("sasl.oauthbearer.token_file", "token".to_owned())]);
    fs::write(setup.dir.join("token"), token).unwrap();
    setup
}

async fn commits(bridge: &Bridge, event_id: &str) {
    let answer = bridge.sender(Http::Two).post("/", &[], journey(event_id)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Neither the secret nor the signature of any token: `eyJ` begins each part of a JWT that is JSON.
fn assert_discreet(from: &str, text: &str) {
    for canary in [SECRET, "eyJ"] {
        assert!(!text.contains(canary), "{from} shows {canary}:\n{text}");
    }
}

fn assert_all_discreet(bridge: &mut Bridge) {
    assert_discreet("the metrics", &bridge.get("/metrics").1);
    assert_discreet("/readyz", &bridge.get("/readyz").1);
    for command in [&["check"][..], &["topics"], &["tail", "--beginning", "--no-follow"]] {
        let output = bridge.setup.command(command).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() || output.status.code() == Some(3), "{command:?}: {text}");
        assert_discreet(command[0], &text);
    }
    assert!(bridge.stop().success(), "{}", bridge.child.tail());
    assert_discreet("the log", &(bridge.child.stdout() + &bridge.child.stderr()));
    let log = bridge.child.stderr();
    assert!(log.contains("OAUTHBEARER") && log.contains("\"level\":\"TRACE\""), "the log is talkative");
}

/// What `check` finds about the token and the brokers: level, finding and remedy.
fn check(setup: &Setup) -> Vec<[String; 4]> {
    let output = setup.command(&["check", "--quiet", "--json"]).output().unwrap();
    let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = report["findings"].as_array().unwrap().iter();
    let findings = findings.filter(|finding| finding["about"] == "token" || finding["about"] == "brokers");
    // That its address is http:// is noted.
    let findings = findings.filter(|finding| finding["level"] != "note");
    let text = |finding: &Json, member: &str| finding[member].as_str().unwrap_or_default().to_owned();
    findings.map(|finding| ["about", "level", "what", "remedy"].map(|member| text(finding, member))).collect()
}

#[track_caller]
fn assert_found(findings: &[[String; 4]], about: &str, level: &str, what: &str, remedy: &str) {
    let is = |found: &[String; 4]| {
        found[0] == about && found[1] == level && found[2].contains(what) && found[3].contains(remedy)
    };
    assert_eq!(findings.iter().filter(|found| is(found)).count(), 1, "{about} {level} {what}: {findings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_committed_with_a_token_of_a_token_server_and_nothing_shows_it() {
    let server = secured().security().issuer.server(SECRET, 3600);
    let setup = by_server(&server, SECRET);
    let mut bridge = setup.start();
    commits(&bridge, "1").await;
    let ends = || bridge.metric("causeway_kafka_token_expiry_timestamp_seconds", &[]);
    wait_until("the token's end is told", || ends() > 0.0);
    let ends = ends();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(ends > now + 3000.0 && ends < now + 3601.0, "{ends}");
    let findings = check(&bridge.setup);
    assert_found(&findings, "token", "ok", CLIENT, "");
    assert_found(&findings, "brokers", "ok", "all reached", "");
    assert_all_discreet(&mut bridge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_committed_with_a_token_of_a_file_and_nothing_shows_it() {
    let mut bridge = by_file(&secured().security().issuer.token("pod", 600)).start();
    commits(&bridge, "1").await;
    let findings = check(&bridge.setup);
    assert_found(&findings, "token", "ok", "pod", "");
    assert_found(&findings, "brokers", "ok", "all reached", "");
    assert_all_discreet(&mut bridge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_end_after_seconds_are_renewed_without_a_503_from_a_server_and_from_a_file() {
    let issuer = &secured().security().issuer;
    let server = issuer.server(SECRET, 10);
    let mut by_server = by_server(&server, SECRET).start();
    let mut by_file = by_file(&issuer.token("pod", 10)).start();
    let loads = [&by_server, &by_file].map(|bridge| Load::start(bridge, 4, true));
    let before = server.gate.asked();
    // Each round outlives the token before: sessions end with their tokens, at the broker.
    let file = by_file.setup.dir.join("token");
    for _ in 0..3 {
        let now = server.gate.asked();
        wait_until("the next token is had", || server.gate.asked() > now);
        fs::write(&file, issuer.token("pod", 10)).unwrap();
        loads.iter().for_each(wait_for_more);
    }
    assert!(server.gate.asked() >= before + 3);
    for (load, bridge) in loads.into_iter().zip([&mut by_server, &mut by_file]) {
        let posted = load.stop().await;
        assert_all_there(secured(), bridge, &posted);
        assert_eq!((posted.errors, posted.others), (0, BTreeMap::new()));
        assert!(copies(secured(), bridge, "journey").values().all(|copies| *copies == 1));
        assert!(bridge.stop().success(), "{}", bridge.child.tail());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_server_that_is_away_costs_nothing_while_the_token_is_good_and_all_is_well_once_it_is_back() {
    let server = secured().security().issuer.server(SECRET, 20);
    let timeout = stopwatch::lately_ms(Duration::from_secs(2));
    let bridge = by_server(&server, SECRET).set("sender.timeout_ms", &timeout).start();
    commits(&bridge, "1").await;
    server.gate.set_away(true);
    let not_in_use = || bridge.metric("causeway_reload_refused", &["files=\"kafka_token\""]);
    wait_until("the next token is not to be had", || not_in_use() == 1.0);
    commits(&bridge, "2").await;
    let ended = || bridge.child.stderr().contains("the last one has ended");
    wait_until("the token has ended", ended);
    assert_eq!(bridge.get("/readyz").0, 200, "an outage is no reason to send events elsewhere");
    server.gate.set_away(false);
    let watch = Stopwatch::start();
    wait_until("the next token is had", || not_in_use() == 0.0);
    commits(&bridge, "3").await;
    watch.assert_within(Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_keeps_the_bridge_unready_and_check_says_why() {
    let server = secured().security().issuer.server(SECRET, 3600);
    let setup = by_server(&server, "canary-wrong").set("sender.timeout_ms", "1500");
    let secret = setup.dir.join("secret");
    let findings = check(&setup);
    assert_found(&findings, "token", "error", "HTTP 401: invalid_client", "client.secret");
    assert_eq!(findings.len(), 1, "what follows from it is not told again: {findings:#?}");
    let mut starting = Starting::new(setup);
    let why = starting.waits_for("topics: ");
    assert!(why.contains("invalid_client") && why.contains("no token for Kafka"), "{why}");
    assert_discreet("the log", &starting.child.stderr().replace("canary-wrong", SECRET));
    fs::write(secret, SECRET).unwrap();
    commits(&starting.ready(), "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_server_is_believed_by_the_ca_that_is_given_and_by_no_other() {
    let (ours, another) = (Authority::new("Token server test CA"), Authority::new("Another test CA"));
    let identity = ours.server(&["localhost"], [[127, 0, 0, 1]]);
    let server = secured().security().issuer.server_over_tls(&identity, SECRET, 3600);
    for wrong in [None, Some(&another)] {
        let findings = check(&by_server_with(&server, SECRET, wrong));
        assert_found(&findings, "token", "error", "UnknownIssuer", "https.ca.location");
    }
    assert_eq!(server.gate.asked(), 0, "no secret was sent to it");
    let bridge = by_server_with(&server, SECRET, Some(&ours)).start();
    commits(&bridge, "1").await;
}

#[test]
fn check_says_that_a_token_has_ended_or_is_for_others() {
    let ended = check(&by_file(&secured().security().issuer.token("pod", -60)));
    assert_found(&ended, "token", "error", "whose token ended at", "renew");
    let server = secured().security().issuer.server(SECRET, 3600);
    server.gate.set_away(true);
    assert_found(&check(&by_server(&server, SECRET)), "token", "error", "does not answer", "is the token server up");
    // Somebody else signed it.
    let token = secured().security().issuer.token("pod", 600);
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    let findings = check(&by_file(&forged));
    assert_found(&findings, "token", "ok", "pod", "");
    assert!(findings.iter().any(|[about, level, ..]| about == "brokers" && level == "error"), "{findings:#?}");
}
