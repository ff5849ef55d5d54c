from collections.abc import Mapping

class ChatParams:
    def __init__(self, *, chat_template_kwargs: Mapping[str, object]) -> None: ...
