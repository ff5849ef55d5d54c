from collections.abc import Sequence

class BpeTrainer:
    def __init__(
        self,
        *,
        vocab_size: int,
        min_frequency: int,
        special_tokens: Sequence[str],
        initial_alphabet: Sequence[str],
        show_progress: bool,
    ) -> None: ...
