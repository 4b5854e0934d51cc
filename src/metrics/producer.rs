//! The figures that a producer reports about itself.

use prometheus::{IntGaugeVec, Registry};

use super::register::gauges;

/// librdkafka's own numbers (its `STATISTICS.md`), by producer.
pub struct ProducerMetrics {
    pub messages: IntGaugeVec,
    pub bytes: IntGaugeVec,
    pub sent_messages: IntGaugeVec,
    pub sent_bytes: IntGaugeVec,
    pub requests: IntGaugeVec,
    pub brokers_up: IntGaugeVec,
    pub round_trip_us: IntGaugeVec,
    pub retries: IntGaugeVec,
    pub errors: IntGaugeVec,
    pub timeouts: IntGaugeVec,
    pub outbuf_requests: IntGaugeVec,
}

impl ProducerMetrics {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        let gauges = |name, help| gauges(r, name, help, &["producer"]);
        Ok(Self {
            messages: gauges("causeway_producer_messages", "librdkafka `msg_cnt`: records in the producer's queues.")?,
            bytes: gauges("causeway_producer_message_bytes", "librdkafka `msg_size`.")?,
            sent_messages: gauges(
                "causeway_producer_sent_messages",
                "librdkafka `txmsgs`, since the producer's start.",
            )?,
            sent_bytes: gauges(
                "causeway_producer_sent_bytes",
                "librdkafka `txmsg_bytes`, since the producer's start.",
            )?,
            requests: gauges(
                "causeway_producer_requests",
                "librdkafka `tx`: requests sent, since the producer's start.",
            )?,
            brokers_up: gauges("causeway_producer_brokers_up", "Brokers that the producer is connected to.")?,
            round_trip_us: gauges(
                "causeway_producer_round_trip_p99_microseconds",
                "librdkafka broker `rtt.p99`, the largest of all brokers.",
            )?,
            retries: gauges(
                "causeway_producer_request_retries",
                "librdkafka broker `txretries`, all brokers, since the producer's start.",
            )?,
            errors: gauges(
                "causeway_producer_request_errors",
                "librdkafka broker `txerrs`, all brokers, since the producer's start.",
            )?,
            timeouts: gauges(
                "causeway_producer_request_timeouts",
                "librdkafka broker `req_timeouts`, all brokers, since the producer's start.",
            )?,
            outbuf_requests: gauges(
                "causeway_producer_requests_waiting",
                "librdkafka broker `outbuf_cnt` + `waitresp_cnt`, all brokers.",
            )?,
        })
    }
}
