use super::*;
use crate::{
    config,
    kafka::{Pending, Undelivered, client::create_patient, embedded::EmbeddedBroker, lane::WhenRefused},
    quota::Quota,
    record::Origin,
};

/// The lanes `feed` and `dead-letter` of an embedded broker.
struct Rig {
    broker: Option<EmbeddedBroker>,
    connection: Connection,
    producers: Arc<Producers>,
    room: Arc<Quota>,
}

impl Rig {
    fn start(when_refused: WhenRefused, room: usize) -> Self {
        let broker = EmbeddedBroker::start().unwrap();
        broker.create_topic("feed", 12).unwrap();
        broker.create_topic("dead-letter", 1).unwrap();
        let text = format!("[ingress.tls]\nclient_names = ['*']\n[kafka]\nbrokers = ['{}']\n", broker.brokers());
        let connection = Connection::new(&config::from_toml(&text).unwrap());
        let lane = |label: &str, when_refused| LaneSpec {
            label: label.into(),
            topic: label.into(),
            more_topics: Vec::new(),
            when_refused,
        };
        let lanes = LaneSpecs {
            feeds: vec![lane("feed", when_refused)],
            dead_letters: lane("dead-letter", WhenRefused::TryAgain),
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let producers = Producers::start(&connection, &lanes, Duration::from_secs(600), 0, &metrics).unwrap();
        Self { broker: Some(broker), connection, producers, room: Quota::new(room) }
    }

    fn feed(&self) -> &Lane {
        self.producers.lanes.iter().next().unwrap()
    }

    fn accepted(&self) -> Accepted {
        let origin = Origin {
            received_at: 0,
            sender: "".into(),
            content_type: None,
            content_encoding: None,
            traceparent: None,
            tracestate: None,
            attempts: 0,
        };
        Accepted { body: [].into(), origin, bytes: self.room.take(1).unwrap() }
    }

    fn enter(&self) -> (Ticket, Pending) {
        match self.producers.enter_alone() {
            Entered::First(ticket, pending) => (ticket, pending),
            Entered::Again(_) => panic!("it is like no other"),
        }
    }
}

fn record(number: usize) -> Record {
    let mut record = Record::default();
    record.begin(Some(number.to_string().as_bytes()), 1);
    (0..7).for_each(|_| record.header("name", b"value"));
    record
}

/// librdkafka reports returned records partition by partition, and stops early when the producer's end comes first.
#[test]
fn a_producer_that_is_replaced_reports_all_that_it_held() {
    const RECORDS: usize = 100_000;
    let mut rig = Rig::start(WhenRefused::DeadLetter, RECORDS);
    let broker = rig.broker.take();
    let lane = rig.feed();
    let hand_over = |number: usize| {
        let parcel = Parcel::new(lane.topic, rig.accepted(), RecordKind::Event, rig.enter().0, lane.begin());
        lane.hand_over(Outgoing::new(&record(number), parcel));
    };
    // 20 s is long before the records produced again are reported too, at their `message.timeout.ms`.
    let wait_reported = |records: usize| {
        let started = Instant::now();
        while lane.counts.reported() < records {
            assert!(started.elapsed() < Duration::from_secs(20), "{} of {records}", lane.counts.reported());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // After the first report the partitions are known; without the broker no record for them is taken.
    hand_over(0);
    wait_reported(1);
    drop(broker);
    (1..RECORDS).for_each(hand_over);
    lane.replace(create_patient(&rig.connection, &rig.connection.producer(false), lane.reports()).unwrap(), None);
    wait_reported(RECORDS);
    assert_eq!(lane.counts.outstanding(), RECORDS - 1, "they go on");
    assert_eq!(rig.room.taken(), RECORDS - 1);
}

/// librdkafka itself refuses a record that is over its `message.max.bytes`.
#[test]
fn what_becomes_of_a_refused_record_is_the_lanes_policy() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = |when_refused| {
        let rig = Rig::start(when_refused, 1);
        let (ticket, pending) = rig.enter();
        let mut too_large = record(0);
        too_large.value_mut().resize(2_000_000, b'x');
        rig.producers.send_event(rig.feed().topic, &too_large, rig.accepted(), ticket);
        let outcome = runtime.block_on(pending);
        assert_eq!(rig.producers.outstanding(), 0);
        outcome.map(|receipt| receipt.topic())
    };
    assert_eq!(outcome(WhenRefused::DeadLetter), Ok("dead-letter"));
    assert_eq!(outcome(WhenRefused::Refuse), Err(Undelivered::Refused));
}

#[test]
fn the_threads_and_the_producers_end_with_their_owner() {
    let rig = Rig::start(WhenRefused::DeadLetter, 1);
    let lanes = Arc::downgrade(&rig.producers.lanes);
    let started = Instant::now();
    rig.producers.close(started + Duration::from_secs(60));
    assert!(started.elapsed() < Duration::from_secs(30), "it waits for nobody who is not there");
    assert_eq!(lanes.strong_count(), 0);
}
