//! The templates of generated events: ASAPP's members with typical values.
//!
//! A word in angle brackets is filled in for each event: `<id>` is a fresh UUID, `<now>` and `<now-250>` are times
//! (milliseconds back), `<3..90>` is a number, and every other word belongs to the conversation ([`super::generate`]).

/// An event type.
pub struct Type {
    /// Its name.
    pub name: &'static str,
    /// Its share among its feed's events, in percent.
    pub share: u64,
    /// The parts of the members of `data`.
    pub data: &'static [&'static str],
    /// The parts of the members of `details`.
    pub details: &'static [&'static str],
}

const fn of(name: &'static str, share: u64, data: &'static [&'static str], details: &'static [&'static str]) -> Type {
    Type { name, share, data, details }
}

/// The template of one event of `feed`, as compact JSON.
pub fn event(feed: &str, meta: &str, event_type: &Type) -> String {
    let (name, data, details) = (event_type.name, event_type.data.join(","), event_type.details.join(","));
    format!(
        r#"{{"api_version":"v1.3.0","name":"com.asapp.event.{feed}","meta_data":{{{meta}}},"data":{{{data}}},"event_id":"<id>","event_type":"{name}","details":{{{details}}}}}"#
    )
}

/// The members of `meta_data` in events about a customer.
pub const CUSTOMER_META: &str = r#""create_time":"<now>","event_time":"<now-7>","session_id":"<session>","issue_id":"<issue>","company_subdivision":"US","company_id":"acme","company_segments":["consumer","broadband"],"client_id":"<client>","client_type":"SMS""#;

/// The members of `meta_data` in events about agents and queues, which have no session, issue or client.
pub const SYSTEM_META: &str =
    r#""create_time":"<now>","event_time":"<now-4>","company_id":"acme","company_segments":["consumer"]"#;

/// The activity feed's event types.
pub const ACTIVITY: &[Type] = &[
    of("agent_activity_status_updated", 30, &[REP], &[STATUS]),
    of("agent_activity_routing_status_updated", 25, &[REP], &[STATUS, PREVIOUS_STATUS]),
    of("agent_activity_assignment_load_updated", 30, &[REP, REP_QUEUES], &[LOAD]),
    of("agent_activity_utilization_5_min", 15, &[REP], &[UTILIZATION]),
];

const REP: &str = r#""rep_id":"<rep>","desk_mode":"DIGITAL","rep_name":"<rep_name>","agent_given_name":"<rep_given>","agent_family_name":"<rep_family>","agent_display_name":"<rep_given>","external_rep_id":"<rep_external>","max_slots":4"#;
const REP_QUEUES: &str = r#""queue_ids":["<queue>"],"queue_names":["<queue_name>"]"#;
const STATUS: &str = r#""status_updated_ts":"<now-9>","status_description":"Available","routing_status_updated_ts":"<now-9>","routing_status":"ACTIVE""#;
const PREVIOUS_STATUS: &str = r#""previous_routing_status_updated_ts":"<now-9>","previous_routing_status":"AWAY","previous_routing_status_duration_sec":<30..900>,"previous_routing_status_start_ts":"<now-312000>""#;
const LOAD: &str = r#""assignment_load_updated_ts":"<now-11>","assigned_customer_ct":<0..4>"#;
const UTILIZATION: &str = r#""utilization_5_min_updated_ts":"<now-20>","utilization_5_min_window_start_ts":"<now-300020>","utilization_5_min_window_end_ts":"<now-20>","utilization_5_min_any_status":{"linear_sec":300,"linear_utilized_sec":<0..300>,"cumulative_sec":1200,"cumulative_utilized_sec":<0..1200>}"#;

/// The journey feed's event types.
pub const JOURNEY: &[Type] = &[
    of("ISSUE_CREATED", 8, &[CUSTOMER, SESSION], &[BEGUN, FIRST_INTENT]),
    of("INTENT_CHANGE", 8, &[CUSTOMER, SESSION], &[BEGUN, INTENT, FLOW]),
    of("NODE_VISITED", 14, &[CUSTOMER, SESSION], &[BEGUN, INTENT, FLOW]),
    of("LAST_FLOW_ACTION_CALLED", 8, &[CUSTOMER, SESSION], &[BEGUN, INTENT, FLOW, ACTION]),
    of("JOURNEY_CUSTOMER_PARAMETERS", 6, &[CUSTOMER, SESSION], &[BEGUN, INTENT, PARAMETERS]),
    of("QUEUED", 8, &[CUSTOMER, OPPORTUNITY], &[BEGUN, INTENT, FLOW, QUEUED]),
    of("ASSIGNED", 8, &[CUSTOMER, OPPORTUNITY, AGENT], &[BEGUN, INTENT, QUEUED, ASSIGNED]),
    of("AGENT_FIRST_RESPONDED", 8, &[CUSTOMER, OPPORTUNITY, AGENT], &[BEGUN, INTENT, QUEUED, ASSIGNED, RESPONDED]),
    of("TEXT_MESSAGE", 16, &[CUSTOMER, OPPORTUNITY, AGENT], &[BEGUN, QUEUED, ASSIGNED, RESPONDED, UTTERED]),
    of(
        "ASSIGNMENT_ENDED",
        6,
        &[CUSTOMER, OPPORTUNITY, AGENT],
        &[BEGUN, QUEUED, ASSIGNED, RESPONDED, UTTERED, ASSIGNMENT_ENDED],
    ),
    of("ISSUE_ENDED", 6, &[CUSTOMER, OPPORTUNITY, AGENT], &[BEGUN, INTENT, QUEUED, ASSIGNED, UTTERED, ENDED]),
    of("SURVEY_SUBMITTED", 4, &[CUSTOMER, SESSION], &[BEGUN, ENDED, SURVEY]),
];

const CUSTOMER: &str = r#""customer_id":"<customer>","session_id":"<session>","session_type":"asapp-sms""#;
const SESSION: &str = r#""user_id":"<customer>","user_type":"customer","session_update_ts":"<now-15>""#;
const OPPORTUNITY: &str = r#""opportunity_origin":"FLOW","opportunity_id":"<opportunity>","queue_id":"<queue>","group_id":"<queue>","queue_name":"<queue_name>""#;
const AGENT: &str = r#""agent_id":"<rep>","rep_id":"<rep>","agent_name":"<rep_name>","agent_given_name":"<rep_given>","agent_family_name":"<rep_family>","agent_display_name":"<rep_given>","external_agent_id":"<rep_external>""#;
const BEGUN: &str = r#""issue_start_ts":"<now-94210>""#;
const FIRST_INTENT: &str =
    r#""intent_code":"BILLING_QUESTION","business_intent_code":"billing/question","is_ghost_customer":false"#;
const INTENT: &str = r#""intent_code":"BILLING_DISPUTE","business_intent_code":"billing/dispute","intent_code_path":"BILLING_QUESTION>BILLING_DISPUTE","business_intent_code_path":"billing/question>billing/dispute""#;
const FLOW: &str = r#""flow_node_type":"RESPONSE","flow_node_name":"show_balance_<1..40>","flow_name_path":"Welcome>Billing>ShowBalance","business_flow_name_path":"Welcome>Billing>Show balance""#;
const ACTION: &str = r#""last_flow_action_called_ts":"<now-130>","last_flow_action_called_node_name":"lookup_account","last_flow_action_called_action_id":"account_lookup","last_flow_action_called_version":"<1..9>.2.0","last_flow_action_called_inputs":{"account_type":{"value":"residential","value_type":"VALUE_TYPE_STRING"},"months":{"value":"<1..24>","value_type":"VALUE_TYPE_NUMBER"}}"#;
const PARAMETERS: &str = r#""customer_params_key_name_01":"account_tier","customer_params_field_01":"gold","customer_params_key_name_02":"tenure_months","customer_params_field_02":"<1..240>","customer_params_key_name_03":"region","customer_params_field_03":"north-east","customer_params_key_name_04":"open_orders","customer_params_field_04":"<0..5>""#;
const QUEUED: &str = r#""detected_ts":"<now-71400>","escalated_ts":"<now-70900>","queued_ts":"<now-70850>""#;
const ASSIGNED: &str = r#""assigned_ts":"<now-52300>","queued_ms":<1000..90000>"#;
const RESPONDED: &str =
    r#""agent_first_response_ms":<900..40000>,"last_agent_utterance_ts":"<now-3900>","agent_utterance_ct":<1..30>"#;
const UTTERED: &str = r#""last_customer_utterance_ts":"<now-1250>","customer_utterance_ct":<1..40>"#;
const ASSIGNMENT_ENDED: &str =
    r#""assigment_ended_ts":"<now-25>","handle_ms":<20000..900000>,"ended_type":"AGENT_ENDED""#;
const ENDED: &str = r#""issue_ended_ts":"<now-12>","opportunity_ended_ts":"<now-12>","is_resolved":true"#;
const SURVEY: &str = r#""survey_submit_ts":"<now-31>","survey_responses":[{"question":"How likely are you to recommend us?","question_category":"NPS","question_type":"SCALE","answer":"<0..10>","ordering":1},{"question":"Was your problem solved today?","question_category":"RESOLUTION","question_type":"YES_NO","answer":"yes","ordering":2}]"#;

/// The queue feed's event types.
pub const QUEUE: &[Type] = &[
    of("queue_size_updated", 45, &[QUEUE_DATA, HOURS, CAPPING], &[SIZE]),
    of("queue_estimated_wait_time_updated", 45, &[QUEUE_DATA, HOURS, CAPPING], &[SIZE, WAIT]),
    of("queue_capping_settings_updated", 10, &[QUEUE_DATA, HOURS, HOLIDAYS, CAPPING], &[SIZE]),
];

const QUEUE_DATA: &str = r#""queue_id":"<queue>","queue_name":"<queue_name>""#;
const HOURS: &str = r#""business_hours_time_zone_offset_minutes":-300,"business_hours_time_zone_name":"America/New_York","business_hours_start_minutes":[1920,3360,4800,6240,7680],"business_hours_end_minutes":[2640,4080,5520,6960,8400]"#;
const HOLIDAYS: &str = r#""holiday_closed_dates":["2025-12-25T05:00:00.000Z","2026-01-01T05:00:00.000Z"]"#;
const CAPPING: &str = r#""queue_capping_enabled":true,"queue_capping_estimated_wait_time_seconds":900.0,"queue_capping_size":120,"queue_capping_fallback_size":0"#;
const SIZE: &str =
    r#""last_queue_size":<0..120>,"last_queue_size_ts":"<now-18>","last_queue_size_update_type":"ENQUEUE""#;
const WAIT: &str = r#""estimated_wait_time_updated_ts":"<now-21>","estimated_wait_time_seconds":<4..900>.5,"estimated_wait_time_is_available":true"#;
