from enum import Enum

class RequestOutputKind(Enum):
    DELTA = 1

class StructuredOutputsParams:
    def __init__(self, *, json: str) -> None: ...
