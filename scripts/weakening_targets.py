"""The modules that `check_weakening.py` weakens, and the tests that have to notice."""

__all__ = ["SHAPED", "TARGETS"]

TARGETS: dict[str, str] = {
    "agents/console/api/area_access": "agents/console/api/test_area_access",
    "agents/console/api/edge_client": "agents/console/api/test_edge_client",
    "agents/console/pages/login": "agents/console/pages/test_login",
    "agents/console/pages/sessions": "agents/console/pages/test_sessions agents/console/pages/test_login",
    "agents/control/callout/nkeys": (
        "agents/control/callout/test_nkeys agents/control/callout/test_jwts agents/control/callout/test_xkey"
    ),
    "agents/control/callout/peer": "agents/control/callout/test_peer",
    "agents/control/callout/permissions": (
        "agents/control/callout/test_permissions agents/control/callout/test_starter_permissions"
    ),
    "agents/control/callout/policy": "agents/control/callout/test_policy",
    "agents/control/callout/protocol": (
        "agents/control/callout/test_protocol agents/control/callout/test_opening agents/control/callout/test_answer"
        " agents/control/callout/test_ordinary agents/control/callout/test_jwts"
    ),
    "agents/control/callout/responder": (
        "agents/control/callout/test_responder agents/control/callout/test_refused agents/control/callout/test_seen"
    ),
    "agents/control/notary/keys": "agents/control/notary/test_keys",
    "agents/control/notary/lease": "agents/control/notary/test_lease",
    "agents/control/notary/restored_stream": "agents/control/notary/test_restored_stream",
    "agents/control/witness/folder": "agents/control/witness/test_folder",
    "agents/control/witness/submission": "agents/control/witness/test_submission",
    "agents/control/revoker": "agents/control/test_revoker",
    "agents/edge/a2a/handler": "agents/edge/a2a/test_handler",
    "agents/edge/mcp/tool_calls": "agents/edge/mcp/test_tool_calls",
    "agents/control/policy_server": "agents/control/test_policy_server_app agents/control/test_policy_server_served",
    "agents/edge/a2a/kept_tasks": "agents/edge/a2a/test_kept_tasks",
    "agents/edge/a2a/messages": "agents/edge/a2a/test_messages",
    "agents/edge/a2a/principal": "agents/edge/a2a/test_principal",
    "agents/edge/a2a/webhook": "agents/edge/a2a/test_webhook",
    "agents/edge/oauth/tokens/pseudonyms": "agents/edge/oauth/tokens/test_random_pseudonyms",
    "agents/edge/http/admission": "agents/edge/http/test_admission",
    "agents/edge/http/bodies": "agents/edge/http/test_bodies",
    "agents/edge/http/cors": "agents/edge/http/test_cors",
    "agents/edge/http/forwarded": "agents/edge/http/test_forwarded",
    "agents/edge/http/peer": "agents/edge/http/test_peer",
    "agents/edge/http/rate_limits": "agents/edge/http/test_rate_limits",
    "agents/edge/http/reachable": "agents/edge/http/test_reachable",
    "agents/edge/http/tls": "agents/edge/http/test_tls",
    "agents/edge/mcp/client_request": "agents/edge/mcp/test_client_request",
    "agents/edge/mcp/sessions": "agents/edge/mcp/test_sessions",
    "agents/edge/egress/api": "agents/edge/egress/test_exit",
    "agents/edge/egress/credential": "agents/edge/egress/test_credential",
    "agents/edge/egress/operation": "agents/edge/egress/test_operation",
    "agents/edge/egress/outside_agents": "agents/edge/egress/test_outside_agents",
    "agents/edge/egress/outside_tools": "agents/edge/egress/test_outside_tools",
    "agents/edge/oauth/tokens/access_token": (
        "agents/edge/oauth/tokens/test_access_token agents/edge/oauth/tokens/test_introspection"
        " agents/edge/oauth/bound/test_possession agents/edge/oauth/tokens/test_remembered_tokens"
    ),
    "agents/edge/oauth/bearer": (
        "agents/edge/oauth/test_bearer agents/edge/oauth/tokens/test_access_token agents/edge/oauth/test_protected_resource"
    ),
    "agents/edge/oauth/bound/dpop": "agents/edge/oauth/bound/test_dpop agents/edge/oauth/bound/test_possession",
    "agents/edge/oauth/tokens/introspection": "agents/edge/oauth/tokens/test_introspection",
    "agents/edge/oauth/tokens/jwt": "agents/edge/oauth/tokens/test_access_token agents/edge/oauth/tokens/test_token_claims",
    "agents/edge/oauth/tokens/kept_tokens": "agents/edge/oauth/tokens/test_kept_tokens",
    "agents/edge/oauth/keys/key_set": (
        "agents/edge/oauth/keys/test_key_set agents/edge/oauth/tokens/test_access_token agents/edge/oauth/bound/test_dpop"
    ),
    "agents/edge/oauth/bound/possession": "agents/edge/oauth/bound/test_possession",
    "agents/edge/oauth/tokens/security_events": "agents/edge/oauth/tokens/test_security_events attack/test_security_events",
    "agents/control/log_server": "agents/control/test_log_server",
    "agents/evidence/fsck": "agents/evidence/test_fsck",
    "agents/evidence/served_log": "agents/evidence/test_served_log",
    "agents/evidence/standing": "agents/evidence/test_standing attack/test_forged_grants",
    "bus/work/schedules/standing": (
        "bus/work/schedules/test_standing attack/test_standing_grants agents/edge/v1/test_schedule_routes"
        " agents/edge/v1/test_standing_grants"
    ),
    "agents/evidence/approvals": "attack/test_forged_approvals agents/evidence/test_approvals",
    "bus/gate/authorizer": "bus/gate/test_authorizer bus/gate/test_gate",
    "bus/gate/gate": "bus/gate/test_gate bus/gate/test_restored_streams bus/telemetry/test_tracing",
    "bus/work/idempotency/replay_guard": ("bus/work/idempotency/test_replay_guard bus/streams/test_state_vectors"),
    "bus/work/cancel/stop": "bus/work/cancel/test_stop",
    "bus/gate/approval_authorizer": "bus/gate/test_approval_authorizer attack/test_approvals bus/gate/test_resumption",
    "bus/gate/opener": "bus/gate/test_gate bus/gate/test_restored_streams bus/gate/test_resumption",
    "bus/gate/resumption": "bus/gate/test_resumption attack/test_approvals",
    "bus/work/approvals/progress": (
        "bus/work/approvals/test_progress bus/gate/test_resumption bus/gate/test_parked_expiry attack/test_approvals"
    ),
    "bus/work/executor/ending": "bus/work/executor/test_ending",
    "bus/work/approvals/parking": "bus/work/approvals/test_parking attack/test_approvals bus/gate/test_resumption",
    "bus/work/approvals/marker": "bus/work/approvals/test_marker",
    "bus/work/approvals/parked_tasks": (
        "bus/work/approvals/test_parked_tasks bus/work/approvals/test_marker attack/test_approvals"
    ),
    "bus/sending/approval": "bus/sending/test_approval",
    "envelopes/accept/parked": "envelopes/accept/test_parked",
    "envelopes/accept/live": (
        "envelopes/accept/test_live envelopes/accept/test_steps_near envelopes/accept/test_steps"
        " envelopes/accept/test_steps_trust envelopes/records/test_archive_steps"
    ),
    "envelopes/accept/open_request": (
        "envelopes/accept/test_open_request envelopes/accept/test_steps_near envelopes/accept/test_result_steps"
        " envelopes/accept/test_result envelopes/accept/test_pending"
    ),
    "envelopes/accept/result": (
        "envelopes/accept/test_result envelopes/accept/test_steps_near envelopes/accept/test_result_steps"
    ),
    "envelopes/encoding/codec": (
        "envelopes/encoding/test_codec envelopes/accept/test_steps_near envelopes/accept/test_steps_form"
        " envelopes/accept/test_steps"
    ),
    "envelopes/encoding/jws": (
        "envelopes/encoding/test_jws envelopes/accept/test_steps_near envelopes/trust/test_credential"
        " envelopes/accept/test_steps_trust"
    ),
    "envelopes/encoding/strict_json": (
        "envelopes/encoding/test_strict_json envelopes/accept/test_steps_near envelopes/trust/test_bundles"
    ),
    "envelopes/export/standing": "envelopes/export/test_standing_facts attack/test_forged_grants",
    "envelopes/export/approvals": (
        "envelopes/export/test_approvals attack/test_forged_approvals agents/evidence/test_approvals"
    ),
    "envelopes/export/entries": (
        "envelopes/export/test_entries envelopes/export/test_export_vectors envelopes/export/test_export_near"
        " envelopes/export/test_order_reader"
    ),
    "envelopes/export/format": (
        "envelopes/export/test_format envelopes/export/test_export_vectors envelopes/export/test_export_near"
        " envelopes/export/test_layout"
    ),
    "envelopes/export/policy_files": (
        "envelopes/export/test_policy_files envelopes/export/test_export_vectors envelopes/export/test_export_near"
    ),
    "envelopes/export/receipt": (
        "envelopes/export/test_receipt_check envelopes/export/test_export_vectors envelopes/export/test_export_near"
        " envelopes/export/test_receipt envelopes/export/test_shown_message"
    ),
    "envelopes/export/tally": (
        "envelopes/export/test_repeated_records envelopes/export/test_export_vectors"
        " envelopes/export/test_export_near envelopes/export/test_tally"
    ),
    "envelopes/export/tiles": (
        "envelopes/export/test_tiles envelopes/export/test_export_vectors envelopes/export/test_export_near"
        " envelopes/export/test_tree_reader"
    ),
    "envelopes/export/latest": "envelopes/export/test_cosigned_exports",
    "envelopes/export/trust": (
        "envelopes/export/test_notary_messages envelopes/export/test_export_vectors envelopes/export/test_export_near"
        " envelopes/export/test_trust envelopes/export/test_trust_reader"
    ),
    "envelopes/export/trust_root": (
        "envelopes/export/test_trust_root envelopes/export/test_export_vectors envelopes/export/test_export_near"
        " envelopes/export/test_cosigned_exports"
    ),
    "envelopes/lifetimes": "envelopes/test_lifetimes envelopes/accept/test_steps_near",
    "envelopes/log/checkpoint": (
        "envelopes/log/test_strict_note envelopes/export/test_export_vectors envelopes/export/test_export_near"
        " envelopes/log/test_checkpoint envelopes/log/test_log_vectors envelopes/log/test_cosignature"
    ),
    "envelopes/log/cose_receipt": "envelopes/log/test_cose_receipt envelopes/log/test_log_vectors",
    "envelopes/log/cosignature": "envelopes/log/test_cosignature",
    "envelopes/log/entries": "envelopes/log/test_entries envelopes/log/test_log_vectors envelopes/log/test_entry_order",
    "envelopes/log/note": (
        "envelopes/log/test_lines envelopes/log/test_log_vectors envelopes/log/test_note_keys envelopes/log/test_note"
        " envelopes/log/test_strict_note"
    ),
    "envelopes/log/witness_policy": "envelopes/log/test_witness_policy envelopes/log/test_cosigned_checkpoint",
    "envelopes/log/tree_proofs": "envelopes/log/test_tree_proofs envelopes/log/test_log_vectors envelopes/log/test_frontier",
    "envelopes/log/receipt": "envelopes/log/test_receipt envelopes/log/test_log_vectors",
    "envelopes/log/tiles": "envelopes/log/test_tiles envelopes/log/test_log_vectors envelopes/log/test_tiled_tree",
    "envelopes/message/chain": (
        "envelopes/message/test_chain envelopes/accept/test_steps_near envelopes/accept/test_steps_trust"
        " envelopes/records/test_archive_steps"
    ),
    "envelopes/message/declaration": "envelopes/message/test_declaration",
    "envelopes/message/freshness": (
        "envelopes/message/test_freshness envelopes/accept/test_steps_near envelopes/accept/test_steps"
    ),
    "envelopes/message/header": (
        "envelopes/message/test_header envelopes/accept/test_steps_near envelopes/accept/test_steps_form"
        " envelopes/accept/test_steps"
    ),
    "envelopes/message/subjects": (
        "envelopes/message/test_subjects envelopes/accept/test_steps_near envelopes/accept/test_steps_form"
        " envelopes/accept/test_steps envelopes/message/test_matching"
    ),
    "envelopes/message/user_context": (
        "envelopes/message/test_context envelopes/accept/test_steps_near envelopes/accept/test_steps_trust"
        " envelopes/records/test_archive_steps envelopes/message/test_user_context"
    ),
    "envelopes/message/wire": (
        "envelopes/message/test_wire envelopes/accept/test_steps_near envelopes/accept/test_steps_form"
        " envelopes/accept/test_steps"
    ),
    "envelopes/records/archive": (
        "envelopes/records/test_archive envelopes/accept/test_steps_near envelopes/records/test_archive_steps"
    ),
    "envelopes/records/body": (
        "envelopes/records/test_body envelopes/accept/test_steps_near envelopes/records/test_archive_steps"
        " envelopes/records/test_evidence"
    ),
    "envelopes/trust/bundles": (
        "envelopes/trust/test_bundles envelopes/accept/test_steps_near envelopes/accept/test_steps_trust"
        " envelopes/records/test_archive_steps"
    ),
    "envelopes/trust/caches": (
        "envelopes/trust/test_caches envelopes/accept/test_steps_near envelopes/accept/test_steps"
        " envelopes/trust/test_bounded"
    ),
    "envelopes/trust/credential": (
        "envelopes/trust/test_credential envelopes/accept/test_steps_near envelopes/accept/test_steps_trust"
        " envelopes/records/test_archive_steps"
    ),
    "envelopes/trust/keys": (
        "envelopes/trust/test_keys envelopes/accept/test_steps_near envelopes/accept/test_steps_trust"
        " envelopes/records/test_archive_steps envelopes/trust/test_key_files"
    ),
    "envelopes/trust/merkle": (
        "envelopes/trust/test_merkle envelopes/accept/test_steps_near envelopes/accept/test_steps_trust"
    ),
    "envelopes/trust/names": (
        "envelopes/trust/test_names envelopes/accept/test_steps_near envelopes/message/test_subjects"
    ),
    "envelopes/trust/signature": (
        "envelopes/trust/test_signature envelopes/accept/test_steps_near envelopes/accept/test_steps_trust"
        " envelopes/records/test_archive_steps"
    ),
    "envelopes/trust/spiffe_id": (
        "envelopes/trust/test_spiffe_id envelopes/accept/test_steps_near envelopes/accept/test_steps_form"
        " envelopes/accept/test_steps"
    ),
    "policies/bundle/revocations": "policies/bundle/test_revocations policies/bundle/test_part_set",
    "policies/engines/revoking": "policies/engines/test_revoking",
    "tests/independent/verify_export": (
        "envelopes/export/test_independent envelopes/export/test_export_near envelopes/records/test_archive_near"
        " envelopes/records/test_archive_steps envelopes/accept/test_steps_near envelopes/records/test_record"
        " envelopes/records/test_decision envelopes/records/test_evidence envelopes/encoding/test_codec"
        " envelopes/message/test_header envelopes/message/test_user_context envelopes/encoding/test_strict_json"
        " envelopes/trust/test_bundles envelopes/message/test_wire envelopes/records/test_body"
        " envelopes/export/test_export_vectors attack/test_forged_approvals agents/evidence/test_approvals"
        " envelopes/export/test_approvals attack/test_forged_grants envelopes/test_independent_vectors"
    ),
}
"""The weakened modules, and the tests to run, the module's own first. The last module shares no code with ours."""

SHAPED: frozenset[str] = frozenset(TARGETS) - {"tests/independent/verify_export"}
"""Modules whose clauses, arguments, `min` and `max`, and keys are weakened, too: all but the verifier that shares no code
with ours. It spells out each form that SPEC.md has, and is there to be compared with ours: what no vector shows is found
where ours is weakened, and the vector is for both.
"""
