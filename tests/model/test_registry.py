"""Models of all three origins under one name each; a pinned file is opened only while it is that very file."""

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from ringwall.errors import BadModelFile, ConfigurationError
from ringwall.model import Price
from ringwall.model.registry import Entry, FileState, Hosted, Kind, ModelFile, ModelRegistry, Open, Own
from ringwall.staging import Stage

HOSTED = Hosted("big", "hosted", "gpt-4.1", "https://api.example.org/v1", 128_000, Price(2.0, 8.0), "no training")


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "models.json")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "small.gguf"
    path.parent.mkdir()
    path.write_bytes(b"weights" * 300_000)
    return path


@pytest.fixture
def open_model(file: Path) -> Open:
    return Open("small", ModelFile.pinned(file), "Apache-2.0", "https://example.org/small")


@pytest.fixture
def own(file: Path) -> Own:
    return Own("desk", ModelFile.pinned(file), "small", "lora, rank 8", sha256(b"chats").hexdigest(), Kind.ADAPTER)


def test_what_was_added_is_found_by_whoever_opens_the_file_again(
    registry: ModelRegistry, open_model: Open, own: Own, tmp_path: Path
) -> None:
    for entry in (HOSTED, open_model, own):
        registry.add(entry)
    again = ModelRegistry(tmp_path / "models.json")
    assert again.entries() == (HOSTED, own, open_model), "by name"
    assert again.find("desk") == own


def test_a_name_is_given_once(registry: ModelRegistry, open_model: Open) -> None:
    registry.add(open_model)
    with pytest.raises(ConfigurationError, match="'small' already"):
        registry.add(replace(HOSTED, name="small"))
    registry.remove("small")
    registry.add(replace(HOSTED, name="small"))
    assert [entry.origin for entry in registry.entries()] == ["hosted"]


def test_a_name_that_nobody_has_is_told_beside_those_there_are(registry: ModelRegistry) -> None:
    with pytest.raises(ConfigurationError, match="'big'; expected: one of: none"):
        registry.find("big")
    registry.add(HOSTED)
    for ask in (registry.find, registry.remove, registry.path, registry.verify, registry.state):
        with pytest.raises(ConfigurationError, match="'large'; expected: one of: big"):
            ask("large")


def test_what_comes_bundled_is_there_and_stays(tmp_path: Path, open_model: Open) -> None:
    registry = ModelRegistry(tmp_path / "models.json", bundled=[open_model])
    assert registry.path("small") == open_model.file.path
    with pytest.raises(ConfigurationError, match="already"):
        registry.add(open_model)
    with pytest.raises(ConfigurationError, match="installed with its plugin"):
        registry.remove("small")


@pytest.mark.parametrize(
    "wrong",
    [
        replace(HOSTED, name="two words"),
        replace(HOSTED, name=""),
        replace(HOSTED, name="../up"),
        replace(HOSTED, window=0),
        replace(HOSTED, model=""),
        replace(HOSTED, price=Price(float("nan"))),
        replace(HOSTED, base_url="https://key@api.example.org"),
        replace(HOSTED, base_url="https://api.example.org/v1?key=secret"),
        replace(HOSTED, base_url="file:///etc/passwd"),
        Open("small", ModelFile(Path("x.gguf"), "0" * 63, 1), "MIT", "here"),
        Open("small", ModelFile(Path("x.gguf"), "0" * 64, 1), "", "here"),
        Own("desk", ModelFile(Path("x.gguf"), "0" * 64, 1), "small", "lora", "some data"),
        Own("desk", ModelFile(Path("x\udce4.gguf"), "0" * 64, 1), "small", "lora", "0" * 64),
    ],
)
def test_what_cannot_be_right_is_refused_and_nothing_is_written(
    registry: ModelRegistry, tmp_path: Path, wrong: Entry
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        registry.add(wrong)
    assert "secret" not in str(caught.value)
    assert "key@" not in str(caught.value)
    assert not [*tmp_path.iterdir()]


# ---- files


def test_an_unchanged_file_is_opened(registry: ModelRegistry, open_model: Open, own: Own) -> None:
    read: list[int] = []
    for entry in (open_model, own):
        registry.add(entry)
        assert registry.path(entry.name, read.append) == entry.file.path
    assert sum(read) == 2 * open_model.file.bytes
    assert registry.verify("small") is FileState.UNCHANGED


@pytest.mark.parametrize("place", [0, 2**20 - 1, 2**20, 2_099_999])
def test_no_changed_bit_goes_unnoticed(registry: ModelRegistry, open_model: Open, place: int) -> None:
    registry.add(open_model)
    content = bytearray(open_model.file.path.read_bytes())
    content[place] ^= 1
    open_model.file.path.write_bytes(content)
    assert registry.state("small") is FileState.THERE, "which says no more than that there is a file of this size"
    assert registry.verify("small") is FileState.CHANGED
    with pytest.raises(BadModelFile, match=f"expected: {open_model.file.sha256}"):
        registry.path("small")


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        (lambda file: file.unlink(), FileState.MISSING),
        (lambda file: file.write_bytes(b"short"), FileState.CHANGED),
    ],
)
def test_a_file_that_is_gone_or_of_another_size_is_noticed_at_a_glance(
    registry: ModelRegistry, open_model: Open, spoil: Callable[[Path], object], state: FileState
) -> None:
    registry.add(open_model)
    spoil(open_model.file.path)
    assert registry.state("small") is state is registry.verify("small")
    with pytest.raises(BadModelFile):
        registry.path("small")


def test_a_hosted_model_has_no_file(registry: ModelRegistry) -> None:
    registry.add(HOSTED)
    assert registry.state("big") is None
    for ask in (registry.path, registry.verify):
        with pytest.raises(ConfigurationError, match="it has no file"):
            ask("big")


def test_a_registry_moves_with_the_files_in_its_folder(
    registry: ModelRegistry, open_model: Open, tmp_path: Path
) -> None:
    registry.add(open_model)
    assert "weights/small.gguf" in (tmp_path / "models.json").read_text()
    assert str(tmp_path) not in (tmp_path / "models.json").read_text()
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert ModelRegistry(moved / "models.json").path("small") == moved / "weights" / "small.gguf"


# ---- the registry's own file


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON",
        "[]",
        '{"version": 2, "models": []}',
        '{"version": 1, "models": [{"origin": "borrowed", "name": "x"}]}',
        '{"version": 1, "models": [{"origin": "open", "name": "x", "licence": "MIT", "source": "here"}]}',
    ],
)
def test_a_damaged_registry_is_refused_and_left_as_it_is(registry: ModelRegistry, tmp_path: Path, content: str) -> None:
    (tmp_path / "models.json").write_text(content)
    for ask in (registry.entries, lambda: registry.find("x"), lambda: registry.add(HOSTED)):
        with pytest.raises(ConfigurationError, match=r"models\.json cannot be used"):
            ask()
    assert (tmp_path / "models.json").read_text() == content


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        ModelRegistry(tmp_path / "file" / "models.json").add(HOSTED)


def add_some(path: Path, first: int) -> None:
    for number in range(first, first + 10):
        ModelRegistry(path).add(replace(HOSTED, name=f"model-{number}"))


def test_nothing_is_lost_when_processes_add_at_the_same_time(registry: ModelRegistry, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    adding = [context.Process(target=add_some, args=(tmp_path / "models.json", first)) for first in (0, 10, 20)]
    for process in adding:
        process.start()
    while any(process.is_alive() for process in adding):
        registry.entries()  # never half of it
    for process in adding:
        process.join()
    assert len(registry.entries()) == 30
    assert json.loads((tmp_path / "models.json").read_text())["version"] == 1


# Versions


def hosted(version: str, window: int = 1000) -> Hosted:
    return replace(HOSTED, name=f"big@{version}", window=window)


@pytest.fixture
def versioned(registry: ModelRegistry) -> ModelRegistry:
    """Three versions of one model."""
    for version in ("1", "2", "3"):
        registry.add(hosted(version, int(version) * 1000))
    return registry


def stages(registry: ModelRegistry) -> dict[str, str]:
    return {version.entry.name: str(version.stage) for version in registry.versions("big")}


def test_a_name_means_the_version_in_production(versioned: ModelRegistry) -> None:
    with pytest.raises(ConfigurationError, match="no version of model 'big' is in production"):
        versioned.find("big")
    for version in ("1", "3"):
        versioned.move(f"big@{version}", Stage.PRODUCTION)
        assert versioned.find("big") == hosted(version, int(version) * 1000)
    assert stages(versioned) == {"big@1": "retired", "big@2": "draft", "big@3": "production"}
    assert versioned.find("big@1").name == "big@1"


def test_a_canary_is_for_its_share_and_each_asker_always_on_the_same_side(versioned: ModelRegistry) -> None:
    versioned.move("big@1", Stage.PRODUCTION)
    versioned.move("big@2", Stage.CANARY, percent=30)
    askers = [f"user:{number}" for number in range(300)]
    first = [versioned.choose("big", asker).name for asker in askers]
    assert 60 <= first.count("big@2") <= 120
    assert first == [versioned.choose("big", asker).name for asker in askers]
    assert {versioned.choose("big", asker, cohort=lambda _: False).name for asker in askers} == {"big@1"}
    assert versioned.find("big").name == "big@1"
    versioned.move("big@3", Stage.CANARY, percent=1)
    assert stages(versioned)["big@2"] == "retired"


def test_a_version_is_moved_only_where_it_may_be(versioned: ModelRegistry) -> None:
    versioned.move("big@1", Stage.PRODUCTION)
    for name, stage, percent in (
        ("big@1", Stage.RETIRED, 0.0),
        ("big@2", Stage.CANARY, 0.0),
        ("big@2", Stage.DRAFT, 5.0),
        ("big@9", Stage.PRODUCTION, 0.0),
        ("big", Stage.PRODUCTION, 0.0),
    ):
        with pytest.raises(ConfigurationError):
            versioned.move(name, stage, percent=percent)
    assert len(versioned.history()) == 1


def test_who_moved_what_and_why_is_there_for_whoever_opens_the_file_again(
    versioned: ModelRegistry, tmp_path: Path
) -> None:
    versioned.move("big@1", Stage.PRODUCTION, note="first")
    versioned.move("big@2", Stage.PRODUCTION, note="better")
    again = ModelRegistry(tmp_path / "models.json")
    assert [(c.name, c.version, c.stage, c.note) for c in again.history("big")] == [
        ("big", "1", "production", "first"),
        ("big", "2", "production", "better"),
    ]
    assert again.find("big").name == "big@2"


def test_versions_are_compared_by_what_is_said_of_them(versioned: ModelRegistry) -> None:
    changed = [line for line in versioned.diff("big@1", "big@2").splitlines() if line[:1] in "+-"]
    assert changed[2:] == ['- "name": "big@1",', '+ "name": "big@2",', '- "window": 1000,', '+ "window": 2000,']
    assert versioned.diff("big@1", "big@1") == ""


def test_a_name_has_versions_or_none(versioned: ModelRegistry) -> None:
    with pytest.raises(ConfigurationError, match="already"):
        versioned.add(HOSTED)
    versioned.add(replace(HOSTED, name="other"))
    with pytest.raises(ConfigurationError, match="already"):
        versioned.add(replace(HOSTED, name="other@1"))
    with pytest.raises(ConfigurationError, match="'other' has versions"):
        versioned.versions("other")


def test_what_is_in_production_is_not_removed(versioned: ModelRegistry) -> None:
    versioned.move("big@1", Stage.PRODUCTION)
    for name in ("big@1", "big"):
        with pytest.raises(ConfigurationError):
            versioned.remove(name)
    versioned.move("big@2", Stage.PRODUCTION)
    versioned.remove("big@1")
    assert stages(versioned) == {"big@2": "production", "big@3": "draft"}


def test_a_file_of_before_there_were_versions_is_read(registry: ModelRegistry, tmp_path: Path) -> None:
    registry.add(HOSTED)
    path = tmp_path / "models.json"
    book = json.loads(path.read_text())
    path.write_text(json.dumps({"version": 1, "models": book["models"]}))
    assert registry.entries() == (HOSTED,)
    assert (registry.versions(), registry.history()) == ((), ())
