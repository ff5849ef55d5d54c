"""What all tools that find passages know about a question, asked at once in the caller's name."""

from collections.abc import Iterable, Iterator, Sequence

from acme.support.v1 import answer_pb2 as pb

import llmesh
from llmesh.api.mesh.v1 import mesh_pb2
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1 import retrieval_pb2 as retrieval

from .ticket import METHOD, SERVICE

__all__ = ["RETRIEVERS", "cite", "gather"]

Answered = llmesh.Branch[retrieval.RetrieveResponse]

# Of the time that the call has left: the rest is for the answer, without those that are slow.
_SHARE = 0.8
# However long the call may take: a reply takes its time, and passages don't.
_MOST_S = 8.0
# What a RetrieveRequest takes: a title is of another tool, and may be longer.
_QUERY_CHARS = 4096


def _retrievers() -> tuple[str, ...]:
    """The methods that the contract uses to find passages: all but those of the mesh and of the ticket store."""
    method = pb.DESCRIPTOR.services_by_name["Answers"].methods_by_name["AnswerTicket"]
    uses: Sequence[str] = method.GetOptions().Extensions[options.method].uses
    return tuple(name for name in uses if not name.startswith("llmesh.") and name != f"{SERVICE}/{METHOD}")


RETRIEVERS = _retrievers()


async def gather(call: llmesh.Call, question: str, *, limit: int) -> pb.AnswerTicketResponse:
    """The passages that bear on a question best, of all who were asked, and who gave no answer.

    Raises Unavailable if nobody answered.
    """
    request = retrieval.RetrieveRequest(query=question[:_QUERY_CHARS], limit=limit)
    timeout_s = _MOST_S if call.remaining_s is None else min(_MOST_S, call.remaining_s * _SHARE)
    asked = call.mesh.fan_out(request, retrieval.RetrieveResponse, timeout_s=timeout_s)
    branches: list[Answered] = []
    summary: mesh_pb2.Summary | None = None
    try:
        async for branch in asked:
            branches.append(branch)  # noqa: PERF401 a list made at once would be lost with the error
        summary = asked.summary
    except llmesh.NotFound as err:
        raise llmesh.Unavailable(f"nobody can be asked: {err.message}", reason="NO_ANSWERS") from err
    except llmesh.DeadlineExceeded:
        # What came before is there all the same.
        pass
    unanswered = list(_unanswered(branches, summary))
    if not any(branch.error is None for branch in branches):
        why = "; ".join(f"{each.method}: {each.reason}" for each in unanswered)
        raise llmesh.Unavailable(f"nobody who was asked answered: {why}", reason="NO_ANSWERS")
    return pb.AnswerTicketResponse(sources=_best(branches, limit=limit), unanswered=unanswered)


def cite(call: llmesh.Call, sources: Iterable[pb.Source]) -> None:
    """Cite what is given."""
    for each in sources:
        citation = each.passage.citation
        call.cite(tool=each.tool, title=citation.title, location=citation.location, digest=citation.digest)


def _best(branches: Iterable[Answered], *, limit: int) -> list[pb.Source]:
    """The passages with the highest scores, equal ones in order of the tools' names; a text once."""
    found = [
        pb.Source(passage=passage, tool=branch.tool)
        for branch in sorted(branches, key=lambda branch: branch.tool)
        for answer in branch.responses
        for passage in answer.passages
    ]
    # A score that is no number (NaN) is below all others.
    found.sort(key=lambda each: each.passage.score if each.passage.score > 0 else 0.0, reverse=True)
    once: dict[str, pb.Source] = {}
    for each in found:
        once.setdefault(each.passage.text, each)
    return list(once.values())[:limit]


def _unanswered(branches: Sequence[Answered], summary: mesh_pb2.Summary | None) -> Iterator[pb.Unanswered]:
    """Those that were to be asked and gave no answer, in the contract's order. summary: None if none came in time."""
    told = {f"{branch.tool}/{branch.method}": branch.error for branch in branches}
    for method in RETRIEVERS:
        error = told.get(method)
        if error:
            yield pb.Unanswered(method=method, code=error.code.name, reason=error.message)
        elif method in told:
            continue
        elif summary is None:
            yield pb.Unanswered(method=method, code="DEADLINE_EXCEEDED", reason="nothing came of it in time")
        elif method in summary.denied:
            yield pb.Unanswered(method=method, code="PERMISSION_DENIED", reason="you may not call it")
        else:
            # A caller may not even know of a tool of which they may call nothing.
            yield pb.Unanswered(method=method, code="NOT_FOUND", reason="it is not on the mesh for you")
