"""A model in the format that is fastest here: what it costs is measured, kept, and not more than was allowed."""

import asyncio
import fcntl
import json
import math
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from typer.testing import CliRunner

from ringwall import cli
from ringwall.errors import BadModelFile, ConfigurationError, InvalidInput
from ringwall.model import ModelRequest, Sampling, collect
from ringwall.model.contract import ask
from ringwall.model.files import Quality, Speed, Trial, Tuned, TuneOptions
from ringwall_llama import GgufFiles, LlamaCpp, tune
from ringwall_llama.measuring import quality, reference, requantise
from ringwall_llama.provider import bundled_model
from ringwall_llama.tuning import bundled_text, made

TEXT = bundled_text()[:1500]
"""One piece of 256 tokens, and not two."""

OPTIONS = TuneOptions(formats=("Q4_0",), threads=(1,), text=TEXT)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the bundled model says of the text."""
    folder = tmp_path_factory.mktemp("reference")
    assert reference(bundled_model(), folder, TEXT).pieces == 1
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the bundled model was tuned."""
    folder: Path = tmp_path_factory.mktemp("cache") / "ringwall" / "models"
    tune(bundled_model(), OPTIONS, folder=folder)
    return folder


@pytest.fixture
def home(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """What was made of the bundled model, to be damaged; mended afterwards."""
    (home,) = folder.iterdir()
    kept = {file: file.read_bytes() for file in home.glob("*.json")}
    yield home
    for file, content in kept.items():
        file.write_bytes(content)


def speeds_of(home: Path, name: str) -> Path:
    (file,) = home.glob(f"speed-{name}-1-*.json")
    return file


def say(file: Path, **figures: float) -> None:
    """Let a file of the cache say something else."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **figures}))


def trial(tuned: Tuned, format: str) -> Trial:
    return next(trial for trial in tuned.trials if trial.format == format)


# ---- what is lost


def test_the_original_beside_itself_loses_nothing_at_all(original: Path) -> None:
    found = quality(bundled_model(), original, TEXT)
    assert (found.kl, found.kl_error, found.agreement) == (0, 0, 1)
    assert found.perplexity == found.original > 1


@pytest.mark.parametrize("format", ["Q4_0", "IQ4_NL"])
def test_another_format_loses_a_little(original: Path, tmp_path: Path, format: str) -> None:
    path = tmp_path / "made.gguf"
    requantise(bundled_model(), path, format)
    found = quality(path, original, TEXT)
    assert 0 < found.kl < 1
    assert 0 < found.kl_error < found.kl
    assert 0.5 < found.agreement < 1
    assert GgufFiles().facts(path).quantisation == format


def test_what_loses_more_than_it_may_is_refused(folder: Path, home: Path) -> None:
    say(speeds_of(home, "Q4_0"), read=1e6, eight=1e6)
    strict = tune(bundled_model(), TuneOptions(OPTIONS.formats, OPTIONS.threads, 1e-9, TEXT), folder=folder)
    assert (strict.best.format, strict.best.path) == ("", bundled_model())
    assert not trial(strict, "Q4_0").is_good(1e-9)
    loose = tune(bundled_model(), TuneOptions(OPTIONS.formats, OPTIONS.threads, 1.0, TEXT), folder=folder)
    assert loose.best.format == "Q4_0"
    assert loose.best.path.parent == home


@pytest.mark.parametrize("kl", [0.2, math.nan])
def test_a_divergence_that_is_no_number_is_as_bad_as_one_that_is_too_large(kl: float) -> None:
    lost = Quality(perplexity=20.0, original=20.0, kl=kl, kl_error=0.0, agreement=1.0)
    assert not Trial("Q4_0", Path(), 1, 1, Speed(1.0, 1.0, 1.0), lost).is_good(0.1)


# ---- what is kept


def test_what_was_measured_is_not_measured_again(folder: Path, home: Path) -> None:
    say(speeds_of(home, "original"), one=12345.0)
    again = tune(bundled_model(), OPTIONS, folder=folder)
    assert again.trials[0].speed.one == 12345.0


def test_a_saving_too_small_to_be_told_from_noise_changes_nothing(folder: Path, home: Path) -> None:
    say(speeds_of(home, "original"), read=100.0, eight=100.0)
    say(speeds_of(home, "Q4_0"), read=101.0, eight=101.0)
    assert tune(bundled_model(), TuneOptions(("Q4_0",), (1,), 1.0, TEXT), folder=folder).best.format == ""


def test_a_damaged_measurement_is_made_again_and_comes_out_the_same(folder: Path, home: Path) -> None:
    (kept,) = home.glob("quality-Q4_0-*.json")
    before = kept.read_bytes()
    kept.write_text('{"perplexity": "low"}')
    tune(bundled_model(), OPTIONS, folder=folder)
    assert kept.read_bytes() == before


def test_a_file_that_was_cut_short_is_made_again(folder: Path, home: Path) -> None:
    path = made(bundled_model(), "Q4_0", home)
    size = path.stat().st_size
    os.truncate(path, size // 2)
    assert made(bundled_model(), "Q4_0", home).stat().st_size == size


def test_what_is_kept_is_private_and_nothing_half_made_is_left(folder: Path, home: Path) -> None:
    assert home.stat().st_mode & 0o777 == 0o700
    assert {file.suffix for file in home.iterdir()} == {".json", ".gguf"}


def test_a_folder_that_others_can_write_to_is_refused(folder: Path, home: Path) -> None:
    home.chmod(0o777)
    try:
        with pytest.raises(ConfigurationError, match="open to others"):
            tune(bundled_model(), OPTIONS, folder=folder)
    finally:
        home.chmod(0o700)


def test_a_second_tuning_waits_for_the_first(folder: Path) -> None:
    told: queue.Queue[str] = queue.Queue()
    first = os.open(folder, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    second = threading.Thread(
        target=lambda: tune(bundled_model(), OPTIONS, lambda what, _: told.put(what), folder=folder)
    )
    second.start()
    assert told.get(timeout=60) == "waiting for another tuning"
    assert told.empty()
    os.close(first)
    second.join(60)
    assert told.qsize() == 4


# ---- what goes wrong


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (TuneOptions(formats=("Q9",)), "Q9"),
        (TuneOptions(threads=(0,)), "0 threads"),
        (TuneOptions(formats=("Q4_0",), threads=(1,), text="Far too short."), "too short"),
    ],
)
def test_options_that_cannot_be_tried_are_the_callers_mistake(folder: Path, options: TuneOptions, wrong: str) -> None:
    with pytest.raises(InvalidInput, match=wrong):
        tune(bundled_model(), options, folder=folder)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"nothing of that kind" * 100)
    with pytest.raises(BadModelFile):
        tune(path, OPTIONS, folder=tmp_path)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be kept"):
        tune(bundled_model(), OPTIONS, folder=tmp_path / "file")


def test_a_disk_without_room_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(ConfigurationError, match="no room"):
        made(bundled_model(), "Q4_0", tmp_path)


def test_a_disk_that_is_full_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises((BadModelFile, ConfigurationError)):
            made(bundled_model(), "Q4_0", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_measurement_ends_with_whoever_waits_for_it(number: signal.Signals) -> None:
    work = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored in the background
        f"from ringwall_llama.child import in_child; in_child('measuring', 'speed', {str(bundled_model())!r}, 1)"
    )
    with subprocess.Popen([sys.executable, "-c", work], stderr=subprocess.DEVNULL) as waiting:
        while not (children := psutil.Process(waiting.pid).children()):
            time.sleep(0.01)
        waiting.send_signal(number)
    until = time.monotonic() + 60
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < until
        time.sleep(0.05)


# ---- what is used


async def test_a_tuned_model_says_what_its_best_format_says(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, llama: LlamaCpp
) -> None:
    say(speeds_of(home, "Q4_0"), read=1e6, eight=1e6)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parents[1]))
    request = ModelRequest(ask("Hello!").messages, sampling=Sampling(max_tokens=1, logprobs=0))
    tuned = await asyncio.to_thread(LlamaCpp, context=256, tune=TuneOptions(("Q4_0",), (1,), 1.0, TEXT))
    best = LlamaCpp(made(bundled_model(), "Q4_0", home), context=256, threads=1)
    try:
        deltas = [[delta async for delta in model.stream(request)] for model in (tuned, best, llama)]
        said = [[p.logprob for delta in some for p in delta.logprobs] for some in deltas]
        assert said[0] == said[1] != said[2]
        assert tuned.info.name == llama.info.name, "under the name by which policies know it"
        assert (await collect(tuned.stream(ask("Hello!", max_tokens=2)))).usage.completion <= 2
    finally:
        await tuned.close()
        await best.close()


# ---- what is shown


def test_the_command_line_shows_each_trial_and_what_is_best(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parents[1]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text(TEXT)
    words = ["models", "tune", "--formats", "Q4_0", "--threads", "1", "--text", "text", "--max-kl", "0.001"]
    shown = CliRunner().invoke(cli.app, words)
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert any("original" in line and "best" in line for line in lines)
    assert any("Q4_0" in line and "refused" in line for line in lines)
    told = json.loads(CliRunner().invoke(cli.app, [*words, "--json"]).output)
    assert told["best"]["format"] == ""
    assert told["trials"][1]["quality"]["kl"] > 0.001
