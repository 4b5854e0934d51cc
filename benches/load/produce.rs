//! rdkafka alone: the records that the bridge would make of the same events, through as many producers, as safely.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use causeway::{
    event::Parser,
    feed::{self, SchemaSource},
    record::{Origin, Record, Route, body_hash},
    schema::Schema,
    transcode::Transcoder,
};
use hdrhistogram::Histogram;
use rdkafka::{
    ClientConfig, ClientContext,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use super::figures::{Figures, cpu, forget_peak, micros_each, peak_mb};

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Events, one a line.
    #[arg(long)]
    pub events: PathBuf,
    #[arg(long)]
    pub brokers: String,
    /// Whose CPU time is told, too.
    #[arg(long)]
    pub broker_pid: u32,
    /// Before each topic's name.
    #[arg(long)]
    pub prefix: String,
    #[arg(long)]
    pub in_flight: usize,
    /// At most so many records a second.
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long)]
    pub seconds: f64,
}

/// One feed's records, ready to go.
struct Lane {
    topic: String,
    records: Vec<Ready>,
}

struct Ready {
    key: Option<Vec<u8>>,
    headers: OwnedHeaders,
    value: Vec<u8>,
}

/// Before it counts, each producer has so many records behind it.
const WARM: usize = 1_000;

/// How long a producer's thread looks for reports before it sends again.
const BEAT: Duration = Duration::from_millis(1);

pub fn run(args: &Args) -> Figures {
    let lanes = lanes(args);
    let all: usize = lanes.iter().map(|lane| lane.records.len()).sum();
    let started = Arc::new(std::sync::Barrier::new(lanes.len() + 1));
    let own = std::process::id();
    let running: Vec<_> = lanes
        .into_iter()
        .map(|lane| {
            let share = lane.records.len() as f64 / all as f64;
            let in_flight = ((args.in_flight as f64 * share).round() as usize).max(1);
            let (args, started) = (args.clone(), Arc::clone(&started));
            std::thread::spawn(move || {
                let producer = producer(&args.brokers);
                produce(&producer, &lane, in_flight, None, |sent| sent < WARM);
                producer.flush(Duration::from_secs(30)).expect("a broker that commits");
                *producer.context().latency.lock().expect("no panic") = histogram();
                started.wait();
                let end = Instant::now() + Duration::from_secs_f64(args.seconds);
                let sent =
                    produce(&producer, &lane, in_flight, args.rate.map(|rate| rate * share), |_| Instant::now() < end);
                producer.flush(Duration::from_secs(30)).expect("a broker that commits");
                let latency = producer.context().latency.lock().expect("no panic").clone();
                assert_eq!(latency.len(), sent as u64, "every record is reported");
                latency
            })
        })
        .collect();
    started.wait();
    forget_peak(own);
    let (begun, own_cpu, broker_cpu) = (Instant::now(), cpu(own), cpu(args.broker_pid));
    let mut latency = histogram();
    for lane in running {
        latency.add(lane.join().expect("a lane")).expect("histograms of one kind");
    }
    let events = latency.len();
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

/// Sends the lane's records over and over with so many under way, as long as `more` of those sent. Returns how many that were.
fn produce(
    producer: &BaseProducer<Reports>,
    lane: &Lane,
    in_flight: usize,
    rate: Option<f64>,
    more: impl Fn(usize) -> bool,
) -> usize {
    let begun = Instant::now();
    let mut sent = 0;
    for ready in lane.records.iter().cycle() {
        loop {
            let due = rate.is_none_or(|rate| sent as f64 <= begun.elapsed().as_secs_f64() * rate);
            if due && producer.context().under_way.load(Ordering::Relaxed) < in_flight {
                break;
            }
            producer.poll(BEAT);
        }
        if !more(sent) {
            break;
        }
        producer.context().under_way.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as i64;
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(&lane.topic, Box::new(Instant::now()))
            .payload(&ready.value)
            .headers(ready.headers.clone())
            .timestamp(now);
        record.key = ready.key.as_deref();
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        sent += 1;
    }
    sent
}

/// What the bridge asks of its producers, and librdkafka's defaults for the rest.
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
    let mut lanes: Vec<Lane> =
        routes.iter().map(|(_, it)| Lane { topic: topic(&args.prefix, &it.label), records: Vec::new() }).collect();
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
            routes[at].1.fill(&mut record, &event, body_hash(body), &origin, &mut transcoder);
            at
        });
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        lanes[at].records.push(Ready { key: record.key.clone(), headers, value: record.value.clone() });
    }
    lanes.retain(|lane| !lane.records.is_empty());
    lanes
}

pub fn topic(prefix: &str, label: &str) -> String {
    format!("{prefix}.{label}")
}
