from contextlib import AbstractContextManager

from torch import cpu as cpu

class dtype: ...

class device:
    type: str

bfloat16: dtype

def inference_mode() -> AbstractContextManager[None]: ...
def autocast(device_type: str, dtype: dtype, enabled: bool) -> AbstractContextManager[None]: ...
