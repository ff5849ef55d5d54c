from contextlib import AbstractContextManager

class dtype: ...

class device:
    type: str

bfloat16: dtype

def inference_mode() -> AbstractContextManager[None]: ...
def autocast(device_type: str, dtype: dtype) -> AbstractContextManager[None]: ...
