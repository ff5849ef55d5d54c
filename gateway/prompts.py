"""The prompts that a tool answers by, as its endpoints say when somebody asks: the gateway keeps none.

Nobody vouches for what a tool says of them. So the digests are made here, what
is read has bounds, and an endpoint that says something else is left out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice

import grpc.aio
from google.protobuf.message import DecodeError

from gateway.catalog import Endpoint, Tool
from gateway.reading.calls import Credentials, ask_once, no_credentials
from gateway.reading.candidate import NAME_MAX, UNSHOWABLE
from gateway.reading.refusal import Unreachable
from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.prompts.v1 import prompts_pb2 as pb
from llmesh.errors import Unavailable

__all__ = ["Prompts"]

PATH = "/llmesh.api.prompts.v1.PromptService/ListPrompts"
ANSWER_WITHIN_S = 5.0
MESSAGE_BYTES = 1 << 20
# Of one tool.
ENDPOINTS_MAX = 8
PROMPTS_MAX = 64
# Of one domain's tools, by all callers together.
AT_ONCE = 16


class Prompts:
    """Asks the tools' servers."""

    def __init__(self, *, credentials: Credentials = no_credentials, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        """credentials: how to call over TLS."""
        self._credentials = credentials
        self._answer_within_s = answer_within_s
        # By domain: one whose tools hang keeps no other from its own.
        self._turns = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(AT_ONCE))

    async def of(self, tool: Tool) -> Sequence[catalog.ToolPrompt]:
        """The tool's prompts in order of their names, then of their digests. Raises Unavailable if nothing answers."""
        asked = list(islice((each for each in tool.endpoints if each in tool.ready), ENDPOINTS_MAX))
        turns = self._turns[tool.domain]
        heard = await asyncio.gather(*(self._ask(each, turns) for each in asked))
        answers = [each for each in heard if isinstance(each, pb.ListPromptsResponse)]
        if not answers:
            why = next((each for each in heard if isinstance(each, str)), "none is ready: try again later")
            raise Unavailable(f"no endpoint of `{tool.service}` says by what prompts it answers: {why}")
        found: dict[tuple[str, str], catalog.ToolPrompt] = {}
        for each in answers:
            for prompt in _shown(each.prompts):
                known = found.setdefault((prompt.name, prompt.digest), prompt)
                known.endpoint_count += 1
        return [found[key] for key in sorted(found)]

    async def _ask(self, endpoint: Endpoint, turns: asyncio.Semaphore) -> pb.ListPromptsResponse | str:
        """What an endpoint says; in words, why that cannot be read."""
        try:
            async with turns:
                answer = await ask_once(
                    PATH,
                    b"",
                    endpoint.address,
                    message_bytes=MESSAGE_BYTES,
                    timeout_s=self._answer_within_s,
                    tls_name=endpoint.tls_name,
                    credentials=self._credentials,
                )
            return pb.ListPromptsResponse.FromString(answer)
        except grpc.aio.AioRpcError as error:
            # A server without the service answers by none.
            return pb.ListPromptsResponse() if error.code() is grpc.StatusCode.UNIMPLEMENTED else _why(error.code())
        except DecodeError:
            return "its answer is no message of the type"
        except Unreachable as err:
            return str(err)


def _why(code: grpc.StatusCode) -> str:
    match code:
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return f"its answer has more than {MESSAGE_BYTES} bytes, or it is too busy for one"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return "it did not answer in time: try again later"
        case _:
            return f"it answers {code.name}: try again later"


def _shown(prompts: Iterable[pb.Prompt]) -> Iterable[catalog.ToolPrompt]:
    """The prompts of one endpoint, each once, as people may read them."""
    once: dict[tuple[str, str], catalog.ToolPrompt] = {}
    for prompt in islice(prompts, PROMPTS_MAX):
        shown = catalog.ToolPrompt(
            name=_readable(prompt.name[:NAME_MAX]),
            digest=hashlib.sha256(prompt.text.encode()).hexdigest(),
            text=_readable(prompt.text),
            request_type=_readable(prompt.request_type[:NAME_MAX]),
            methods=[_readable(method[: 2 * NAME_MAX]) for method in prompt.methods[:PROMPTS_MAX]],
        )
        once.setdefault((shown.name, shown.digest), shown)
    return once.values()


def _readable(text: str) -> str:
    return UNSHOWABLE.sub("\ufffd", text)
