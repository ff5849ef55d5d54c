"""The page of what was reached, from the records in tests/bench/out that `make bench` writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from docs.tables import table

RECORDS = Path(__file__).resolve().parent.parent / "tests/bench/out"
Record = Mapping[str, Any]

# Name of a benchmark -> what it does, then its figures.
BENCHMARKS: Mapping[str, str] = {
    "data_path": "The mesh as shipped, the same with more rules and quotas (`governed`), an Envoy that only passes "
    "calls on, and a Python proxy serve the same calls in turn, with one worker each.",
    "rules": "What rules cost where there are many of them, and how well what is enforced is held to what is decided: "
    "cells are calls by one caller of one method under one policy, mutants are mistakes put into the compiler.",
    "blocks": "How soon a caller who calls all the time is stopped, with no blocks and with 10,000 others in force, "
    "and what these add to the calls that go on.",
    "records": "Calls go on while the gateway, then Envoy, is killed as `kill -9` does, five times each; what callers "
    "were answered is held against what is recorded.",
    "fleet": "Tools that run before the clock does: how soon all can be called, how soon one more can, and what each "
    "costs.",
    "up": "`llmesh up --detach` with the reference tools, where it has run before.",
    "search": "150 labelled questions, asked of some 2,000 tools; half of them share no word with the name of a tool "
    "that serves them.",
    "hostile": "Good calls go on while hostile tools and callers do what they can.",
    "passages": "100,000 vectors of 384 numbers are searched one query at a time, in one thread: by the index that "
    "retrieval tools use, and by looking at all of them in numpy. tests/bench/passages.py says what they are.",
    "questions": "The 100 questions of tests/search/docs.yaml are asked of the Python documentation search, with the "
    "vectors of all-MiniLM-L6-v2.",
    "restart": "Calls go on while the mesh's processes are restarted, die, hang and lose their disk.",
    "model": "Our model server and vLLM's own OpenAI server, beside each other and asked in turn: a tiny model with "
    "random weights writes texts of 32 tokens.",
    "gpu": "The same two servers on a GPU (`python -m tests.bench.gpu`).",
}
FIGURES: Mapping[str, str] = {
    "mesh_cpu_vs_envoy": "CPU time of a call through the mesh, as a multiple of Envoy's alone",
    "governed_cpu_vs_envoy": "the same with ten more conditions of the caller and two quotas, the gateway's time to "
    "record the call included",
    "python_proxy_cpu_vs_mesh": "CPU time of a call through the Python proxy, as a multiple of the mesh's",
    "mesh_added_p50_us": "what the mesh adds to a call through Envoy alone, one call at a time, the median",
    "governed_on_path_cpu_vs_envoy": "the same without recording, which nobody waits for",
    "record_cpu_us": "CPU time of the gateway to record a call",
    "mesh_cpu_us": "CPU time of a call through the mesh",
    "governed_cpu_us": "CPU time of a call through the mesh with more rules and quotas",
    "governed_alone_p50_us": "time of a call through that mesh, one at a time, the median",
    "envoy_cpu_us": "CPU time of a call through Envoy alone",
    "python_cpu_us": "CPU time of a call through the Python proxy",
    "mesh_alone_p50_us": "time of a call through the mesh, one at a time, the median",
    "envoy_alone_p50_us": "time of a call through Envoy alone, one at a time, the median",
    "python_alone_p50_us": "time of a call through the Python proxy, one at a time, the median",
    "rules_scaling": "CPU time of a call with 10,000 rules, ten of which bear on it, as a multiple of that with ten",
    "bundle_load_1000x1000_s": "from a file with a rule for each of 1,000 tools to all of them in force",
    "bundle_load_gateway_cpu_s": "CPU time of the gateway meanwhile",
    "bundle_load_failed_calls": "calls that failed meanwhile, and while rules were edited",
    "rule_edit_ms": "from the edit of one of those rules to its being in force, the median",
    "rule_edit_gateway_cpu_ms": "CPU time of the gateway meanwhile, the median",
    "differential_cells": "cells in which the real Envoy did what governance decides",
    "mutants_caught": "mutants that made a cell differ",
    "block_ms": "from the start of `llmesh block` to the first call that is refused, the median",
    "block_call_ms": "the same from a call of the API, the median",
    "block_call_10000_ms": "the same with 10,000 other callers blocked, the median",
    "block_10000_gateway_cpu_ms": "CPU time of the gateway meanwhile, the median",
    "block_10000_envoy_cpu_ms": "CPU time of Envoy meanwhile, the median",
    "blocks_scaling": "CPU time of Envoy for a call with 10,000 other callers blocked, as a multiple of that with none",
    "audit_lost_gateway_kill": "records that are missing where the gateway was killed",
    "audit_doubled": "records that are there more than once",
    "audit_lost_envoy_kill_ms": "from the first call of which there is no record to the end of Envoy, at most",
    "audit_ingest_cpu_us": "CPU time from a line of the call log to a record on the disk, a thousand at a time",
    "fleet1000_cold_start_s": "from nothing but 1,000 tools to a call of each",
    "fleet1000_cold_start_gateway_cpu_s": "CPU time of the gateway meanwhile",
    "fleet1000_cold_start_envoy_cpu_s": "CPU time of Envoy meanwhile",
    "fleet1000_cold_start_tools_cpu_s": "CPU time of the tools meanwhile",
    "fleet1000_change_ms": "with 1,000 tools, until one that is added can be called, the median",
    "fleet1000_change_failed_calls": "calls of the others that failed meanwhile",
    "fleet10000_change_ms": "with 10,000 tools, until one that is added can be called, the median",
    "fleet10000_change_failed_calls": "calls of the others that failed meanwhile",
    "fleet1000_last_vs_first": "time of a call of the last of 1,000 tools, as a multiple of the first's",
    "envoy_kb_per_tool": "memory of Envoy for each tool that nobody has called",
    "envoy_kb_per_called_tool": "memory of Envoy for each tool that was called",
    "gateway_mb_1000": "memory of the gateway with 1,000 tools",
    "up_to_first_call_s": "until the first good call",
    "up_returns_s": "until the command returns",
    "toolsearch_recall5_hybrid": "share of the questions with a tool that serves them among the first five",
    "toolsearch_recall5_words": "the same by words alone, as without a model server",
    "toolsearch_recall5_meanings": "the same by meanings alone",
    "toolsearch_2000_cpu_ms": "CPU time of a search among them, its query's vector at hand, the median",
    "toolsearch_10000_cpu_ms": "the same among five times as many",
    "hostile_harm": "good calls that failed",
    "hostile_tools": "hostile tools",
    "hostile_callers": "attacks by callers",
    "hostile_good_calls": "good calls",
    "passages100k_recall10": "share of the ten nearest that the index finds",
    "passages100k_speedup": "time of looking at all, as a multiple of the index's",
    "passages100k_exact_ms": "time to look at all, the median",
    "passages100k_index_ms": "time of the index, the median",
    "passages100k_build_cpu_s": "CPU time to make the index",
    "passages100k_half_speedup": "the same of the whole of a tool's search, with a filter that half of them pass",
    "passages100k_hundredth_speedup": "the same with one that a hundredth of them pass",
    "docs_recall5_words": "share of the questions that the first five passages answer, by words alone",
    "docs_recall5_hybrid": "the same by words and meanings",
    "restart_failed_calls": "calls that failed, of those that must not",
    "restart_calls": "calls",
    "restart_cases": "restarts and failures of parts",
    "generate_rps_vs_openai_c1": "texts a second of ours, as a multiple of vLLM's own, one at a time",
    "generate_rps_vs_openai_c8": "the same, eight at a time",
    "generate_rps_vs_openai_c32": "the same, 32 at a time",
    "ttft_vs_openai_c32": "time to the first token of ours, as a multiple of vLLM's own, 32 texts at a time",
    "generate_rps_mesh_vs_direct": "texts a second through the whole mesh, as a multiple of ours alone, 32 at a time",
    "structured_parse_rate": "messages of every shape, at temperature 2, that were read and right at the first attempt",
    "engine_ready_s": "from the start of the model server to the first token of a text, the median",
    "embed_bf16_vs_fp32": "vectors a second in bfloat16, as a multiple of single precision",
    "embed_bf16_cosine": "of the vectors of the one and the other, the least",
    "generate_tokens_per_s_c1": "tokens a second of ours, one text at a time",
    "generate_tokens_per_s_c8": "the same, eight at a time",
    "generate_tokens_per_s_c32": "the same, 32 at a time",
    "openai_tokens_per_s_c1": "tokens a second of vLLM's own, one text at a time",
    "openai_tokens_per_s_c8": "the same, eight at a time",
    "openai_tokens_per_s_c32": "the same, 32 at a time",
    "generate_first_token_ms_c32": "time to the first token of ours, 32 texts at a time",
    "openai_first_token_ms_c32": "the same of vLLM's own",
}
ABOUT = (
    "`make bench` measures them and writes this page. A figure holds for the machine and the commit it was measured on "
    "(`dirty`: with changes beside it); ratios and CPU time travel better than seconds."
)


def benchmarks(generated: str) -> str:
    """The page. generated: the note that it is."""
    parts = ["# What was measured", generated, ABOUT]
    for name, about in BENCHMARKS.items():
        path = RECORDS / f"{name}.json"
        if path.exists():
            parts += _benchmark(name, about, json.loads(path.read_text()))
    return "\n\n".join(parts) + "\n"


def _benchmark(name: str, about: str, records: Sequence[Record]) -> Iterable[str]:
    yield f"## {name.replace('_', ' ').capitalize()}"
    yield about
    yield table(("figure", "value", "target", "met", "what it is"), map(_row, records))
    of = records[0]
    yield f"{of['machine']}; {of['date']}; commit {of['commit']}."


def _row(record: Record) -> tuple[str, ...]:
    target = "" if record["target"] is None else f"{record['comparison']} {record['target']:g}"
    met = {None: "", True: "yes", False: "no"}[record["met"]]
    return f"`{record['figure']}`", f"{record['value']:g} {record['unit']}", target, met, FIGURES[record["figure"]]
