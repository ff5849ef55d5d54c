"""vLLM's AsyncLLM in this process, as an engine; its own processes are started and ended with it."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from itertools import count
from typing import TYPE_CHECKING
from typing import Any as Untyped

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import FailedPrecondition, OverQuota
from model_server.control_tokens import ControlTokens
from model_server.engine import NoGrammarError, Piece
from model_server.engine_faults import dead, failed, wrong
from model_server.grammar import shared
from model_server.hanging import wait_until_it_hangs
from model_server.importing import IMPORTING
from model_server.in_turn import InTurn, Turns
from model_server.settings import Settings
from model_server.source import ModelSource
from model_server.vllm_pieces import pieces_of

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.inputs.engine import TokensInput
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["VllmEngine", "import_vllm", "start_vllm"]

log = logging.getLogger("llmesh.model")

# How often an engine that nobody uses is asked whether it lives.
LOOK_EVERY_S = 0.2
# How long its processes may take to end by themselves: what they wrote has ended before, or been cut.
END_S = 2.0
RETRY_FULL_S = 1.0
# vLLM reads one input after another, a million characters in one to three seconds. So many are nothing to wait for.
SHORT_CHARS = 16_384
# vLLM is told by variables what its arguments don't say. What is set already stays.
ENVIRONMENT = {
    # The first log probabilities would be compiled for 20 s, in which nothing else is written.
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # As it has it on a CPU: this process has threads, with which it can't be forked.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # GiB, on a CPU.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # It warns of what it is told to do here, in a dozen lines at each start.
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # Of the engine's process.
    "PYTHONWARNINGS": "ignore::FutureWarning",
}
ON_CPU = {
    # A CPU's bfloat16 ends the worker by SIGILL, and compiling takes longer than it saves there.
    "dtype": "float32",
    "enforce_eager": True,
    # The worker in the engine's own process, as vLLM has it for one GPU. "uni" would be overruled for a process more,
    # which costs a third of the time to start, and a hand-over at each token.
    "distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor",
    # Whoever reads an input in parts sets its generator back, and a CPU's cannot be: one long input with a seed
    # would end the engine.
    "enable_chunked_prefill": False,
}
ROLES = {pb.ROLE_SYSTEM: "system", pb.ROLE_USER: "user", pb.ROLE_ASSISTANT: "assistant", pb.ROLE_TOOL: "tool"}

# INVARIANT: the thread that starts an engine lives as long as this process: the
# kernel ends the engine's processes with it (engine_process.py).
_starting = ThreadPoolExecutor(1, thread_name_prefix="vllm")
# Where schemas are read, which may take seconds: not where vLLM makes tokens of all inputs, one after another.
_reading = InTurn("schemas")


@cache
def import_vllm() -> Future[None]:
    """Import vLLM, once, in a thread, which can't be broken off: it takes a start the longest, and needs no model."""
    return _starting.submit(_import)


def _import() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with IMPORTING:
        for name in ("vllm.engine.arg_utils", "vllm.v1.engine.async_llm"):
            import_module(name)
    # To look through all that for garbage takes half a second, in which no text goes on.
    gc.freeze()


async def start_vllm(source: ModelSource, settings: Settings) -> VllmEngine:
    """An engine with the model, ready. Takes from seconds to minutes. Raises whatever vLLM does."""
    try:
        await asyncio.shield(asyncio.wrap_future(import_vllm()))
    except Exception:
        # What was in its way may be gone by the next start.
        import_vllm.cache_clear()
        raise
    begun = _Start(source, settings)
    running = asyncio.get_running_loop().run_in_executor(_starting, begun.run)
    try:
        return VllmEngine(await asyncio.shield(running))
    except asyncio.CancelledError:
        while not running.done():
            begun.give_up()
            await asyncio.wait([running], timeout=LOOK_EVERY_S)
        if running.exception() is None:
            running.result().shutdown()
        raise


class _Start:
    """One start of an engine, in a thread; another may give it up."""

    def __init__(self, source: ModelSource, settings: Settings) -> None:
        self._source = source
        self._settings = settings
        self._given_up = False

    def run(self) -> AsyncLLM:
        """Start it, and wait until it is ready."""
        from vllm import envs
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        on_cpu = current_platform.is_cpu()
        arguments = AsyncEngineArgs(**_arguments(self._source, self._settings, on_cpu=on_cpu))
        if on_cpu:
            # For the engine: this process has read it by now. One processor is for those who talk to it.
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))
        if self._given_up:
            raise InterruptedError
        llm = AsyncLLM.from_engine_args(arguments)
        llm.input_processor.process_inputs_async = partial(_made, llm.input_processor.process_inputs)
        # At each token it would look up variables anew, as its own processes do not.
        envs.enable_envs_cache()
        return llm

    def give_up(self) -> None:
        """Have it fail soon, if this is said until it has: it waits for its processes."""
        self._given_up = True
        _kill()


def _processes() -> Iterator[int]:
    """The ids of those that vLLM has started: nothing else here starts any in this way."""
    for process in multiprocessing.active_children():
        if process.pid is not None:
            yield process.pid


def _kill() -> None:
    """End them at once."""
    for process in multiprocessing.active_children():
        process.kill()


class VllmEngine:
    """An engine, by vLLM."""

    def __init__(self, llm: AsyncLLM) -> None:
        """llm: ready."""
        self._llm = llm
        self._died = asyncio.Event()
        self._numbers = count()
        self._reading_long = Turns()
        self.context_length = int(llm.model_config.max_model_len)
        self.dimension = 0
        self.capabilities = (pb.MODEL_CAPABILITY_WRITE,)
        tokenizer = llm.get_tokenizer()
        self._control_tokens = ControlTokens(tokenizer.get_added_vocab())
        if getattr(tokenizer, "chat_template", None):
            self.capabilities += (pb.MODEL_CAPABILITY_CONVERSE,)
        self.defaults = _defaults(llm.model_config.get_diff_sampling_param())

    async def read(self, asked: pb.Conversation | str, *, reader: str, whole: bool = False) -> Sequence[int]:
        """The tokens of what is asked."""
        if _chars(asked) <= SHORT_CHARS:
            return await self._read(asked, whole=whole)
        async with self._reading_long.of(reader):
            return await self._read(asked, whole=whole)

    async def _read(self, asked: pb.Conversation | str, *, whole: bool) -> Sequence[int]:
        from vllm.exceptions import VLLMClientError

        try:
            if isinstance(asked, str):
                return await self._read_prompt(asked, whole=whole)
            return await self._read_conversation(asked, whole=whole)
        except VLLMClientError as err:
            field = "prompt" if isinstance(asked, str) else "conversation"
            if str(getattr(err, "parameter", "")).startswith("input_"):
                words = f"longer than the {self.context_length - 1} tokens that the model reads at most: shorten it"
                raise wrong(field, words, reason="INPUT_TOO_LONG") from err
            raise wrong(field, str(err), reason="REFUSED_BY_MODEL") from err
        except RuntimeError as err:
            if not self._died.is_set():
                raise
            # Its threads end with it.
            raise dead() from err

    async def _read_prompt(self, text: str, *, whole: bool) -> Sequence[int]:
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        prompt, renderer = parse_model_prompt(self._llm.model_config, text), self._llm.renderer
        limits = renderer.default_cmpl_tok_params
        (read,) = await renderer.render_cmpl_async(
            [prompt], replace(limits, max_total_tokens=None) if whole else limits
        )
        return read["prompt_token_ids"]

    async def _read_conversation(self, conversation: pb.Conversation, *, whole: bool) -> Sequence[int]:
        from vllm.renderers.params import ChatParams

        if pb.MODEL_CAPABILITY_CONVERSE not in self.capabilities:
            raise FailedPrecondition("the model has no template for conversations: send a prompt", reason="UNABLE")
        messages = [{"role": ROLES[each.role], "content": self.plain(each.content)} for each in conversation.messages]
        asked = ChatParams(chat_template_kwargs={"add_generation_prompt": True})
        limits = self._llm.renderer.default_chat_tok_params
        limits = replace(limits, max_total_tokens=None) if whole else limits
        _, (read,) = await self._llm.renderer.render_chat_async([messages], asked, limits)
        return read["prompt_token_ids"]

    def plain(self, text: str) -> str:
        """The text, with its control tokens parted."""
        return self._control_tokens.part(text)

    async def write(
        self, tokens: Sequence[int], sampling: pb.Sampling, *, reader: str, schema: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """What follows the tokens."""
        from vllm.exceptions import QueueOverflowError, VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            parameters = _parameters(sampling, await _reading.run(reader, shared, schema) if schema else "")
            # vLLM takes one name twice, and mixes the two up.
            name = f"llmesh-{next(self._numbers)}"
            outputs = self._llm.generate(_asked(tokens, reader, schema), parameters, name)
            async with aclosing(outputs):
                compiling = bool(schema)
                async for output in outputs:
                    for piece in pieces_of(output, sampling.logprobs, compiling=compiling):
                        yield piece
                    compiling = False
        except EngineDeadError as err:
            self._died.set()
            raise dead() from err
        except EngineGenerateError as err:
            raise (dead() if self._died.is_set() else failed()) from err
        except QueueOverflowError as err:
            words = "too many calls wait for the model"
            raise OverQuota(words, retry_after_s=RETRY_FULL_S, quota="queue", reason="QUEUE_FULL") from err
        except VLLMClientError as err:
            # Of a schema, vLLM names no parameter.
            if schema and getattr(err, "parameter", None) is None:
                raise NoGrammarError(str(err)) from err
            raise wrong("sampling", str(err), reason="REFUSED_BY_MODEL") from err

    async def wait_for_death(self) -> None:
        """Return once its processes are dead. If they hang, they are killed. Raises what keeps it from looking."""
        async with asyncio.TaskGroup() as watching:
            killing = watching.create_task(self._kill_once_it_hangs(), name="llmesh engine hangs?")
            while not self._llm.errored and not self._died.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._died.wait(), LOOK_EVERY_S)
            killing.cancel()

    async def _kill_once_it_hangs(self) -> None:
        """So that all who wait for it are told, as after any death."""
        await wait_until_it_hangs(self._llm.is_sleeping, _processes)
        log.error("engine hangs, and is killed")
        _kill()

    async def close(self) -> None:
        """End its processes."""
        self._died.set()
        await asyncio.get_running_loop().run_in_executor(_starting, self._llm.shutdown, END_S)


def _chars(asked: pb.Conversation | str) -> int:
    return len(asked) if isinstance(asked, str) else sum(len(each.content) for each in asked.messages)


def _arguments(source: ModelSource, settings: Settings, *, on_cpu: bool) -> dict[str, Untyped]:
    """What vLLM is told."""
    arguments: dict[str, Untyped] = {
        "model": str(source.folder),
        "served_model_name": source.id,
        "max_model_len": settings.context_length or None,
        "max_num_seqs": settings.concurrency,
        # vLLM counts those that are written, too.
        "max_num_queued_reqs": settings.concurrency + settings.queue,
        # Without these two an answer that must fit a schema can be spaces without end.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "disable_log_stats": False,
        "use_tqdm_on_load": False,
    }
    if on_cpu:
        arguments |= ON_CPU
    return arguments


def _asked(tokens: Sequence[int], reader: str, schema: str) -> TokensInput | TokensPrompt:
    """The tokens in vLLM's words."""
    from vllm.inputs import TokensPrompt
    from vllm.inputs.engine import tokens_input

    if schema:
        # As if it had yet to be read: so vLLM parses the schema, which may take seconds, by `_made`, and not on the
        # loop, where every text that is written goes through.
        return TokensPrompt(prompt_token_ids=list(tokens), cache_salt=reader)
    return tokens_input(list(tokens), cache_salt=reader)


async def _made(work: Callable[..., object], name: str, prompt: TokensPrompt, *told: object, **named: object) -> object:
    """What vLLM's engine is given of tokens and a schema; made in the turn of whom it is for."""
    return await _reading.run(prompt["cache_salt"], work, name, prompt, *told, **named)


def _parameters(sampling: pb.Sampling, schema: str) -> SamplingParams:
    """The same in vLLM's words. Raises VLLMClientError for what can't be."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop),
        seed=sampling.seed if sampling.HasField("seed") else None,
        logprobs=sampling.logprobs if sampling.HasField("logprobs") else None,
        output_kind=RequestOutputKind.DELTA,
        structured_outputs=StructuredOutputsParams(json=schema) if schema else None,
        # Nobody else has them: a deep copy of each call's would be for nothing.
        skip_clone=True,
    )


def _defaults(stated: dict[str, object]) -> pb.Sampling:
    """What the model's makers say of sampling, as far as it can be said here."""
    defaults = pb.Sampling()
    for name in ("temperature", "top_p"):
        if isinstance(value := stated.get(name), int | float):
            setattr(defaults, name, float(value))
    if isinstance(top_k := stated.get("top_k"), int) and top_k > 0:
        defaults.top_k = top_k
    return defaults
