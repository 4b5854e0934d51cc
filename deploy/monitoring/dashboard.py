#!/usr/bin/env python3
"""Writes the Grafana dashboard. The panels stand below; Grafana's own builders know its JSON.

    deploy/monitoring/dashboard.py            writes deploy/chart/causeway/files/dashboard.json
    deploy/monitoring/dashboard.py --check    fails when that file is another one
"""

import pathlib
import sys

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d

FILE = pathlib.Path(__file__).resolve().parent.parent / "chart/causeway/files/dashboard.json"
SOURCE = d.DataSourceRef(type_val="prometheus", uid="${datasource}")

# In a query: `{}` stands for the instances that were chosen, `{x="y",}` for those of them with a label more.
CHOSEN = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
NO_EVENT = 'code=~"framing_refused|host_refused|certificate_not_allowed|method_not_allowed|not_found"'
W = "[$__rate_interval]"


def query(text, legend, ref="A"):
    text = text.replace(",}", "," + CHOSEN + "}").replace("{}", "{" + CHOSEN + "}")
    return prometheus.Dataquery().expr(text).legend_format(legend).ref_id(ref).datasource(SOURCE)


def steps(*colours):
    """Thresholds: the first colour has no value, each other one begins at its value."""
    parts = [d.Threshold(value=value, color=colour) for value, colour in colours]
    return dashboard.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(parts)


def number(title, description, unit, text, *colours, decimals=None):
    panel = stat.Panel().title(title).description(description).unit(unit).datasource(SOURCE).span(4).height(4)
    panel = panel.with_target(query(text, title)).thresholds(steps(*(colours or [(None, "text")])))
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel = panel.graph_mode(c.BigValueGraphMode.AREA)
    return panel.decimals(decimals) if decimals is not None else panel


def lines(title, description, unit, *queries, stacked=False, span=8):
    panel = timeseries.Panel().title(title).description(description).unit(unit).datasource(SOURCE).span(span).height(8)
    panel = panel.min(0).no_value("none").fill_opacity(20 if stacked else 5).line_width(1).show_points(c.VisibilityMode.NEVER)
    panel = panel.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(c.LegendDisplayMode.LIST)
        .placement(c.LegendPlacement.BOTTOM)
    )
    panel = panel.tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(c.StackingMode.NORMAL))
    for ref, (text, legend) in zip("ABCDEFGH", queries):
        panel = panel.with_target(query(text, legend, ref))
    return panel


FAILED = f"""1 - clamp_max(
  (sum(rate(causeway_answers_total{{status="200",}}{W})) - sum(rate(causeway_answers_late_total{{}}{W})))
  / (sum(rate(causeway_requests_received_total{{}}{W})) - sum(rate(causeway_answers_total{{{NO_EVENT},}}{W}))), 1)"""

ROWS = {
    "The promise": [
        number("Answered 200 in time", "Of the attempts that allowed senders made.", "percentunit", FAILED.replace("1 - ", "", 1),
               (None, "red"), (0.99, "orange"), (0.999, "green"), decimals=2),
        number("Events committed", "A second, all feeds.", "cps", f"sum(rate(causeway_committed_total{{}}{W}))"),
        number("Commit, 99th percentile", "From the body's last byte to the broker's commit.", "s",
               f"histogram_quantile(0.99, sum by (le) (rate(causeway_commit_seconds_bucket{{}}{W})))"),
        number("Given up in an hour", "Records that Kafka did not take for longer than the sender tries. None was answered 200.",
               "short", "sum(increase(causeway_undelivered_total{}[1h]))", (None, "green"), (1, "red"), decimals=0),
        number("Dead letters in an hour", "Safe in the dead-letter topic; no reader of the feeds sees them.", "short",
               "sum(increase(causeway_dead_letters_total{}[1h]))", (None, "green"), (1, "orange"), decimals=0),
        number("Instances ready", "They take events.", "short", "sum(causeway_ready{})", (None, "red"), (1, "green"), decimals=0),
    ],
    "Traffic and answers": [
        lines("Committed by feed", "Each was answered 200, but for those that the sender had not waited for.", "cps",
              (f"sum by (feed) (rate(causeway_committed_total{{}}{W}))", "{{feed}}"), stacked=True),
        lines("Answers", "By their code; a 200 is `committed`.", "reqps",
              (f"sum by (status, code) (rate(causeway_answers_total{{}}{W})) > 0", "{{status}} {{code}}")),
        lines("Answered 503, by feed", "The sender tries these again. `unknown` was refused unread.", "reqps",
              (f"sum by (feed, code) (rate(causeway_refused_total{{}}{W})) > 0", "{{feed}} {{code}}")),
        lines("Attempts that failed", "Not answered 200 in the sender's time. 0.1 % is what the service level allows for.", "percentunit",
              (FAILED, "failed"), ("0.001 + 0 * count(causeway_ready{})", "allowed")),
        lines("Came again", "The sender's retries: they get their first attempt's receipt. Late is what was committed after its 503.",
              "cps", (f"sum by (first_attempt) (rate(causeway_joined_total{{}}{W}))", "first attempt {{first_attempt}}"),
              (f"sum(rate(causeway_committed_late_total{{}}{W}))", "committed late")),
        lines("Requests by instance", "Are they spread evenly?", "reqps",
              (f"sum by (instance) (rate(causeway_requests_received_total{{}}{W}))", "{{instance}}"), stacked=True),
    ],
    "Time, against the sender's timeout": [
        lines("From head to answer", "A request is answered at the latest at `answered 503 at`; the sender gives up at its timeout.", "s",
              (f"histogram_quantile(0.99, sum by (le) (rate(causeway_answer_seconds_bucket{{}}{W})))", "99 %"),
              (f"histogram_quantile(0.5, sum by (le) (rate(causeway_answer_seconds_bucket{{}}{W})))", "50 %"),
              ("min(causeway_answer_by_seconds{})", "answered 503 at"),
              ("min(causeway_sender_timeout_seconds{})", "sender's timeout"), span=12),
        lines("Time to commit by feed, 99th percentile", "Kafka's part of it.", "s",
              (f"histogram_quantile(0.99, sum by (le, feed) (rate(causeway_commit_seconds_bucket{{}}{W})))", "{{feed}}"),
              ("min(causeway_sender_timeout_seconds{})", "sender's timeout"), span=12),
    ],
    "Limits": [
        lines("Requests held, of in_flight_max", "The fullest instance. At 1 further requests of the feed are answered 503 at once.",
              "percentunit",
              ("max by (feed) (causeway_in_flight_requests{} / ignoring (feed) group_left () causeway_in_flight_requests_max{})", "{{feed}}")),
        lines("Queue, of queue_bytes_max", "By instance. At 1 requests are answered 503 unread.", "percentunit",
              ("causeway_queue_bytes{} / causeway_queue_bytes_max{}", "{{instance}}")),
        lines("Records not committed yet", "Those past their 503 are among them.", "short",
              ("sum by (feed) (causeway_queue_records{})", "{{feed}}"), stacked=True),
        lines("Connections, of connections_max", "By instance. At 1 the longest-idle one is closed for each new one.", "percentunit",
              ("causeway_connections{} / causeway_connections_max{}", "{{instance}}")),
        lines("File descriptors, of what the process may have", "By instance.", "percentunit",
              ("process_open_fds{} / process_max_fds{} and ignoring (version) causeway_build_info{}", "{{instance}}")),
        lines("Committed events that are remembered", "So that a retry gets its receipt. Forgotten early: dedupe.bytes_max is too small.",
              "short", ("sum(causeway_dedupe_events{})", "remembered"),
              ("sum(increase(causeway_dedupe_forgotten_early_total{}[5m]))", "forgotten early in 5 minutes")),
    ],
    "Kafka and the producers": [
        lines("Brokers connected", "The producer that has the fewest, of all instances.", "short",
              ("min by (producer) (causeway_producer_brokers_up{})", "{{producer}}")),
        lines("Round trip to a broker, 99th percentile", "The slowest broker of each producer.", "µs",
              ("max by (producer) (causeway_producer_round_trip_p99_microseconds{})", "{{producer}}")),
        lines("Records a request", "How well records go together.", "short",
              (f"sum by (producer) (rate(causeway_producer_sent_messages{{}}{W})) / sum by (producer) (rate(causeway_producer_requests{{}}{W}))",
               "{{producer}}")),
        lines("Produced again, given up", "After a delivery error, by feed.", "cps",
              (f"sum by (feed) (rate(causeway_redelivered_total{{}}{W}))", "again: {{feed}}"),
              (f"sum by (feed) (rate(causeway_undelivered_total{{}}{W}))", "given up: {{feed}}")),
        lines("Requests that failed", "librdkafka's count, all brokers.", "reqps",
              (f"sum(rate(causeway_producer_request_errors{{}}{W}))", "errors"),
              (f"sum(rate(causeway_producer_request_timeouts{{}}{W}))", "timed out"),
              (f"sum(rate(causeway_producer_request_retries{{}}{W}))", "again")),
        lines("Topics that do not keep what was acked", "How many topics have each fault; none is what the promise needs.", "short",
              ("sum by (fault) (max by (topic, fault) (causeway_topic_fault{}))", "{{fault}}")),
    ],
    "TLS": [
        lines("Days until it ends", "Server, client CA, CRL, and each sender as last seen.", "d",
              ("(min by (certificate, name) (causeway_certificate_expiry_timestamp_seconds{}) - time()) / 86400", "{{certificate}} {{name}}")),
        lines("Handshakes that failed", "By reason.", "cps",
              (f"sum by (reason) (rate(causeway_handshake_failures_total{{}}{W})) > 0", "{{reason}}")),
        lines("Connections", "Accepted, ended by the bridge, and refused at connections_max.", "cps",
              (f"sum(rate(causeway_connections_accepted_total{{}}{W}))", "accepted"),
              (f"sum by (reason) (rate(causeway_connections_closed_total{{}}{W}))", "closed: {{reason}}"),
              (f"sum(rate(causeway_connections_evicted_total{{}}{W}))", "closed for a new one"),
              (f"sum(rate(causeway_connections_refused_total{{}}{W}))", "refused, as none was idle")),
        lines("Certificates taken up, or refused", "In 5 minutes; and whether files are not in use now.", "short",
              ("sum by (result) (increase(causeway_tls_reloads_total{}[5m]))", "{{result}}"),
              ("max by (files) (causeway_reload_refused{})", "not in use now: {{files}}"), span=24),
    ],
    "The events": [
        lines("Dead letters", "By stage and feed.", "cps",
              (f"sum by (stage, feed) (rate(causeway_dead_letters_total{{}}{W})) > 0", "{{stage}} {{feed}}")),
        lines("Members that no schema names, an event", "They travel in `extras`.", "short",
              (f"sum by (feed) (rate(causeway_unknown_members_total{{}}{W})) / sum by (feed) (rate(causeway_committed_total{{}}{W}))", "{{feed}}")),
        lines("Major api_version", "The schemas were written for 1.", "cps",
              (f"sum by (feed, major) (rate(causeway_events_by_major_total{{}}{W})) > 0", "{{feed}} {{major}}")),
        lines("Without a key", "Their order is not kept.", "cps", (f"sum by (feed) (rate(causeway_null_keys_total{{}}{W}))", "{{feed}}"), span=12),
        lines("event_ids with another body", "Each is an event of its own.", "cps",
              (f"sum(rate(causeway_event_ids_reused_total{{}}{W}))", "used again"), span=12),
    ],
    "The process": [
        lines("CPU", "Cores, by instance.", "short",
              (f"rate(process_cpu_seconds_total{{}}{W}) and ignoring (version) causeway_build_info{{}}", "{{instance}}")),
        lines("Memory", "Resident, by instance. `causeway check` tells what the limits come to.", "bytes",
              ("process_resident_memory_bytes{} and ignoring (version) causeway_build_info{}", "{{instance}}")),
        lines("Running for", "Back to 0: it was started again.", "s",
              ("time() - process_start_time_seconds{} and ignoring (version) causeway_build_info{}", "{{instance}} {{version}}")),
    ],
}


def chosen(name, text):
    variable = dashboard.QueryVariable(name).query(text).datasource(SOURCE).refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
    variable = variable.multi(True).include_all(True).all_value(".*").sort(d.VariableSort.ALPHABETICAL_ASC)
    return variable.current(d.VariableOption(selected=True, text="All", value="$__all"))


def build():
    board = (
        dashboard.Dashboard("Causeway")
        .uid("causeway")
        .description("ASAPP's events on their way to Kafka: what was promised, and how near it is to its limits.")
        .tags(["causeway", "kafka"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(d.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus").label("Prometheus"))
        .with_variable(chosen("namespace", "label_values(causeway_build_info, namespace)"))
        .with_variable(chosen("job", 'label_values(causeway_build_info{namespace=~"$namespace"}, job)'))
        .with_variable(chosen("instance", 'label_values(causeway_build_info{namespace=~"$namespace",job=~"$job"}, instance)'))
    )
    for title, panels in ROWS.items():
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    built = board.build()
    for number, panel in enumerate(built.panels, start=1):
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"


def main():
    text = build()
    if "--check" in sys.argv[1:]:
        if not FILE.is_file() or FILE.read_text() != text:
            sys.exit(f"{FILE} is not what {sys.argv[0]} writes: run it without --check")
    else:
        FILE.write_text(text)
    print(f"{sum(map(len, ROWS.values()))} panels in {len(ROWS)} rows")


main()
