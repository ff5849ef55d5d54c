from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

def save_file(
    tensor_dict: Mapping[str, NDArray[np.float32]], filename: Path, metadata: Mapping[str, str] | None = None
) -> None: ...
