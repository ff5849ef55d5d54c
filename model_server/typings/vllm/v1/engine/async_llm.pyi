from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs import TokensPrompt
from vllm.inputs.engine import TokensInput
from vllm.outputs import RequestOutput
from vllm.renderers.params import ChatParams, TokenizeParams

class ModelConfig:
    max_model_len: int
    def get_diff_sampling_param(self) -> dict[str, object]: ...

class Renderer:
    default_cmpl_tok_params: TokenizeParams
    default_chat_tok_params: TokenizeParams

    async def render_cmpl_async(
        self, prompts: Sequence[object], tok_params: TokenizeParams
    ) -> Sequence[Mapping[str, list[int]]]: ...
    async def render_chat_async(
        self, conversations: Sequence[Sequence[Mapping[str, str]]], chat_params: ChatParams, tok_params: TokenizeParams
    ) -> tuple[object, Sequence[Mapping[str, list[int]]]]: ...

class InputProcessor:
    process_inputs: Callable[..., object]
    process_inputs_async: Callable[..., Awaitable[object]]

class Tokenizer:
    def get_added_vocab(self) -> Mapping[str, int]: ...

class AsyncLLM:
    model_config: ModelConfig
    renderer: Renderer
    input_processor: InputProcessor
    @classmethod
    def from_engine_args(cls, engine_args: AsyncEngineArgs) -> AsyncLLM: ...
    @property
    def errored(self) -> bool: ...
    def get_tokenizer(self) -> Tokenizer: ...
    def generate(
        self, prompt: TokensInput | TokensPrompt, sampling_params: SamplingParams, request_id: str
    ) -> AsyncGenerator[RequestOutput]: ...
    async def is_sleeping(self) -> bool: ...
    def shutdown(self, timeout: float | None = None) -> None: ...
