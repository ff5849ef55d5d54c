"""Methods that a prompt alone implements: found by their contract's option, checked before anything is served."""

from __future__ import annotations

__all__ = ["LISTED_BYTES", "PROMPTS_MAX", "ByPrompt", "PromptServicer"]

from collections.abc import Iterable
from typing import TYPE_CHECKING

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from llmesh._services import Behaviour, ServeError
from llmesh.api.options.v1 import options_pb2
from llmesh.api.prompts.v1 import prompts_pb2 as pb
from llmesh.api.prompts.v1.prompts_pb2_grpc import PromptServiceServicer
from llmesh.call import current_call
from llmesh.errors import Denied

if TYPE_CHECKING:
    from llmesh.prompt import Prompt

# Of one server; what they come to, with their names and methods. The gateway reads no more.
PROMPTS_MAX = 64
LISTED_BYTES = 1 << 20
_GENERATE = "llmesh.api.model.v1.ModelService/GenerateMessage"


class ByPrompt:
    """The prompts of a server, and the methods that they implement."""

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        """Raises ServeError if two have one name."""
        # By name; the methods as "service/Method".
        self._prompts: dict[str, Prompt] = {}
        self._methods: dict[str, list[str]] = {}
        for prompt in prompts:
            if prompt.name in self._prompts:
                message = f"there are two prompts `{prompt.name}`: name their files apart"
                raise ServeError(message)
            self._prompts[prompt.name] = prompt
            self._methods[prompt.name] = []

    def answering(self, method: MethodDescriptor) -> Behaviour | None:
        """What answers a method that no code implements, by its prompt; None if its contract names none.

        Raises ServeError if there is no such prompt here, or it cannot answer this method.
        """
        stated = method.GetOptions().Extensions[options_pb2.method]
        if not stated.prompt:
            return None
        path = f"{method.containing_service.full_name}/{method.name}"
        prompt = self._prompts.get(stated.prompt)
        fault = self._fault(method, prompt)
        if fault or prompt is None:
            message = f"`{path}` is implemented by the prompt `{stated.prompt}`, and {fault}"
            raise ServeError(message)
        self._methods[prompt.name].append(path)
        response_type = message_factory.GetMessageClass(method.output_type)

        async def answer(request: Message, _: object) -> Message:
            return (await prompt.ask(request, response_type)).message

        return answer

    def _fault(self, method: MethodDescriptor, prompt: Prompt | None) -> str:
        """Why the prompt cannot answer the method; empty if it can."""
        if prompt is None:
            there = ", ".join(f"`{name}`" for name in self._prompts) or "none"
            return f"the server was given {there}: pass prompts=[llmesh.Prompt.load(...)], or implement the method"
        if method.client_streaming or method.server_streaming:
            return "it streams: only a method of one request and one response can be"
        if prompt.message is not method.input_type:
            return f"that is rendered from `{prompt.message.full_name}`, not from `{method.input_type.full_name}`"
        if _GENERATE not in method.GetOptions().Extensions[options_pb2.method].uses:
            return f'a model is asked for the caller: its contract must say `uses: ["{_GENERATE}"]`'
        return ""

    def listed(self) -> pb.ListPromptsResponse:
        """The prompts in order of their names, each with the methods that it implements."""
        return pb.ListPromptsResponse(
            prompts=[
                pb.Prompt(
                    name=name,
                    text=prompt.text,
                    request_type=prompt.message.full_name,
                    methods=self._methods[name],
                )
                for name, prompt in sorted(self._prompts.items())
            ]
        )


class PromptServicer(PromptServiceServicer):
    """Shows a server's prompts to the gateway, which knows whom to show them."""

    def __init__(self, by_prompt: ByPrompt) -> None:
        """Of these. Raises ServeError if they are more than anybody reads."""
        self._listed = by_prompt.listed()
        count, size = len(self._listed.prompts), self._listed.ByteSize()
        if count > PROMPTS_MAX or size > LISTED_BYTES:
            most = f"a server has at most {PROMPTS_MAX}, of {LISTED_BYTES} bytes in all"
            message = f"there are {count} prompts, of {size} bytes: {most}"
            raise ServeError(message)

    async def ListPrompts(self, request: pb.ListPromptsRequest, context: object) -> pb.ListPromptsResponse:
        """All of them. Only the gateway may ask; whatever comes through the mesh has a call's id."""
        if current_call().call_id:
            raise Denied("only the gateway reads a tool's prompts from it", reason="NOT_THE_GATEWAY")
        return self._listed
