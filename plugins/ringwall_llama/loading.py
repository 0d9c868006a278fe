"""What every use of llama.cpp begins and ends with: a file becomes a model, a text its tokens."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import llama_cpp

from ringwall.errors import BadModelFile

_log: Final = logging.getLogger("ringwall.llama")


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _to_log(level: int, text: bytes, _: object) -> None:
    """llama.cpp tells a lot, and calls half of it an error: it is there for whoever looks for it."""
    _log.debug(text.decode("utf-8", "replace").rstrip())


@cache
def _silent_at_the_end() -> None:
    """Take the log away before the interpreter is gone: llama.cpp goes on telling while what is left of it is freed.

    What it tells then goes to a function that looks at a number and does nothing.
    """
    nothing = ctypes.cast(ctypes.CDLL(None).abs, llama_cpp.llama_log_callback)
    atexit.register(llama_cpp.llama_log_set, nothing, None)


def load(path: Path, *, gpu_layers: int = 0) -> Any:
    """The model in a file that was checked, so many layers of it on a GPU. Raises `BadModelFile`."""
    llama_cpp.llama_log_set(_to_log, None)
    _silent_at_the_end()
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), _model_params(gpu_layers))
    if not model:
        raise BadModelFile(f"llama.cpp cannot load {path}", hint="the log `ringwall.llama` says why")
    return model


def free(context: Any, model: Any) -> None:
    """Give back what they hold; `context` may be what came of a failure."""
    if context:
        llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)


def tokenized(vocab: Any, text: str, *, special: bool = False, control: bool = False) -> list[int]:
    """The tokens of `text`, with `special` those that the model wants around it.

    What looks like a control token is one only if `control` says so.
    """
    data = text.encode("utf-8", "replace")
    room = len(data) + 8
    array = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(vocab, data, len(data), array, room, special, control)
    return list(array[:count])


def cpus() -> int:
    """The processors this process may use; not every system can tell them from all there are."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _model_params(gpu_layers: int) -> Any:
    """llama.cpp's own, without its kernels for AMX: they end the process.

    Compilers drop the tile configuration they set up, and the processor faults on what is left
    (llama.cpp issue 20824). A build without them (`scripts/setup` makes one) keeps its other repacked kernels.
    """
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()
    params.n_gpu_layers = gpu_layers
    return params
