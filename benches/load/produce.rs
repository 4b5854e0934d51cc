//! rdkafka alone, with the records that the bridge would make of the same events, as many producers, and their
//! settings.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use causeway::{
    event::Parser,
    feed::{self, SchemaSource},
    record::{Origin, Record, Route},
    schema::Schema,
    transcode::Transcoder,
};
use hdrhistogram::Histogram;
use rdkafka::{
    ClientConfig, ClientContext,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

use super::figures::{Figures, cpu, forget_peak, micros_each, peak_mb};

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The file of events, one a line.
    #[arg(long)]
    pub events: PathBuf,
    #[arg(long)]
    pub brokers: String,
    /// The broker's process, for its CPU time.
    #[arg(long)]
    pub broker_pid: u32,
    /// The prefix of each topic's name.
    #[arg(long)]
    pub prefix: String,
    #[arg(long)]
    pub in_flight: usize,
    /// The most records a second.
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long)]
    pub seconds: f64,
}

/// One feed's records, ready to go, and its producer.
struct Lane {
    topic: String,
    records: Vec<Ready>,
    producer: BaseProducer<Reports>,
    /// The lane's share of all records, and so of those under way.
    share: f64,
    sent: usize,
}

struct Ready {
    key: Option<Vec<u8>>,
    headers: OwnedHeaders,
    value: Vec<u8>,
}

/// The number of records that go through before counting begins.
const WARM: f64 = 5_000.0;

/// The pause between two turns of taking reports and sending records: a wake-up for each report would cost more.
const BEAT: Duration = Duration::from_millis(1);

pub fn run(args: &Args) -> Figures {
    let mut lanes = lanes(args);
    produce(&mut lanes, args.in_flight, |lane| ((WARM * lane.share) as usize, true));
    for lane in &mut lanes {
        lane.sent = 0;
        *lane.latency() = histogram();
    }
    let own = std::process::id();
    forget_peak(own);
    let (begun, own_cpu, broker_cpu) = (Instant::now(), cpu(own), cpu(args.broker_pid));
    produce(&mut lanes, args.in_flight, |lane| {
        let elapsed = begun.elapsed().as_secs_f64();
        let due = args.rate.map_or(usize::MAX, |rate| (elapsed * rate * lane.share) as usize);
        if elapsed < args.seconds { (due, false) } else { (0, true) }
    });
    let mut latency = histogram();
    lanes.iter().for_each(|lane| latency.add(&*lane.latency()).expect("histograms of one kind"));
    let events = latency.len();
    assert_eq!(events, lanes.iter().map(|lane| lane.sent as u64).sum::<u64>(), "every record is reported");
    let millis = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    Figures {
        events,
        events_per_second: events as f64 / begun.elapsed().as_secs_f64(),
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        p99_9_ms: millis(0.999),
        cpu_us: micros_each(cpu(own) - own_cpu, events),
        broker_cpu_us: micros_each(cpu(args.broker_pid) - broker_cpu, events),
        generator_cpu_us: 0.0,
        peak_mb: peak_mb(own),
    }
}

/// Sends the lanes' records over and over, with `in_flight` under way. `most` says how many records a lane may have
/// sent by now, and whether no more are to come.
fn produce(lanes: &mut [Lane], in_flight: usize, most: impl Fn(&Lane) -> (usize, bool)) {
    loop {
        let mut done = true;
        for lane in &mut *lanes {
            let (most, all) = most(lane);
            let under_way_max = ((in_flight as f64 * lane.share).round() as usize).max(1);
            lane.take_reports();
            while lane.sent < most && lane.under_way() < under_way_max {
                lane.send();
            }
            done &= all && lane.sent >= most && lane.under_way() == 0;
        }
        if done {
            return;
        }
        std::thread::sleep(BEAT);
    }
}

impl Lane {
    fn send(&mut self) {
        let ready = &self.records[self.sent % self.records.len()];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as i64;
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, Box::new(Instant::now()))
            .payload(&ready.value)
            .headers(ready.headers.clone())
            .timestamp(now);
        record.key = ready.key.as_deref();
        self.producer.context().under_way.fetch_add(1, Ordering::Relaxed);
        self.producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        self.sent += 1;
    }

    fn take_reports(&self) {
        // A poll takes the reports of one request at most, so polls go on until none is left.
        let mut before = None;
        while before != Some(self.under_way()) {
            before = Some(self.under_way());
            self.producer.poll(Duration::ZERO);
        }
    }

    fn under_way(&self) -> usize {
        self.producer.context().under_way.load(Ordering::Relaxed)
    }

    fn latency(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.producer.context().latency.lock().expect("no panic")
    }
}

/// A producer with the bridge's settings, and librdkafka's defaults for the rest.
fn producer(brokers: &str) -> BaseProducer<Reports> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("max.in.flight.requests.per.connection", "1")
        .set("linger.ms", "0")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .create_with_context(Reports { under_way: AtomicUsize::new(0), latency: Mutex::new(histogram()) })
        .expect("a producer")
}

struct Reports {
    under_way: AtomicUsize,
    /// Microseconds from the hand-over to the report.
    latency: Mutex<Histogram<u64>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent_at: Box<Instant>) {
        assert!(result.is_ok(), "a record was not committed");
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.latency.lock().expect("no panic").saturating_record(sent_at.elapsed().as_micros() as u64);
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("a histogram")
}

fn lanes(args: &Args) -> Vec<Lane> {
    let routes: Vec<(Option<String>, Route)> = feed::built_in()
        .into_iter()
        .map(|feed| {
            let SchemaSource::BuiltIn(text) = feed.schema else { panic!("a built-in schema") };
            (feed.name.clone(), Route::new(&feed, Schema::parse(text).expect("a built-in schema compiles")))
        })
        .collect();
    let mut records: Vec<Vec<Ready>> = routes.iter().map(|_| Vec::new()).collect();
    let origin = Origin {
        received_at: 0,
        sender: Arc::from(""),
        content_type: None,
        content_encoding: None,
        traceparent: None,
        tracestate: None,
        attempts: 0,
    };
    let (mut parser, mut transcoder, mut record) = (Parser::new(128), Transcoder::default(), Record::default());
    for body in fs::read(&args.events).expect("the events").split(|byte| *byte == b'\n').filter(|it| !it.is_empty()) {
        let at = parser.read(body, |event| {
            let event = event.expect("an event");
            let of = |name: &Option<String>| name.as_deref() == Some(event.name);
            let at = routes.iter().position(|(name, _)| of(name)).expect("a built-in feed");
            routes[at].1.fill(&mut record, &event, body, &origin, &mut transcoder).expect("an event");
            at
        });
        let headers = record
            .headers()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        records[at].push(Ready { key: record.key().map(<[u8]>::to_vec), headers, value: record.value().to_vec() });
    }
    let all: usize = records.iter().map(Vec::len).sum();
    let lanes = routes.iter().zip(records).filter(|(_, records)| !records.is_empty());
    let lane = |((_, route), records): (&(_, Route), Vec<Ready>)| Lane {
        topic: topic(&args.prefix, &route.label),
        producer: producer(&args.brokers),
        share: records.len() as f64 / all as f64,
        sent: 0,
        records,
    };
    lanes.map(lane).collect()
}

pub fn topic(prefix: &str, label: &str) -> String {
    format!("{prefix}.{label}")
}
