"""Decision records at a terminal."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from llmesh.api.policy.v1 import facts_pb2
from llmesh.api.records.v1 import records_pb2 as pb
from llmesh.cli.audit_show import record_line, records_table, tree_of

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b1m\r\u202e"
HOSTILE = pb.Record(
    call_id="one" + ESCAPE,
    phase=pb.Record.PHASE_END,
    caller=facts_pb2.Caller(subject="sam" + ESCAPE, actor="tool" + ESCAPE),
    service="acme.None" + ESCAPE,
    method="Get" + ESCAPE,
    outcome=pb.OUTCOME_UNKNOWN_METHOD,
    rule="rule" + ESCAPE,
    shadow=[pb.Shadow(rule="next" + ESCAPE, outcome=pb.OUTCOME_DENIED)],
    details="words" + ESCAPE,
)


def printed(shown: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=1000, color_system=None)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def test_what_a_caller_wrote_moves_no_cursor() -> None:
    for shown in (records_table([HOSTILE]), record_line(HOSTILE), tree_of([HOSTILE], HOSTILE.call_id)):
        text = printed(shown)
        assert "acme.None]0;owned[2J1m/Get" in text
        assert not set("\x1b\x07\x9b\r\u202e") & set(text)
