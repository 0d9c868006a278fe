"""The rows that llama.cpp computes at once, laid out in memory of ours."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np

from ringwall_llama.cells import Keys

_TOKEN = (1 << 32) - 1


class Batch:
    """Room for so many rows: each a token, its place in its sequence, and whether what follows it is asked for."""

    def __init__(self, rows: int) -> None:
        self._tokens = np.zeros(rows, np.int32)
        self._places = np.zeros(rows, np.int32)
        self._counts = np.ones(rows, np.int32)
        self._sequences = np.zeros(rows, np.int32)
        self._asked = np.zeros(rows, np.int8)
        first = self._sequences.ctypes.data
        self._pointers = (ctypes.POINTER(llama_cpp.llama_seq_id) * rows)(
            *(ctypes.cast(first + 4 * row, ctypes.POINTER(llama_cpp.llama_seq_id)) for row in range(rows))
        )
        self._whole = llama_cpp.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token)),
            embd=None,
            pos=self._places.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_pos)),
            n_seq_id=self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=ctypes.cast(self._pointers, ctypes.POINTER(ctypes.POINTER(llama_cpp.llama_seq_id))),
            logits=self._asked.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        self.rows = 0
        self.room = rows

    def clear(self) -> None:
        self.rows = 0

    def add(self, keys: Keys, sequence: int, place: int, *, asked: int) -> int:
        """Add the tokens that follow `place` in a sequence; ask for what follows the last `asked`. Returns the row."""
        first, end = self.rows, self.rows + len(keys)
        self._tokens[first:end] = keys & _TOKEN
        self._places[first:end] = np.arange(place, place + len(keys))
        self._sequences[first:end] = sequence
        self._asked[first:end] = 0
        self._asked[end - asked : end] = 1
        self.rows = end
        return first

    def whole(self) -> Any:
        """The batch as llama.cpp takes it."""
        self._whole.n_tokens = self.rows
        return self._whole
