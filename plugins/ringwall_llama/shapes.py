"""What shapes a model's replies without being the model: LoRA adapters and control vectors."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import llama_cpp
import numpy as np
import numpy.typing as npt

from ringwall.errors import BadModelFile, InvalidInput
from ringwall_llama.cells import Domain
from ringwall_llama.gguf import check_gguf, read_vectors
from ringwall_llama.loaded import Loaded

_DIRECTION: Final = re.compile(r"direction\.(\d+)")


class Shapes:
    """Adapters and control vectors by name, loaded once. Raises `BadModelFile` for files that do not fit the model."""

    def __init__(self, model: Loaded, adapters: Mapping[str, Path], controls: Mapping[str, Path]) -> None:
        self._model = model
        self._adapters = {name: self._adapter(path) for name, path in adapters.items()}
        self._controls = {name: self._control(path) for name, path in controls.items()}

    def check(self, domain: Domain) -> None:
        """Raise `InvalidInput` for a name that nothing was loaded under."""
        for kind, name, known in zip(
            ("adapter", "control vector"), domain, (self._adapters, self._controls), strict=True
        ):
            if name and name not in known:
                raise InvalidInput(f"no {kind} {name!r}", expected=f"one of {sorted(known)}, or none")

    def put_on(self, context: Any, domain: Domain) -> None:
        """Let everything that is computed from here on be shaped by these two, or by none."""
        adapter, control = domain
        chosen = [self._adapters[adapter]] if adapter else []
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(*chosen)
        llama_cpp.llama_set_adapters_lora(context, handles, len(chosen), (ctypes.c_float * 1)(1.0))
        width = llama_cpp.llama_model_n_embd(self._model.handle)
        layers = llama_cpp.llama_model_n_layer(self._model.handle)
        if control:
            values = self._controls[control]
            first = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            llama_cpp.llama_set_adapter_cvec(context, first, values.size, width, 1, layers)
        else:
            llama_cpp.llama_set_adapter_cvec(context, None, 0, width, 1, layers)

    def _adapter(self, path: Path) -> Any:
        check_gguf(path)
        handle = llama_cpp.llama_adapter_lora_init(self._model.handle, os.fsencode(path))
        if not handle:
            raise BadModelFile(
                f"llama.cpp cannot load the adapter {path}",
                expected="a LoRA adapter, as GGUF, of this very model",
                hint="the log `ringwall.llama` says why",
            )
        return handle  # freed with the model

    def _control(self, path: Path) -> npt.NDArray[np.float32]:
        """A row for each layer from the second on; zeros where the file has none."""
        width = llama_cpp.llama_model_n_embd(self._model.handle)
        rows = np.zeros((llama_cpp.llama_model_n_layer(self._model.handle), width), np.float32)
        for name, vector in read_vectors(path).items():
            found = _DIRECTION.fullmatch(name)
            if not found or not 1 <= int(found[1]) <= len(rows) or vector.size != width:
                raise BadModelFile(
                    f"{path} holds {name!r} of {vector.size} numbers",
                    expected=f"`direction.1` to `direction.{len(rows)}`, each of {width} numbers",
                )
            rows[int(found[1]) - 1] = vector
        return rows
