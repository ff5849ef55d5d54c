"""A prompt: a file of a tool, bound to the message that it is rendered from.

It is Jinja, sandboxed, and of that as much as can be checked whole
(`llmesh._prompt_check`). What a request says goes in as data: it is never read as a template.
Needs the extra `ll-mesh[prompts]`.
"""

from __future__ import annotations

__all__ = ["FILE_MAX_BYTES", "Prompt", "PromptError", "Written"]

import hashlib
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from llmesh._services import ServeError

try:
    from jinja2 import StrictUndefined, Template, TemplateSyntaxError
    from jinja2.filters import FILTERS as _JINJA
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as missing:
    raise ServeError("prompts need Jinja: pip install 'll-mesh[prompts]'") from missing

from llmesh import _prompt_check as checks
from llmesh import _prompt_view as views
from llmesh._generate import Written, generate, has_room
from llmesh._prompt_check import PromptError
from llmesh.call import current_call
from llmesh.errors import InvalidCall

R = TypeVar("R", bound=Message)

FILE_MAX_BYTES = 65_536
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that has been checked.

    name: of its file, without the ending. text: the file's. digest: sha256 of
    the file, in hex. message: what it is rendered from.
    """

    name: str
    text: str = field(repr=False)
    digest: str
    message: Descriptor
    _template: Template = field(repr=False)
    _named: frozenset[str] = field(repr=False)

    @classmethod
    def load(cls, path: str | Path, message: type[Message]) -> Prompt:
        """Read a prompt from its file, to be rendered from messages of a type.

        Raises PromptError, with file and line, for a variable that is no field
        of the message, and for whatever else could fail when it is rendered.
        """
        path = Path(path)
        content = _content(path)
        text = content.decode()
        if not text.strip():
            raise PromptError(f"{path}: it says nothing")
        described = cast("Descriptor", message.DESCRIPTOR)
        try:
            tree = _environment().parse(text)
            named = checks.check(tree, described, file=str(path))
            template = _environment().from_string(tree)
        except TemplateSyntaxError as err:
            raise PromptError(f"{path}:{err.lineno}: {err.message}") from err
        # Of Python, which Jinja compiles a prompt to.
        except (RecursionError, SyntaxError) as err:
            raise PromptError(f"{path}: conditions, loops or values are nested too deep") from err
        # A number of more digits than Python reads.
        except ValueError as err:
            raise PromptError(f"{path}: {err}") from err
        digest = hashlib.sha256(content).hexdigest()
        return cls(path.stem, text, digest, described, template, named)

    def render(self, request: Message) -> str:
        """The prompt for a request.

        Raises InvalidCall if the request makes it longer than 262,144
        characters, or empty, or TypeError if it is of another type.
        """
        if request.DESCRIPTOR is not self.message:
            raise TypeError(f"`{self.name}` is rendered from `{self.message.full_name}`, and this is another message")
        room = views.Room()
        fields = self.message.fields_by_name
        given = {name: views.read(request, fields[name], room) for name in self._named}
        whole: list[str] = []
        left = views.LENGTH_MAX
        for piece in self._template.generate(given):
            left -= len(piece)
            if left < 0:
                raise views.too_long(f"the prompt comes to more than {views.LENGTH_MAX} characters")
            whole.append(piece)
        text = "".join(whole)
        if not text.strip():
            raise InvalidCall(f"the prompt `{self.name}` says nothing for this request", reason="PROMPT_EMPTY")
        return text

    async def ask(self, request: Message, response_type: type[R]) -> Written[R]:
        """What a model on the mesh answers to the prompt for a request, as a message of the type.

        Asked for the caller of the current call; prompt and model are cited.
        Raises Unavailable if there is no model on the mesh now, InvalidCall for
        a request that is too long, and ToolFailed where the model gives no
        answer of the type.
        """
        call = current_call()
        text = self.render(request)
        call.cite(prompt=self.name, digest=self.digest)
        return await generate(call, text, response_type)

    async def fits(self, request: Message, *, leaving: int) -> bool:
        """Whether the prompt for a request leaves the model of the mesh room to write so many tokens.

        Asked for the caller of the current call, whose method must list CountTokens under `uses`. Raises Unavailable
        if there is no model on the mesh now.
        """
        try:
            text = self.render(request)
        except InvalidCall:
            return False
        return await has_room(current_call(), text, leaving=leaving)


def _content(path: Path) -> bytes:
    if not _NAME.fullmatch(path.stem):
        raise PromptError(f"{path}: a prompt is named in lower case: letters, digits and `_`")
    try:
        content = path.read_bytes()
    except OSError as err:
        raise PromptError(f"{path}: {err.strerror}") from err
    if len(content) > FILE_MAX_BYTES:
        raise PromptError(f"{path}: a prompt has at most {FILE_MAX_BYTES} bytes, and this one {len(content)}")
    try:
        content.decode()
    except UnicodeDecodeError as err:
        raise PromptError(f"{path}: not UTF-8 from byte {err.start}") from err
    return content


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=views.written,
    )
    made.globals.clear()
    made.tests = {}
    own = {"items": views.Pairs.pairs, "join": views.Many.joined, "tojson": views.told}
    filters: dict[str, Any] = {**_JINJA, **own}
    made.filters = {name: filters[name] for name in checks.FILTERS}
    return made
