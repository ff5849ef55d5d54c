"""Our server against vLLM's own in rounds: each asks every way for the same texts in turn.

So what else the machine does falls on all alike. A figure is the median over
the rounds.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.figures import Figure
from tests.bench.model_servers import STREAMS
from tests.bench.model_ways import Way, first_token_s, tokens_per_s

OURS, MESH, OPENAI = "ours", "mesh", "openai"
ROUNDS = 5
# Texts at a time -> texts of a load: as many as take two seconds.
LOADS: Mapping[int, int] = {1: 10, 8: 60, STREAMS: 160}
# Texts at a time -> what our rate is to be, as a multiple of vLLM's own.
TARGETS: Mapping[int, float] = {1: 0.95, 8: 1.0, STREAMS: 1.0}


@dataclass(slots=True)
class Round:
    """By the way's name: tokens a second, by how many texts at a time; and seconds to the first token of the most."""

    rates: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])
    first_s: dict[str, float] = field(default_factory=dict[str, float])


def rounds(ways: Mapping[str, Way]) -> Sequence[Round]:
    """Rounds that count, after one that doesn't. Raises BadAnswersError unless every text was written."""
    _round(ways)
    return [_round(ways) for _ in range(ROUNDS)]


def _round(ways: Mapping[str, Way]) -> Round:
    done = Round()
    for streams, texts in LOADS.items():
        done.rates[streams] = {name: tokens_per_s(way, texts, streams=streams) for name, way in ways.items()}
    for name in (OURS, OPENAI):
        done.first_s[name] = asyncio.run(first_token_s(ways[name], LOADS[STREAMS], streams=STREAMS))
    return done


def compared(found: Sequence[Round]) -> Sequence[Figure]:
    """Ours as a multiple of vLLM's own."""
    return [
        *(
            Figure(
                f"generate_rps_vs_openai_c{streams}", rate_ratio(found, streams, OURS, OPENAI), "ratio", target, ">="
            )
            for streams, target in TARGETS.items()
        ),
        Figure(
            f"ttft_vs_openai_c{STREAMS}",
            _median(found, lambda each: each.first_s[OURS] / each.first_s[OPENAI]),
            "ratio",
            0.8,
        ),
    ]


def told(found: Sequence[Round]) -> Sequence[Figure]:
    """What the two are themselves."""
    figures: list[Figure] = []
    for prefix, name in (("generate", OURS), ("openai", OPENAI)):
        for streams in TARGETS:
            rate = _median(found, lambda each, name=name, streams=streams: each.rates[streams][name])
            figures.append(Figure(f"{prefix}_tokens_per_s_c{streams}", rate, "tokens/s"))
        first_s = _median(found, lambda each, name=name: each.first_s[name])
        figures.append(Figure(f"{prefix}_first_token_ms_c{STREAMS}", first_s * 1000, "ms"))
    return figures


def rate_ratio(found: Sequence[Round], streams: int, name: str, to: str) -> float:
    """The texts a second of one way as a multiple of another's."""
    return _median(found, lambda each: each.rates[streams][name] / each.rates[streams][to])


def _median(found: Sequence[Round], of: Callable[[Round], float]) -> float:
    return statistics.median(map(of, found))
