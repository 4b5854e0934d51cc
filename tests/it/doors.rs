//! A registry that asks who comes, or has several addresses. Apicurio 2.6 itself asks nobody here: a door stands before it that
//! speaks TLS, wants a token or a certificate, and hands on what it lets in.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use crate::{
    sending::journey,
    support::{
        bridge::Setup,
        certs::{Authority, ClientOptions},
        client::Http,
        gate::{Asked, Gate, dead_url, hand_on},
        kafka, registry,
        starting::Starting,
    },
};

const TOKEN: &str = "canary-registry-token-93fb";

fn setup(url: &str) -> Setup {
    Setup::new(kafka(), Some(registry())).set("registry.url", url).set("log", "trace")
}

/// The path of Confluent's API, before which the door stands.
fn base() -> String {
    registry().url().to_owned()
}

/// Who says this token is let in.
fn door(token: &Arc<Mutex<String>>) -> Gate {
    let (token, base) = (Arc::clone(token), base());
    Gate::plain(move |asked: &Asked| {
        let wanted = format!("Bearer {}", token.lock().unwrap());
        match asked.headers.get("authorization") == Some(&wanted) {
            true => hand_on(&base, asked),
            false => (401, r#"{"error_code":40101,"message":"who is that?"}"#.to_owned()),
        }
    })
}

async fn commits(starting: Starting) {
    let mut bridge = starting.ready();
    let answer = bridge.sender(Http::Two).post("/", &[], journey("1")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(bridge.stop().success(), "{}", bridge.child.tail());
    let log = bridge.child.stdout() + &bridge.child.stderr();
    assert!(!log.contains("canary") && log.contains("\"level\":\"TRACE\""), "{log}");
}

fn run(setup: &Setup, arguments: &[&str]) -> String {
    let output = setup.command(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!text.contains("canary"), "{arguments:?}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bearer_token_opens_the_registry_and_one_in_a_file_is_read_again() {
    let token = Arc::new(Mutex::new(TOKEN.to_owned()));
    let door = door(&token);
    let inline = setup(&door.url()).set("registry.token", TOKEN);
    assert!(run(&inline, &["check", "--quiet"]).contains("answers"));
    commits(Starting::new(inline)).await;
    let by_file = setup(&door.url()).set("registry.token_file", "token");
    let file = by_file.dir.join("token");
    fs::write(&file, "canary-old").unwrap();
    let told = run(&by_file, &["check", "--quiet"]);
    assert!(told.contains("HTTP 401") && told.contains("registry.token_file"), "{told}");
    let mut starting = Starting::new(by_file);
    starting.waits_for("HTTP 401");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    commits(starting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_opens_the_registry_and_one_that_is_renewed_is_taken_up() {
    let authority = Authority::new("Registry test CA");
    let base = base();
    let server = authority.server(&["localhost"], [[127, 0, 0, 1]]);
    let door = Gate::tls(&server, Some(&authority), move |asked| hand_on(&base, asked));
    let setup = setup(&door.url())
        .set("registry.ca", "registry-ca.crt")
        .set("registry.certificate", "registry.crt")
        .set("registry.private_key", "registry.key");
    authority.write(&setup.dir, "registry-ca");
    let other = Authority::new("Another CA").client(ClientOptions::cn("causeway")).write(&setup.dir, "registry");
    let told = run(&setup, &["check", "--quiet"]);
    assert!(told.contains("does not answer"), "{told}");
    // Half of a pair.
    let good = authority.client(ClientOptions::cn("causeway"));
    let key = fs::read_to_string(&other.private_key).unwrap();
    fs::write(&other.private_key, &good.private_key).unwrap();
    let told = run(&setup, &["check", "--quiet"]);
    assert!(told.contains("registry.key is not the key of") && told.contains("registry.private_key"), "{told}");
    fs::write(&other.private_key, key).unwrap();
    let dir = setup.dir.clone();
    let mut starting = Starting::new(setup);
    starting.waits_for("does not answer");
    good.write(&dir, "registry");
    commits(starting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_addresses_one_that_answers_is_enough_and_none_is_named_as_all() {
    let (dead, deader) = (dead_url(), dead_url());
    let base = base();
    let last = Gate::plain(move |asked| hand_on(&base, asked));
    let away = Gate::plain(|_| (503, "no healthy upstream".to_owned()));
    let some = setup(&format!("{dead}, {}, {}", away.url(), last.url()));
    assert!(run(&some, &["check", "--quiet"]).contains("answers"));
    assert!(away.asked() < last.asked(), "the one that answered is kept: {} {}", away.asked(), last.asked());
    commits(Starting::new(some)).await;
    let none = setup(&format!("{dead},{deader}"));
    let told = run(&none, &["check", "--quiet"]);
    assert!(told.contains(&dead) && told.contains(&deader) && told.contains("does not answer"), "{told}");
    let why = Starting::new(none).waits_for("registry");
    assert!(why.contains(&dead) && why.contains(&deader), "{why}");
}
