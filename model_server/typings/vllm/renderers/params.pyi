from collections.abc import Mapping
from dataclasses import dataclass

class ChatParams:
    def __init__(self, *, chat_template_kwargs: Mapping[str, object]) -> None: ...

@dataclass(frozen=True)
class TokenizeParams:
    max_total_tokens: int | None
