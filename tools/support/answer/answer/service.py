"""The service: a ticket in, cited passages out, and a reply from them."""

from acme.support.v1 import answer_pb2 as pb
from acme.support.v1 import answer_pb2_grpc

import llmesh

from .gather import cite, gather
from .reply import add_reply
from .ticket import title_of

__all__ = ["AnswersService"]

_DEFAULT_LIMIT = 5


class AnswersService(answer_pb2_grpc.AnswersServicer):
    """acme.support.v1.Answers; it keeps nothing."""

    async def AnswerTicket(self, request: pb.AnswerTicketRequest, context: object) -> pb.AnswerTicketResponse:
        """What all tools that find passages know about a ticket, and what a model makes of it."""
        call = llmesh.current_call()
        question = request.text or await title_of(call.mesh.channel, request.id)
        answer = await gather(call, question, limit=request.limit or _DEFAULT_LIMIT)
        if not request.passages_only:
            await add_reply(call, question, answer)
        # Last, as they may be too many: what a reply is from comes before them.
        cite(call, answer.sources)
        return answer
