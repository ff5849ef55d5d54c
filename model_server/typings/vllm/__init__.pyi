from collections.abc import Sequence

from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

class SamplingParams:
    def __init__(
        self,
        *,
        temperature: float,
        top_p: float,
        top_k: int,
        max_tokens: int,
        stop: Sequence[str],
        seed: int | None,
        logprobs: int | None,
        output_kind: RequestOutputKind,
        structured_outputs: StructuredOutputsParams | None,
        skip_clone: bool,
    ) -> None: ...
