"""The page of what is enforced where, and of what is not: from these tables, which tests hold against what there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from docs.tables import table

DELTA, XDS, E2E = "tests/gateway/xds/test_delta.py", "tests/gateway/xds", "tests/e2e"
KEYS = "tests/gateway/test_published_keys.py"
FAN_OUT = "tests/gateway/fanout"
CELLS = "tests/differential/test_cells.py::test_envoy_decides_and_derives_as_governance_does"
CANDIDATE, SHEET = "tests/gateway/reading/test_candidate.py", "tests/governance/contract/test_sheet.py"
CATALOG, BUNDLE = "tests/gateway/services/test_catalog.py", "tests/governance/test_bundle.py"
HOSTILE = "tests/gateway/discovery/test_hostile.py"
TOKENS, TRAPS = f"{XDS}/test_tokens.py", f"{XDS}/test_traps.py"


@dataclass(frozen=True, slots=True)
class Held:
    """What holds something. where: Envoy (which filter), the gateway (when) or the SDK. tests: "FILE::NAME"."""

    where: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotHeld:
    """Nothing enforces it. instead: what there is."""

    instead: str


# Field of options.proto -> what holds it.
OPTIONS: Mapping[str, Held | NotHeld] = {
    "Tool.name": NotHeld("the catalog shows it; a longer one is refused"),
    "Tool.summary": NotHeld("the catalog shows it, and search looks in it"),
    "Tool.domain": Held(
        "gateway, at admission: another than the ownership file's is refused",
        ("tests/gateway/discovery/test_admit.py::test_who_may_serve_a_package_is_what_the_ownership_says",),
    ),
    "Tool.owner_team": NotHeld("the catalog shows it"),
    "Tool.product_owner": NotHeld("the catalog shows it"),
    "Tool.contact": NotHeld("the catalog shows it"),
    "Tool.lifecycle": Held(
        "gateway, at admission: what is deprecated says when it goes; Envoy, by rules that ask for `tool.stage`",
        (f"{CANDIDATE}::test_bad_options_are_refused", CELLS),
    ),
    "Tool.slo": NotHeld("the catalog shows what is promised; nothing measures a tool against it"),
    "Tool.documentation": NotHeld("the catalog shows it"),
    "Tool.models": NotHeld("the catalog shows what the tool says it uses"),
    "Tool.prompts": NotHeld("the catalog shows what the tool says it uses"),
    "Tool.data_sources": NotHeld("the catalog shows what the tool says it uses"),
    "Tool.hidden": Held(
        "Envoy, in the refusal; gateway, in catalog, search, reflection and health",
        (
            f"{XDS}/test_refusals.py::test_a_hidden_tool_looks_unknown_to_those_who_may_not_call_it",
            f"{CATALOG}::test_tool_that_is_not_seen_answers_like_one_that_is_not_there",
        ),
    ),
    "Tool.labels": Held("Envoy, by rules that ask for `tool.labels`", (CELLS,)),
    "Method.summary": NotHeld("the catalog shows it, and search looks in it"),
    "Method.effect": Held(
        "Envoy, by rules that ask for it: unset is destructive; what may be repeated is tried once more",
        (
            CELLS,
            f"{SHEET}::test_an_effect_that_we_do_not_know_is_destructive",
            f"{XDS}/test_calls.py::test_only_what_changes_nothing_is_sent_twice",
        ),
    ),
    "Method.deadline": Held(
        "Envoy, route: the call is cut", (f"{XDS}/test_calls.py::test_the_tool_learns_how_long_it_has",)
    ),
    "Method.max_duration": Held(
        "Envoy, route: the stream is cut", (f"{SHEET}::test_a_stream_has_a_longest_life_and_a_longest_silence",)
    ),
    "Method.idle_timeout": Held(
        "Envoy, route: a silent stream is cut", (f"{SHEET}::test_a_stream_has_a_longest_life_and_a_longest_silence",)
    ),
    "Method.max_concurrency": Held(
        "Envoy, cluster: a method that states one is counted by itself",
        (f"{XDS}/test_refusals.py::test_a_method_at_its_limit_leaves_the_tools_other_methods_alone",),
    ),
    "Method.max_request_bytes": Held(
        "Envoy, route, where a call has one request; the SDK, for each message",
        (
            f"{XDS}/test_sizes.py::test_a_request_has_as_many_bytes_as_the_contract_says_and_no_more",
            "tests/llmesh/test_sizes.py::test_each_message_of_a_stream_is_held_to_the_size_and_not_their_sum",
        ),
    ),
    "Method.max_response_bytes": Held(
        "Envoy, route, where a call has one response; the SDK, for each message",
        (
            f"{XDS}/test_sizes.py::test_a_response_has_as_many_bytes_as_the_contract_says_and_no_more",
            "tests/llmesh/test_sizes.py::test_a_response_that_is_larger_than_the_contract_says_is_the_tools_fault",
        ),
    ),
    "Method.uses": Held(
        "Envoy, `llmesh.caller`: a delegation, or what a tool calls by in its own right, is for these methods alone",
        (
            f"{XDS}/test_delegation.py::test_what_the_contract_does_not_list_is_refused",
            f"{XDS}/test_delegation_attacks.py::test_a_token_of_a_tools_own_is_good_for_what_it_uses_and_until_it_ends",
        ),
    ),
    "Method.cost": Held(
        "Envoy, a quota for each caller and class; rules that ask for `tool.cost`",
        (f"{XDS}/test_quotas.py::test_what_costs_more_has_a_quota_of_its_own", CELLS),
    ),
    "Method.cacheable": NotHeld("the catalog shows it; no answer is kept or given twice"),
    "Method.needs_approval": NotHeld(
        "rules can ask for `tool.needs_approval`, and the catalog shows it; nothing asks a person before a call"
    ),
    "Method.examples": Held(
        "gateway, at admission: each must be of the method's own types",
        (f"{CANDIDATE}::test_bad_options_are_refused",),
    ),
    "Method.prompt": Held(
        "the SDK, when a tool starts: what the prompt names must be fields of the request",
        (
            "tests/llmesh/test_prompt.py::test_what_a_prompt_may_not_say_is_told_with_file_and_line",
            "tests/llmesh/test_by_prompt.py::test_a_prompt_for_another_message_ends_the_start",
        ),
    ),
    "Field.data_class": Held(
        "Envoy, by rules that ask for `tool.data_classes` and `tool.unclassified`: whole methods, not fields",
        (f"{SHEET}::test_classes_are_those_of_all_fields_within", CELLS),
    ),
    "Field.redact": NotHeld("no log and no record holds anything of a message, whether it says so or not"),
    "Field.meaning": NotHeld("the contract carries it to whoever reads it"),
    "Field.unit": NotHeld("the contract carries it to whoever reads it"),
    "Capability.name": NotHeld("the contract carries it to whoever reads it"),
    "Capability.summary": NotHeld("the contract carries it to whoever reads it"),
    "Capability.merge": Held(
        "gateway, of fan-outs that ask for one message and do not say how",
        (f"{FAN_OUT}/test_fanout.py::test_a_capability_says_how_answers_are_merged",),
    ),
}
# Key of a rule, and of a domain's file -> what holds it.
RULES: Mapping[str, Held | NotHeld] = {
    "id": Held(
        "Envoy, in the refusal: the ErrorInfo names the rule",
        (CELLS, f"{XDS}/test_refusals.py::test_a_forbidden_call_is_told_the_rule_and_the_reason"),
    ),
    "effect": Held("Envoy, `llmesh.rules`", (CELLS,)),
    "mode": Held(
        "nothing that a rule in shadow says is given to Envoy; decisions tell what it would do",
        (CELLS, "tests/governance/test_decide.py::test_a_shadow_rule_decides_nothing_and_is_told"),
    ),
    "applies.domains": Held("gateway, when the rules are compiled for a tool", (CELLS,)),
    "applies.services": Held("gateway, when the rules are compiled for a tool", (CELLS,)),
    "applies.methods": Held("gateway, when the rules are compiled for a tool", (CELLS,)),
    "applies.effects": Held("gateway, when the rules are compiled for a tool", (CELLS,)),
    "applies.roles": Held("Envoy, `llmesh.rules`", (CELLS,)),
    "when": Held(
        "Envoy, `llmesh.rules`, what is about the caller and the context; gateway, when they are compiled, what is "
        "about the tool. What cannot be carried exactly is refused when it is read",
        (CELLS, "tests/governance/test_language.py::test_what_cannot_be_carried_is_refused_with_what_to_write_instead"),
    ),
    "reason": Held("Envoy, in the refusal", (CELLS,)),
    "tests": Held(
        "`llmesh policy check`, where the files are written; the gateway takes rules whose tests fail",
        ("tests/governance/test_cli.py::test_a_rule_that_says_something_else_fails_its_tests",),
    ),
    "domain": Held(
        "gateway, when the files are read: the domain must own something",
        (f"{BUNDLE}::test_a_file_of_a_domain_that_owns_nothing_is_refused",),
    ),
    "default": Held(
        "Envoy, `llmesh.rules`",
        (
            "tests/differential/test_narrowing.py::test_no_file_of_a_domain_turns_a_deny_into_an_allow",
            f"{TRAPS}::test_deleting_a_domains_last_permit_widens_nothing",
        ),
    ),
}
# Key of an issuer -> what holds it.
ISSUERS: Mapping[str, Held | NotHeld] = {
    "name": Held(
        "Envoy, `llmesh.caller`: two issuers' same subject are two callers",
        (f"{TOKENS}::test_two_issuers_same_subject_are_two_callers",),
    ),
    "issuer": Held("Envoy, `llmesh.verify`", (CELLS, f"{TOKENS}::test_a_bad_token_is_unauthenticated_and_told_why")),
    "jwks": Held(
        "Envoy, `llmesh.verify`",
        (f"{E2E}/test_issuers.py::test_keys_are_rotated_without_a_failed_call", CELLS),
    ),
    "refresh_s": Held(
        "gateway, which fetches keys from a URL",
        (
            f"{KEYS}::test_keys_are_fetched_and_fetched_again_when_it_is_time",
            f"{KEYS}::test_keys_that_their_issuer_has_not_shown_for_a_day_are_believed_no_more",
        ),
    ),
    "audiences": Held(
        "Envoy, `llmesh.verify`", (CELLS, "tests/governance/test_issuers.py::test_an_issuer_must_be_strict")
    ),
    "algorithms": Held(
        "gateway, when keys are read: each key is given to Envoy with its one algorithm",
        ("tests/governance/test_issuers.py::test_public_keys_of_the_issuers_algorithms_are_used", CELLS),
    ),
    "max_lifetime_s": Held(
        "Envoy, `llmesh.caller`", (CELLS, f"{TOKENS}::test_a_token_without_the_time_of_its_issue_lives_from_now")
    ),
    "development": Held(
        "gateway, when the files are read: refused where the mesh listens beyond this machine",
        ("tests/gateway/test_policy.py::test_a_development_issuer_is_believed_on_this_machine_alone",),
    ),
    "bindings": Held("Envoy, `llmesh.caller`", (CELLS,)),
}
# Key of `limits` in the mesh file -> what holds it.
LIMITS: Mapping[str, Held | NotHeld] = {
    "file_bytes": Held("gateway, at admission", (f"{HOSTILE}::test_a_file_that_is_too_large_is_refused",)),
    "files": Held("gateway, at admission", (f"{HOSTILE}::test_files_without_end_are_refused",)),
    "endpoint_bytes": Held(
        "gateway, at admission", (f"{HOSTILE}::test_what_many_services_import_counts_for_each_of_them",)
    ),
    "definitions": Held("gateway, at admission", (f"{HOSTILE}::test_a_contract_that_defines_too_much_is_refused",)),
    "look_timeout_s": Held(
        "gateway, at admission",
        (f"{HOSTILE}::test_a_server_that_never_answers_is_given_up_and_what_it_said_before_counts",),
    ),
    "looks_at_once": Held(
        "gateway, at admission",
        (
            "tests/gateway/discovery/test_looks_at_once.py::test_no_more_endpoints_are_looked_at_at_one_time_than_the_limit",
        ),
    ),
    "refused_tokens_per_s": Held(
        "Envoy, `llmesh.floods`",
        (f"{E2E}/test_callers_that_attack_tokens.py::test_a_flood_of_forged_tokens_is_refused_unread",),
    ),
    "calls_per_s": Held(
        "Envoy, before the rules",
        (f"{XDS}/test_quotas.py::test_a_caller_who_calls_too_often_is_told_the_quota_and_when_to_try_again",),
    ),
    "quotas": Held("Envoy, after the rules", (f"{XDS}/test_quotas.py::test_what_costs_more_has_a_quota_of_its_own",)),
    "connections": Held(
        "Envoy, all of it",
        (f"{E2E}/test_callers_that_attack_bounds.py::test_further_connections_than_there_may_be_are_closed",),
    ),
}
# What can be blocked, and what is kept of calls -> what holds it.
BLOCKS: Mapping[str, Held | NotHeld] = {
    "a tool": Held(
        "Envoy, `llmesh.blocks`",
        (
            f"{XDS}/test_blocks.py::test_a_blocked_tool_stops_no_other",
            f"{XDS}/test_blocks.py::test_what_is_blocked_calls_nobody_however_far_up_it_acts",
        ),
    ),
    "a method": Held("Envoy, `llmesh.blocks`", (f"{XDS}/test_blocks.py::test_a_blocked_method_stops_no_other",)),
    "a domain": Held(
        "Envoy, `llmesh.blocks`", (f"{XDS}/test_blocks.py::test_a_blocked_domain_stops_its_packages_alone",)
    ),
    "a caller": Held(
        "Envoy, `llmesh.blocks`",
        (f"{XDS}/test_blocks.py::test_a_blocked_caller_is_stopped_everywhere_and_nobody_else_is",),
    ),
    "calls that are open, with `--cut`": Held(
        "the SDK, for the gateway; a server without it is named",
        (
            "tests/e2e/test_blocks.py::test_open_streams_end_at_once_where_they_are_cut",
            "tests/gateway/test_cuts.py::test_whoever_cannot_be_asked_is_told_of_where_it_matters",
        ),
    ),
    "until when": Held(
        "gateway", ("tests/gateway/blocks/test_blocks.py::test_a_block_ends_when_its_time_has_come_and_not_before",)
    ),
    "one record of each call": Held(
        "Envoy writes the call log, the gateway reads it",
        ("tests/gateway/records/test_ingest.py::test_a_gateway_that_begins_anew_reads_on_where_the_last_one_was",),
    ),
    "refused calls beyond `records.refused_per_minute` in one record": Held(
        "the gateway, as it reads the call log",
        ("tests/gateway/records/test_floods.py::test_no_call_is_missing_and_none_is_counted_twice",),
    ),
    "no more records than `records.keep_at_most`": Held(
        "the gateway, every 10 s",
        ("tests/gateway/records/test_floods.py::test_beyond_what_is_to_be_kept_the_oldest_are_deleted_which_is_told",),
    ),
    "blocks, when records have used up their room": Held(
        "the gateway: each has a database file of its own",
        ("tests/e2e/test_records.py::test_blocks_are_placed_and_ended_while_the_records_have_used_up_their_room",),
    ),
}
# How Envoy, or what is given to it, would let through what must not pass -> the test that tries it on what we emit.
TRAPS_TRIED: Mapping[str, tuple[str, ...]] = {
    "`checked_condition` of a policy is taken, and ignored": (
        "tests/gateway/snapshot/test_build.py::test_a_condition_is_never_one_that_envoy_ignores",
    ),
    "an expression without a value forbids nothing in a DENY": (
        "tests/governance/test_residue.py::test_a_rule_that_cannot_be_evaluated_denies",
        "tests/differential/test_cells.py::test_reasons_decide_nothing",
    ),
    "metadata of the caller is missing, or in part, or of other types": (
        f"{TRAPS}::test_where_no_caller_was_derived_nobody_is_let_in",
        f"{XDS}/test_calls.py::test_a_caller_that_is_derived_in_part_may_call_nothing",
    ),
    "a script that fails lets the call go on": (f"{TRAPS}::test_where_no_caller_was_derived_nobody_is_let_in",),
    "a tree keyed by metadata is taken, and never matches": (f"{TRAPS}::test_no_matcher_tree_is_keyed_by_metadata",),
    "an RBAC filter without rules lets everybody through": (
        f"{TRAPS}::test_no_rbac_that_decides_is_without_rules",
        "tests/gateway/snapshot/test_build.py::test_a_method_that_nobody_may_call_has_rules_that_allow_nothing",
    ),
    "a route that brings no rules has those of the listener": (
        f"{XDS}/test_calls.py::test_a_route_that_brings_no_rules_is_open_to_nobody",
        "tests/gateway/snapshot/test_build.py::test_the_listener_itself_is_open_to_nobody",
    ),
    "a discovered filter is removed": (f"{TRAPS}::test_a_filter_that_is_taken_away_lets_nobody_in",),
    "a discovered filter has not come yet": (
        f"{TRAPS}::test_the_port_stays_shut_while_one_of_the_filters_is_not_there",
    ),
    "an empty value leaves the client's own header standing": (
        f"{XDS}/test_calls.py::test_a_client_cannot_say_who_it_is_nor_steer_envoy",
        f"{E2E}/test_headers.py::test_repeated_headers_do_not_slip_past_the_strip",
    ),
    "a token without a subject is verified": (f"{XDS}/test_refusals.py::test_a_caller_without_a_subject_is_nobody",),
    "a token without an expiry is verified": (CELLS, f"{TOKENS}::test_a_bad_token_is_unauthenticated_and_told_why"),
    "no audiences mean any": ("tests/governance/test_issuers.py::test_an_issuer_must_be_strict",),
    "a token that is known is believed after its key has gone": (
        f"{E2E}/test_issuers.py::test_keys_are_rotated_without_a_failed_call",
        f"{XDS}/test_known_callers.py::test_a_token_that_is_no_longer_believed_makes_nobody_though_it_is_known",
    ),
    "clocks may be off by a minute, so that tokens outlive their call": (
        f"{XDS}/test_delegation.py::test_a_token_ends_with_the_call",
    ),
    "an object's key counts as a member, a null ends a list, an empty list is a map": (CELLS,),
    "claims that two readers read in two ways": (
        f"{XDS}/test_claims.py::test_claims_that_can_be_read_in_two_ways_make_nobody",
    ),
    "a prefix matches in the middle of a word: `acme.support` and `acme.supporters`": (
        "tests/governance/test_ownership.py::test_the_longest_prefix_of_whole_labels_owns_a_package",
    ),
    "a domain without permits counts as one without rules": (
        f"{TRAPS}::test_deleting_a_domains_last_permit_widens_nothing",
    ),
    "refused routes leave those of rules no longer in force": (
        f"{DELTA}::test_refused_routes_do_not_go_back_to_those_of_other_rules",
    ),
    "the path that is authorised is not the one that the tool sees": (
        f"{E2E}/test_callers_that_attack_paths.py::test_a_tool_sees_the_path_that_was_authorised_or_nothing",
    ),
    "more callers than there are buckets empty each other's": (
        f"{XDS}/test_quotas.py::test_as_many_callers_as_there_is_room_for_empty_nobodys_bucket",
    ),
    "a removed list of blocks counts as one that blocks all, and a path may be spelled past it": (
        f"{XDS}/test_blocks.py::test_what_is_unblocked_goes_on",
        f"{XDS}/test_blocks.py::test_no_spelling_of_a_path_reaches_a_blocked_tool",
        f"{XDS}/test_blocks.py::test_a_block_of_one_domain_frees_no_tool_of_another_from_the_other_blocks",
    ),
    "an option newer than the gateway reads as unset": (
        f"{SHEET}::test_an_effect_that_we_do_not_know_is_destructive",
        f"{SHEET}::test_a_cost_and_a_stage_that_we_do_not_know_are_the_worst",
    ),
    "a tool brings its own copy of the options": (
        f"{HOSTILE}::test_the_platforms_files_are_our_own_copies_whatever_a_tool_sends",
    ),
    "an Envoy of another version reads settings otherwise": (
        f"{DELTA}::test_an_envoy_of_another_version_is_not_programmed",
    ),
}
NOT_THERE = (
    (
        "rules on fields of requests",
        "rules are about methods whole; a tool checks what it is asked, by protovalidate or itself",
    ),
    ("taking fields out of answers", "rules can keep callers from a method by the classes of its data"),
    (
        "quotas over several Envoys, or ways in",
        "each counts for itself: calls at the mesh port, and branches of fan-outs",
    ),
    ("what a tool does with what it knows", "it is told who calls, and is trusted with the data it holds"),
    ("a stream that is open while rules change", "it keeps the decision it was opened with, to its longest duration"),
    ("servers at an address without TLS", "they are called, and marked as unprotected"),
)
ABOUT = (
    "Envoy enforces what is asked of every call; the gateway what is asked of a tool before it is called, and of files "
    "before they are in force; the SDK what only the tool's process can see. [Run and govern the mesh](platform.md) "
    "says how rules are written, and [threats](threats.md) who would get round them. Where "
    "`test_envoy_decides_and_derives_as_governance_does` stands, thousands of calls by made-up callers of made-up "
    "tools under made-up rules are answered by the real Envoy as the rules say, and mistakes put into the compiler on "
    "purpose make some differ."
)


def enforced(generated: str) -> str:
    """The page. generated: the note that it is."""
    parts = ["# What is enforced, and where", generated, ABOUT]
    for title, about, held in _SECTIONS:
        parts += [f"## {title}", about, table(("what", "where", "shown by"), _held(held))]
    unheld = [
        (name, each.instead) for _, _, held in _SECTIONS for name, each in held.items() if isinstance(each, NotHeld)
    ]
    parts += [
        "## How it would fail open",
        "Each is a way in which Envoy, set up otherwise, lets through what must not pass.",
        table(("trap", "shown by"), ((trap, _links(tests)) for trap, tests in TRAPS_TRIED.items())),
        "## What is not enforced",
        "By nothing in the mesh. Of the options of a contract:",
        table(("option", "what there is instead"), ((f"`{name}`", instead) for name, instead in unheld)),
        "Beside them:",
        table(("what", "what there is instead"), NOT_THERE),
    ]
    return "\n\n".join(parts) + "\n"


_SECTIONS: tuple[tuple[str, str, Mapping[str, Held | NotHeld]], ...] = (
    ("Options of contracts", "As a contract states them; unset reads as the most restrictive.", OPTIONS),
    ("Rules", "As the policy files state them.", RULES),
    ("Issuers", "As `issuers.yaml` states them.", ISSUERS),
    ("Limits", "As the mesh file states them.", LIMITS),
    ("Blocks and records", "As `llmesh block` states them, and as `llmesh audit` tells them.", BLOCKS),
)


def named_tests() -> Iterable[str]:
    """Every test that the page names, as "FILE::NAME"."""
    for _, _, held in _SECTIONS:
        for each in held.values():
            yield from each.tests if isinstance(each, Held) else ()
    for tests in TRAPS_TRIED.values():
        yield from tests


def _held(held: Mapping[str, Held | NotHeld]) -> Iterable[tuple[str, str, str]]:
    return ((_shown(name), each.where, _links(each.tests)) for name, each in held.items() if isinstance(each, Held))


def _shown(name: str) -> str:
    """What can be written stands in backticks."""
    return name if " " in name else f"`{name}`"


def _links(tests: Iterable[str]) -> str:
    parts = (test.split("::") for test in tests)
    return ", ".join(f"[{name}](../{file})" for file, name in parts)
