"""Whether a local model could answer: its file is there and the one that was loaded, and its engine computes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage

from ringwall import App, Rules
from ringwall.errors import BadModelFile, ProviderUnavailable
from ringwall.model import ModelRequest, Sampling, collect
from ringwall_llama import LlamaCpp
from ringwall_llama.mapped import MappedFile
from ringwall_llama.provider import bundled_model
from tests.plugins.lives import live


async def test_a_model_that_is_well_says_so_until_it_is_closed() -> None:
    async with App(policy=Rules(""), model=LlamaCpp(threads=1)) as app:
        (model,) = [part for part in (await app.health(seconds=30)).parts if part.part == "model"]
        assert model.state == "ok"
    with pytest.raises(ProviderUnavailable, match="closed"):
        await app.models[0].check()


async def test_a_file_that_is_changed_or_gone_is_told_of(tmp_path: Path) -> None:
    path = Path(shutil.copy(bundled_model(), tmp_path / "mine.gguf"))
    model = LlamaCpp(path, threads=1)
    try:
        assert await model.check()
        os.utime(path, (1, 1))
        with pytest.raises(BadModelFile, match=r"mine\.gguf was changed since it was loaded"):
            await model.check()
        os.remove(path)  # noqa: PTH107
        with pytest.raises(BadModelFile, match=r"mine\.gguf is gone"):
            await model.check()
    finally:
        await model.close()


def test_a_file_of_another_hash_is_told_of_and_one_of_the_right_hash_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    with pytest.raises(BadModelFile, match="is not the file that it should be"):
        MappedFile(path, hashlib.sha256(b"others").hexdigest()).check()
    right = MappedFile(path, hashlib.sha256(b"weights").hexdigest())
    right.check()
    monkeypatch.setattr("ringwall_llama.mapped.sha256_of", None)  # whoever calls it now fails
    right.check()


async def test_in_a_fork_of_its_process_the_engine_is_told_to_have_ended() -> None:
    model = LlamaCpp(threads=1)
    await collect(model.stream(ModelRequest((HumanMessage("Hello?"),), sampling=Sampling(max_tokens=2))))

    async def is_told() -> None:
        with pytest.raises(ProviderUnavailable, match="thread ended"):
            await model.check()

    try:
        assert await asyncio.to_thread(live, is_told)
        assert await model.check()
    finally:
        await model.close()
