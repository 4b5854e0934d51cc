//! `tail` goes on: over an outage, to partitions that are added, and where a schema is registered late.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::{
    commands::{code, put, run},
    outage,
    support::{
        self,
        bridge::Setup,
        kafka::Kafka,
        process::{Child, Signal},
        wait_until,
    },
};

const TAIL: [&str; 3] = ["tail", "--feed", "journey"];

fn setup(kafka: &Kafka) -> Setup {
    let setup = Setup::new(kafka, None).set("kafka.topics.partitions", "1").set("sender.timeout_ms", "1000");
    assert_eq!(code(&run(&setup, &["topics", "--apply"])), 0);
    setup
}

fn lines(tail: &Child, words: &str) -> usize {
    tail.stdout().lines().filter(|line| line.contains(words)).count()
}

#[test]
fn tail_outlives_its_only_broker() {
    let kafka = outage::kafka();
    let setup = setup(&kafka);
    let mut tail = Child::spawn("tail", &setup.command(&[&TAIL[..], &["--beginning"]].concat()), &setup.dir);
    put(&kafka, &setup.topic("journey"), "before", &[]);
    wait_until("the first is shown", || lines(&tail, "\"offset\":0") == 1);
    kafka.brokers()[0].kill();
    wait_until("it says that it waits", || tail.stderr().contains("note: no answer from "));
    // Long enough that no client of the library believes in a broker any more, and three looks got no answer.
    std::thread::sleep(Duration::from_secs(20));
    assert!(tail.exited().is_none(), "{}", tail.tail());
    assert_eq!(tail.stderr().matches("note: no answer from ").count(), 1, "{}", tail.stderr());
    kafka.brokers()[0].start();
    kafka.wait_ready();
    put(&kafka, &setup.topic("journey"), "after", &[]);
    wait_until("the next is shown", || lines(&tail, "\"offset\":1") == 1);
    assert_eq!(lines(&tail, ""), 2, "none twice: {}", tail.stdout());
    tail.signal(Signal::Terminate);
    tail.wait();
}

#[test]
fn tail_reads_partitions_that_are_added() {
    let setup = setup(support::kafka());
    let topic = setup.topic("journey");
    let mut tail = Child::spawn("tail", &setup.command(&TAIL), &setup.dir);
    // It begins at the end: what is put before it has opened the topic is not shown.
    wait_until("it reads", || {
        put(support::kafka(), &topic, "old", &[]);
        lines(&tail, "\"partition\":0") > 0
    });
    support::kafka().add_partitions(&topic, 3);
    let producer: BaseProducer = support::kafka().client().create().unwrap();
    for partition in [1, 2] {
        producer.send(BaseRecord::<str, str>::to(&topic).partition(partition).payload("new")).unwrap();
    }
    producer.flush(support::HANG).unwrap();
    wait_until("both are shown", || [1, 2].iter().all(|it| lines(&tail, &format!("\"partition\":{it}")) == 1));
    tail.signal(Signal::Terminate);
    tail.wait();
}

#[test]
fn tail_asks_again_for_a_schema_that_was_unknown() {
    let registry = support::registry();
    let setup = Setup::new(support::kafka(), Some(registry));
    support::kafka().create_topic(&setup.topic("journey"), 1, &[]);
    let tail = setup.command(&[&TAIL[..], &["--beginning"]].concat());
    let mut tail = Child::spawn("tail", &tail, &setup.dir);
    // Ids are given one after another: this one is unknown for now, though other tests take some.
    let newest = registry.register(&format!("{}-probe", setup.topic("journey")), r#""string""#).unwrap();
    let late = newest + 300;
    let value = [&[0][..], &late.to_be_bytes()].concat();
    put_bytes(&setup.topic("journey"), &value);
    wait_until("it is shown undecoded", || lines(&tail, "HTTP 404") == 1);
    for number in 0.. {
        let text = format!(r#"{{"type":"record","name":"Filler{number}","fields":[]}}"#);
        let id = registry.register(&format!("{}-{number}", setup.topic("journey")), &text).unwrap();
        if id >= late {
            break;
        }
    }
    wait_until("it is asked again", || {
        put_bytes(&setup.topic("journey"), &value);
        tail.stdout().lines().last().is_some_and(|line| !line.contains("HTTP 404"))
    });
    tail.signal(Signal::Terminate);
    tail.wait();
}

fn put_bytes(topic: &str, value: &[u8]) {
    let producer: BaseProducer = support::kafka().client().create().unwrap();
    producer.send(BaseRecord::<str, [u8]>::to(topic).payload(value)).unwrap();
    producer.flush(support::HANG).unwrap();
}
