from collections.abc import Mapping

class AsyncEngineArgs:
    def __init__(
        self,
        *,
        model: str,
        served_model_name: str,
        dtype: str,
        enforce_eager: bool,
        enable_chunked_prefill: bool | None,
        max_model_len: int | None,
        max_num_seqs: int,
        max_num_queued_reqs: int,
        structured_outputs_config: Mapping[str, object],
        disable_log_stats: bool,
    ) -> None: ...
