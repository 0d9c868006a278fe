"""llama.cpp's context: what it may use, and what it is made with."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Final

import llama_cpp

from ringwall_llama.loaded import Loaded
from ringwall_llama.loading import cpus

BATCH: Final = 512
"""Rows computed at once, at most."""

KEPT: Final = 48
"""Sequences kept for what begins like them, beside those that are being written."""


@dataclass(frozen=True, slots=True)
class Room:
    """What an engine may use.

    `window` tokens of one request, `cells` of all together (what is kept included), `slots` requests at once,
    `queue` that wait for theirs, `threads` that compute.
    """

    window: int
    cells: int
    slots: int = 16
    queue: int = 256
    threads: int = 0


def new_context(model: Loaded, room: Room, abort: Any = None) -> Any:
    """llama.cpp's context; None if it could not be made.

    It breaks off while the text at `abort` is not empty, which must be there as long as the context is.
    """
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = room.cells
    params.n_batch = params.n_ubatch = min(room.cells, BATCH)
    params.n_seq_max = room.slots + KEPT
    # One pool of cells for all: what sequences share is stored once, and computed with once.
    params.kv_unified = True
    params.swa_full = True
    # Where it is, it passes over the cells of other sequences; without it each token is compared with all of them.
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
    params.n_threads = params.n_threads_batch = room.threads or cpus()
    params.no_perf = True
    if abort is not None:
        params.abort_callback = _is_set()
        params.abort_callback_data = ctypes.addressof(abort)
    return llama_cpp.llama_init_from_model(model.handle, params)


def _is_set() -> Any:
    """What llama.cpp asks between two operations: whether the text of one byte at an address is empty.

    A Python function would take the interpreter's lock thousands of times a second; `strlen` does not.
    """
    return ctypes.cast(ctypes.CDLL(None).strlen, llama_cpp.ggml_abort_callback)
