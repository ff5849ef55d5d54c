from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

def make_async(func: Callable[..., object], executor: Executor) -> Callable[..., Awaitable[object]]: ...
