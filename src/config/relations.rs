//! The relations between limits: two values that are each valid may contradict each other.

use std::time::Duration;

use super::{Budget, Config, RECORD_OVERHEAD_BYTES_MAX, client, settings::Settings};

const TIMEOUT: &str = "sender.timeout_ms";
const BODY: &str = "ingress.body_bytes_max";
const QUEUE: &str = "ingress.queue_bytes_max";
const DRAIN: &str = "ingress.drain_ms_max";
const MESSAGE: &str = "kafka.client.message.max.bytes";
const RECEIVE: &str = "kafka.client.receive.message.max.bytes";

/// The longest that librdkafka may keep trying to send a record.
const MESSAGE_TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// The queue must hold at least this many records of the largest size.
const QUEUE_RECORDS_MIN: usize = 4;

/// Notes every relation that does not hold.
pub(super) fn compare(config: &Config, settings: &mut Settings) {
    compare_sizes(config, settings);
    compare_times(config, settings);
    compare_ports(config, settings);
}

/// Binding both listeners to one port succeeds, because neither listens yet; the second `listen` would fail only once
/// the bridge is ready.
fn compare_ports(config: &Config, settings: &mut Settings) {
    const INGRESS: &str = "ingress.listen";
    const ADMIN: &str = "admin.listen";
    let (ingress, admin) = (config.ingress.listen, config.admin.listen);
    let (one, other) = (ingress.ip(), admin.ip());
    let same_address = one == other || one.is_unspecified() || other.is_unspecified();
    if ingress.port() != 0 && ingress.port() == admin.port() && same_address {
        let what = format!("{} and {} are one port", settings.side(INGRESS, ingress), settings.side(ADMIN, admin));
        settings.clash(&[ADMIN, INGRESS], what, "give each a port of its own".to_owned());
    }
}

fn compare_sizes(config: &Config, settings: &mut Settings) {
    let body = config.ingress.body_bytes_max;
    let record = body + RECORD_OVERHEAD_BYTES_MAX;
    let message = usize::try_from(config.kafka.message_bytes_max()).unwrap_or(0);
    if record > message {
        let what = format!(
            "{} + {RECORD_OVERHEAD_BYTES_MAX} for key and headers is more than {}: the largest event could not be sent",
            settings.side(BODY, body),
            settings.side(MESSAGE, message),
        );
        let lower = match message.checked_sub(RECORD_OVERHEAD_BYTES_MAX) {
            Some(most) if most >= 1024 => format!("lower the first to {most}, or "),
            _ => String::new(),
        };
        let remedy =
            format!("{lower}set \"message.max.bytes\" to at least {record} (and max.message.bytes of the topics)");
        settings.clash(&[BODY, MESSAGE], what, remedy);
    }
    let queue = config.ingress.queue_bytes_max;
    let queue_min = QUEUE_RECORDS_MIN * record;
    if queue < queue_min {
        let what = format!(
            "{} holds less than {QUEUE_RECORDS_MIN} records of the largest size, {} + {RECORD_OVERHEAD_BYTES_MAX}",
            settings.side(QUEUE, queue),
            settings.side(BODY, body),
        );
        settings.clash(&[QUEUE, BODY], what, format!("raise {QUEUE} to at least {queue_min}, or lower {BODY}"));
    }
    let receive = config.kafka.client.get("receive.message.max.bytes").and_then(|bytes| bytes.parse::<usize>().ok());
    if let Some(receive) = receive.filter(|receive| *receive < message.saturating_add(512)) {
        let what = format!(
            "{} is less than {} + 512: Causeway's own readers could not read the largest record",
            settings.side(RECEIVE, receive),
            settings.side(MESSAGE, message),
        );
        settings.clash(
            &[RECEIVE, MESSAGE],
            what,
            "leave the first out: librdkafka then makes it large enough".to_owned(),
        );
    }
}

fn compare_times(config: &Config, settings: &mut Settings) {
    let Budget { timeout, answer_by, message_timeout, .. } = config.sender.budget();
    let timeout_side = settings.side(TIMEOUT, timeout.as_millis());
    let answer_by_ms = answer_by.as_millis();
    let drain_min = answer_by + Budget::CUT_OFF_BEFORE_DRAIN_END;
    if config.ingress.drain_max < drain_min {
        let what = format!(
            "{} is less than the {answer_by_ms} ms in which a request is answered, which follow from {timeout_side}, and {} ms for the last commits",
            settings.side(DRAIN, config.ingress.drain_max.as_millis()),
            Budget::CUT_OFF_BEFORE_DRAIN_END.as_millis(),
        );
        let remedy = format!(
            "raise {DRAIN} to at least {}, or leave it out: {}",
            drain_min.as_millis(),
            (answer_by + Budget::DRAIN_BEYOND_ANSWER).as_millis(),
        );
        settings.clash(&[DRAIN, TIMEOUT], what, remedy);
    }
    if let Some((key, linger)) = client::linger_ms(&config.kafka.client)
        && linger * 2.0 >= answer_by.as_secs_f64() * 1000.0
    {
        let what = format!(
            "{} is not less than half of the {answer_by_ms} ms in which a request is answered, which follow from {timeout_side}",
            settings.side(&key, linger),
        );
        settings.clash(&[&key, TIMEOUT], what, format!("lower it below {}", answer_by_ms / 2));
    }
    if message_timeout > MESSAGE_TIMEOUT_MAX {
        let (retries, pause) = ("sender.retries", "sender.retry_pause_ms_max");
        let what = format!(
            "{timeout_side}, {} and {} make a first attempt last {} s, more than a day",
            settings.side(retries, config.sender.retries),
            settings.side(pause, config.sender.retry_pause_max.as_millis()),
            message_timeout.as_secs(),
        );
        settings.clash(&[pause, retries, TIMEOUT], what, "lower them to what ASAPP was told".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::*;

    #[test]
    fn each_names_both_sides() {
        for (lines, expected) in [
            (
                "[ingress]\nbody_bytes_max = 2000000",
                "ingress.body_bytes_max = 2000000 (a.toml:5) + 16384 for key and headers is more than kafka.client.message.max.bytes = 1000000 (the default)",
            ),
            (
                "[kafka.client]\nmessage.max.bytes = 500000",
                "a.toml:5: ingress.body_bytes_max = 921600 (the default) + 16384 for key and headers is more than kafka.client.message.max.bytes = 500000 (a.toml:5): \
                 the largest event could not be sent\n    lower the first to 483616, or set \"message.max.bytes\" to at least 937984",
            ),
            ("[ingress]\nqueue_bytes_max = 1000000", "raise ingress.queue_bytes_max to at least 3751936"),
            ("[ingress]\ndrain_ms_max = 4999", "raise ingress.drain_ms_max to at least 5000, or leave it out: 9500"),
            (
                "[ingress]\nlisten = '127.0.0.1:9090'",
                "ingress.listen = 127.0.0.1:9090 (a.toml:5) and admin.listen = 127.0.0.1:9090 (the default) are one port",
            ),
            ("[admin]\nlisten = '[::1]:8443'", "admin.listen = [::1]:8443 (a.toml:5) are one port"),
            ("[ingress]\nlisten = '[::]:9090'", "are one port\n    give each a port of its own"),
            ("[kafka.client]\n'linger.ms' = 2250", "lower it below 2250"),
            ("[kafka.client]\nqueue.buffering.max.ms = 9000", "kafka.client.queue.buffering.max.ms = 9000 (a.toml:5)"),
            ("[kafka.client]\nreceive.message.max.bytes = 1000511", "kafka.client.receive.message.max.bytes = 1000511"),
            (
                "[sender]\nretry_pause_ms_max = 86400000",
                "sender.retry_pause_ms_max = 86400000 (a.toml:5) make a first attempt last 86420 s",
            ),
        ] {
            assert_faults(&format!("{MINIMAL}{lines}\n"), &[expected]);
        }
    }

    #[test]
    fn a_value_that_is_wrong_by_itself_is_in_no_relation() {
        for (lines, expected) in [
            ("[sender]\ntimeout_ms = 100\n[ingress]\ndrain_ms_max = 1000", "sender.timeout_ms is 100, less than 500"),
            ("[ingress]\nbody_bytes_max = 1\nqueue_bytes_max = 1000000", "ingress.body_bytes_max is 1, less than 1024"),
        ] {
            assert_faults(&format!("{MINIMAL}{lines}\n"), &[expected]);
        }
    }

    #[test]
    fn hold_at_their_edges() {
        for lines in [
            "[ingress]\nbody_bytes_max = 983616",
            "[ingress]\nqueue_bytes_max = 3751936",
            "[ingress]\ndrain_ms_max = 5000",
            "[ingress]\nlisten = '127.0.0.2:9090'",
            "[ingress]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'",
            "[kafka.client]\n'linger.ms' = 2249",
            "[kafka.client]\nreceive.message.max.bytes = 1000512",
            "[sender]\nretry_pause_ms_max = 86380000",
        ] {
            assert_faults(&format!("{MINIMAL}{lines}\n"), &[]);
        }
    }
}
