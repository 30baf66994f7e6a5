"""What each metric of a process means: the help lines of /metrics, and of the reference. Some parts describe their own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["METRIC_TEXTS"]

METRIC_TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sealbus_agent_processes": "Processes of each agent, by the pull requests that wait at the broker.",
        "sealbus_agent_unsettled_messages": "Messages that an agent was given and has not settled, by stream.",
        "sealbus_agent_waiting_messages": "Messages in a stream that an agent was not given yet: its lag, by stream.",
        "sealbus_audit_failures_total": "Audit messages that were not stored, by code; nothing was handled for lack of them.",
        "sealbus_audit_messages_total": "Audit messages that the stream acknowledged; each holds many records.",
        "sealbus_audit_seconds": "From handing records to the stream, or the spool, until they are stored.",
        "sealbus_audit_spool_bytes": "Bytes of records that wait on this process's disk for the stream.",
        "sealbus_audit_spool_messages": "Audit messages that wait on this process's disk for the stream.",
        "sealbus_audit_spooled_total": "Audit messages written to this process's disk first.",
        "sealbus_audit_waiting_records": "Outcomes that wait to be stored.",
        "sealbus_build_info": "Always 1, with the version of sealbus as its label.",
        "sealbus_bus_connect_failures_total": "Attempts to connect to NATS, or to replace a connection, that failed.",
        "sealbus_bus_connected": "Whether a connection to NATS works, by connection.",
        "sealbus_bus_connections_total": "Connections to NATS that were made.",
        "sealbus_bus_dropped_total": "Messages of NATS that were dropped unread, by reason.",
        "sealbus_bus_expired_total": "Connections cut because their certificate ended and there was no newer one.",
        "sealbus_bus_reconnects_total": "Connections to NATS made when there was none.",
        "sealbus_bus_rotations_total": "Connections to NATS replaced while they worked, for a newer certificate.",
        "sealbus_clock_ahead_seconds": "Seconds by which this host's clock is ahead of the broker's; negative if behind.",
        "sealbus_decision_seconds": "From asking the policy engine to its answer, which all messages of a batch await.",
        "sealbus_decisions_total": "Decisions about messages, by action and verdict.",
        "sealbus_denials_counted_total": "Denials beyond a sender's budget, which one record of the minute counts, by code.",
        "sealbus_denials_lost_total": "Decisions whose counts were not recorded, because the stream stored nothing.",
        "sealbus_reads_counted_total": "Answers that were read again, which one record of the minute counts.",
        "sealbus_edge_key_fetches_total": "Fetches of an issuer's keys (JWKS), by issuer and outcome.",
        "sealbus_edge_request_seconds": "From a request's head to the end of the answer, by route.",
        "sealbus_edge_requests_total": "Requests at the edge, by route and HTTP status; 0 if there was no answer.",
        "sealbus_effects_unmarked_total": "Claimed effects whose end could not be stored, by stage and reason.",
        "sealbus_gate_seconds": "From taking messages until they are verified, decided and recorded, by source.",
        "sealbus_handled_total": "Messages whose handler ended, by action and outcome.",
        "sealbus_handler_seconds": "From a message's turn to the end of its handler, by action.",
        "sealbus_handlers_given_up_total": "Handlers that did not stop in time and were given up, by action.",
        "sealbus_loop_blocked_seconds": "How long the event loop stood still, each time for over a second, by task.",
        "sealbus_no_place_total": "Deliveries that could not be put off because all places were taken, by cause.",
        "sealbus_outcomes_lost_total": "Outcomes that could not be recorded; their decisions are.",
        "sealbus_not_ready": "Always 1: a part for which work cannot be taken, as /readyz names it.",
        "sealbus_outbox_waiting_messages": "Messages that wait to be sealed and sent.",
        "sealbus_parked_total": "Tasks that wait for an approval, or could not be made to, by outcome.",
        "sealbus_policy_accepted_total": "Pushed parts of the policy that were accepted, by part.",
        "sealbus_policy_bundle_refused_total": "Bundles that the engine refused; the old one stays in force.",
        "sealbus_policy_info": "Always 1, with the engine and the revision in force as its labels.",
        "sealbus_policy_refused_total": "Pushed parts of the policy that were refused, by part; the old one stays.",
        "sealbus_policy_served_total": "Answers of the policy server, by HTTP status.",
        "sealbus_put_off_total": "Deliveries that were put off before their handler, by cause.",
        "sealbus_ready": "Whether work can be taken, as /readyz says.",
        "sealbus_refusals_lost_total": "Counts of refusals that could not be published.",
        "sealbus_refused_total": "Messages that failed verification (steps 1 to 13), by code.",
        "sealbus_revocations_failed_total": "Revocations that identity providers reported and that could not be published.",
        "sealbus_revocations_pushed_total": "Lists of revocations that were published.",
        "sealbus_statuses_total": "Statuses of tasks that were sent, by state and by whether they were stored.",
        "sealbus_stops_asked_total": "Messages whose cancel was looked for in HELD before they began.",
        "sealbus_stops_total": "Cancels that this process keeps in force.",
        "sealbus_stops_unkept_total": "Cancels that this process does not keep: it looks for them in HELD.",
        "sealbus_stops_unverified_total": "Bytes in the place of a cancel that do not verify, by code.",
        "sealbus_stream_bytes": "Bytes that a stream holds.",
        "sealbus_stream_limit_bytes": "Bytes that a stream may hold, by what it does when full: refuses or drops.",
        "sealbus_stream_messages": "Messages that a stream holds.",
        "sealbus_svid_expiry_timestamp_seconds": "When an SVID ends, by workload and source, as a Unix time.",
        "sealbus_svid_issued_timestamp_seconds": "When an SVID was issued, by workload and source, as a Unix time.",
        "sealbus_ticks_total": "Ticks of schedules, by what became of them.",
        "sealbus_ticks_unmarked_total": "Ticks that were sent or left out, and could not be marked as such.",
        "sealbus_ticks_unverified_total": "Bytes in the place of a claim on a tick that are none of ours.",
        "sealbus_unsettled_messages": "Messages that were taken and are not settled, handled or waiting.",
        "sealbus_waiting_messages": "Messages of these that wait for a handler.",
    }
)
"""Help line of each metric, by its name."""
