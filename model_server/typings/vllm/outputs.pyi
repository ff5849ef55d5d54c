from collections.abc import Sequence

from vllm.logprobs import Logprob

class CompletionOutput:
    text: str
    token_ids: Sequence[int]
    logprobs: Sequence[dict[int, Logprob]] | None
    finish_reason: str | None

class RequestOutput:
    outputs: list[CompletionOutput]
    num_cached_tokens: int | None
