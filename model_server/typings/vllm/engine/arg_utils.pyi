from typing import Any

class AsyncEngineArgs:
    def __init__(self, **arguments: Any) -> None: ...
