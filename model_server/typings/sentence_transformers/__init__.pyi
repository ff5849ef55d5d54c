from collections.abc import Sequence

import torch

class Tokenizer:
    def __call__(
        self, text: Sequence[str], *, add_special_tokens: bool, truncation: bool
    ) -> dict[str, list[list[int]]]: ...

class SentenceTransformer:
    max_seq_length: int | None
    tokenizer: Tokenizer
    device: torch.device
    def __init__(self, model_name_or_path: str, *, local_files_only: bool) -> None: ...
    def get_embedding_dimension(self) -> int | None: ...
    def encode(self, sentences: Sequence[str], *, batch_size: int, show_progress_bar: bool) -> object: ...
