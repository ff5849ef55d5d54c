"""What callers are told of what vLLM raises. With its errors alone: no real engine raises them all on demand."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any as Untyped

import pytest

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import InvalidCall, MeshError, OverQuota, Unavailable
from model_server import vllm_engine
from model_server.engine import NoGrammarError
from model_server.vllm_engine import SHORT_CHARS, VllmEngine
from tests.eventually import eventually


class ServerError(Exception):
    """As vLLM has it."""


class ClientError(Exception):
    """As vLLM has it: parameter says what is wrong, where it is one of the sampling."""

    def __init__(self, words: str, parameter: str | None = None) -> None:
        super().__init__(words)
        self.parameter = parameter


class FullError(Exception):
    """As vLLM has it: a call too many."""


class DeadError(ServerError):
    """As vLLM has it: the engine is no more."""


class FailedError(ServerError):
    """As vLLM has it: of what else goes wrong with a text."""


def lent(*_: object, **__: object) -> object:
    """Whatever it is."""
    return {}


MODULES: dict[str, dict[str, object]] = {
    "vllm": {"SamplingParams": SimpleNamespace},
    "vllm.exceptions": {"QueueOverflowError": FullError, "VLLMClientError": ClientError},
    "vllm.inputs": {"TokensPrompt": dict},
    "vllm.inputs.engine": {"tokens_input": lent},
    "vllm.renderers": {},
    "vllm.renderers.inputs": {},
    "vllm.renderers.inputs.preprocess": {"parse_model_prompt": lent},
    "vllm.sampling_params": {
        "RequestOutputKind": SimpleNamespace(DELTA=1),
        "StructuredOutputsParams": SimpleNamespace,
    },
    "vllm.v1": {},
    "vllm.v1.engine": {},
    "vllm.v1.engine.exceptions": {"EngineDeadError": DeadError, "EngineGenerateError": FailedError},
}


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of vLLM that an engine needs to fail."""
    for name, parts in MODULES.items():
        module = ModuleType(name)
        vars(module).update(parts)
        monkeypatch.setitem(sys.modules, name, module)


class Failing:
    """An AsyncLLM that raises the same of every text."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.model_config = SimpleNamespace(max_model_len=10, get_diff_sampling_param=dict)
        self.renderer = SimpleNamespace(render_cmpl_async=self._read, default_cmpl_tok_params=None)

    def get_tokenizer(self) -> object:
        """One without control tokens."""
        return SimpleNamespace(get_added_vocab=dict)

    async def _read(self, *asked: object) -> list[object]:
        raise self._error

    async def generate(self, *asked: object) -> AsyncGenerator[object]:
        """Nothing."""
        raise self._error
        yield

    def shutdown(self, timeout: float) -> None:
        """It has nothing to end."""


def failing(error: Exception) -> Untyped:
    """The same, for whom wants vLLM's own."""
    return Failing(error)


async def told(error: Exception, *, schema: str = "", at_its_end: bool = False) -> Exception:
    """What an engine raises of a text."""
    engine = VllmEngine(failing(error))
    if at_its_end:
        await engine.close()
    with pytest.raises((MeshError, NoGrammarError)) as found:
        async for _ in engine.write([1], pb.Sampling(), reader="", schema=schema):
            pass
    return found.value


async def test_what_is_read_when_the_engine_is_gone_may_be_asked_again() -> None:
    gone = RuntimeError("cannot schedule new futures after shutdown")
    engine = VllmEngine(failing(gone))
    with pytest.raises(RuntimeError):
        await engine.read("a", reader="")
    await engine.close()
    with pytest.raises(Unavailable) as found:
        await engine.read("a", reader="")
    assert (found.value.reason, bool(found.value.retry_after_s)) == ("ENGINE_DIED", True)


async def test_what_is_too_long_is_told_in_words_that_help_its_caller() -> None:
    refused = ClientError("set truncate_prompt_tokens=-1", parameter="input_text")
    with pytest.raises(InvalidCall) as found:
        await VllmEngine(failing(refused)).read("a", reader="")
    assert (found.value.reason, found.value.violations[0].field) == ("INPUT_TOO_LONG", "prompt")
    assert found.value.message == "`prompt`: longer than the 9 tokens that the model reads at most: shorten it"


@pytest.mark.parametrize(
    ("error", "ending", "reason"),
    [
        (FailedError(), False, "ENGINE_FAILED"),
        (FailedError(), True, "ENGINE_DIED"),
        (DeadError(), False, "ENGINE_DIED"),
    ],
)
async def test_what_the_engine_gives_up_may_be_asked_again(error: Exception, *, ending: bool, reason: str) -> None:
    found = await told(error, at_its_end=ending)
    assert isinstance(found, Unavailable)
    assert (found.reason, bool(found.retry_after_s)) == (reason, True)


async def test_a_queue_that_is_full_says_when_to_come_again() -> None:
    found = await told(FullError())
    assert isinstance(found, OverQuota)
    assert (found.reason, bool(found.retry_after_s)) == ("QUEUE_FULL", True)


@pytest.mark.parametrize("schema", ["", "{}"])
async def test_sampling_that_is_refused_is_named_whether_there_is_a_schema_or_not(schema: str) -> None:
    found = await told(ClientError("too hot", parameter="temperature"), schema=schema)
    assert isinstance(found, InvalidCall)
    assert found.violations[0].field == "sampling"


async def test_a_schema_that_is_refused_has_no_grammar() -> None:
    assert isinstance(await told(ClientError("no such pattern"), schema="{}"), NoGrammarError)


async def test_of_many_schemas_of_one_caller_another_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read, go = list[str](), threading.Event()

    def slow(schema: str) -> str:
        assert go.wait(60)
        read.append(schema)
        return schema

    async def asks(reader: str) -> None:
        with pytest.raises(NoGrammarError):
            await anext(engine.write([1], pb.Sampling(), reader=reader, schema=f"of {reader}"))

    monkeypatch.setattr(vllm_engine, "shared", slow)
    engine = VllmEngine(failing(ClientError("no such pattern")))
    calls = [asyncio.ensure_future(asks("eve")) for _ in range(10)]
    await asyncio.sleep(0)
    calls.append(asyncio.ensure_future(asks("ada")))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*calls)
    assert read == ["of eve", "of ada", *["of eve"] * 9]


async def test_of_long_inputs_of_one_caller_one_is_read_at_a_time_and_short_ones_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go = list[str](), asyncio.Event()

    async def read(prompts: Sequence[str], _limits: object) -> list[dict[str, list[int]]]:
        begun.extend(prompt[0] for prompt in prompts)
        await go.wait()
        return [{"prompt_token_ids": [1]} for _ in prompts]

    def as_it_is(_config: object, text: str) -> str:
        return text

    monkeypatch.setattr(sys.modules["vllm.renderers.inputs.preprocess"], "parse_model_prompt", as_it_is)
    llm = failing(AssertionError())
    llm.renderer.render_cmpl_async = read
    engine = VllmEngine(llm)
    long = SHORT_CHARS + 1
    async with asyncio.TaskGroup() as tasks:
        for text, reader in (("a" * long, "ada"), ("b" * long, "ada"), ("c" * long, "bob"), ("d", "ada")):
            tasks.create_task(engine.read(text, reader=reader))

        async def those_that_may_have_begun() -> None:
            assert sorted(begun) == ["a", "c", "d"]

        await eventually(those_that_may_have_begun)
        go.set()
    assert sorted(begun) == ["a", "b", "c", "d"]
