"""An index in a folder: arrays and lists in files of their own, and a manifest that names them with checksums.

The manifest is replaced last and at once, so the folder always holds one whole index. The built part is written once;
saving later changes writes only those.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ringwall.errors import StoreError
from ringwall_index.codes import Lists
from ringwall_index.recent import Recent
from ringwall_index.segment import Band, Clusters, Segment, Shelves, Traits

_MANIFEST: Final = "index.json"
_BESIDE: Final = "beside_"
_FORMAT: Final = 1
_BLOCK: Final = 8192
"""Bytes that are added up as one in a checksum."""

_PIECE: Final = 2**24


Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Beside:
    """Arrays that are kept beside an index: `lasting` ones are written once under their `name`."""

    name: str = ""
    lasting: Mapping[str, Array] = field(default_factory=dict)
    passing: Mapping[str, Array] = field(default_factory=dict)


NOTHING: Final = Beside()


@dataclass(frozen=True, slots=True)
class Saved:
    """What a folder holds. All that was kept beside the index comes back as `passing`."""

    dimension: int | None
    stamp: str
    segment: Segment
    recent: Recent
    beside: Beside = NOTHING


def write(folder: Path, saved: Saved) -> None:
    """Make the folder hold this. Raises `StoreError` if it cannot."""
    with _errors(f"save to {str(folder)!r}", "see that the folder can be written and has room"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds what not everybody may read
        known = _known(folder)
        beside = saved.beside
        built = _written(folder, _built(saved.segment), saved.segment.name, known)
        built |= _written(folder, _besides(beside.lasting), beside.name, known)
        changes = _written(folder, _changes(saved) | _besides(beside.passing), uuid.uuid4().hex, {})
        manifest: dict[str, Any] = {
            "format": _FORMAT,
            "dimension": saved.dimension,
            "stamp": saved.stamp,
            "segment": saved.segment.name,
            "traits": asdict(saved.segment.traits),
            "files": {**built, **changes},
        }
        _replace(folder / _MANIFEST, json.dumps({"sum": _digest(manifest), "index": manifest}))
        _sweep(folder, manifest["files"])


def load(folder: Path, *, verify: bool) -> Saved:
    """What the folder holds. Raises `StoreError` if that is no whole index."""
    with _errors(f"open {str(folder)!r}", "it is a cache: build the index anew"):
        manifest = _manifest(folder)
        for name, expected in manifest["files"].items():
            _verify(folder / name, expected, whole=verify)
        names = {name.split("-", 1)[1]: folder / name for name in manifest["files"]}
        return Saved(
            manifest["dimension"],
            manifest["stamp"],
            _segment(names, manifest),
            _recent(names, manifest["dimension"]),
            Beside(
                passing={name[len(_BESIDE) : -4]: _mapped(names[name]) for name in names if name.startswith(_BESIDE)}
            ),
        )


def version(folder: Path) -> str:
    """What tells one save from another, damaged ones too; empty: there is none."""
    try:
        return hashlib.blake2b((folder / _MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return ""


# ---- what is written

Writer = Callable[[Path], None]


def _built(segment: Segment) -> dict[str, Writer]:
    arrays: dict[str, Array] = {"keys.npy": segment.keys, "vectors.npy": segment.vectors, "home.npy": segment.home}
    if segment.order is not None:
        arrays["order.npy"] = segment.order
    writers: dict[str, Writer] = {}
    clusters, shelves = segment.clusters, segment.shelves
    if clusters is not None and shelves is not None:
        arrays |= {"list_of.npy": clusters.list_of, "head.npy": clusters.head, "sizes.npy": clusters.sizes}
        arrays |= {"spread.npy": clusters.spread}
        arrays |= {"rotation.npy": shelves.rotation, "list_of_class.npy": shelves.list_of_class}
        writers |= {"clusters.faiss": clusters.lists.save, "shelves.faiss": shelves.lists.save}
    return writers | {name: _array(values) for name, values in arrays.items()}


def _changes(saved: Saved) -> dict[str, Writer]:
    rows = saved.recent.count
    return {
        "classes.npy": _array(saved.segment.classes),
        "recent_keys.npy": _array(saved.recent.keys[:rows]),
        "recent_vectors.npy": _array(saved.recent.vectors[:rows]),
        "recent_classes.npy": _array(saved.recent.classes[:rows]),
    }


def _besides(arrays: Mapping[str, Array]) -> dict[str, Writer]:
    return {f"{_BESIDE}{name}.npy": _array(values) for name, values in arrays.items()}


def _array(values: Array) -> Writer:
    return lambda path: np.save(path, values, allow_pickle=False)


def _written(
    folder: Path, writers: Mapping[str, Writer], prefix: str, known: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Write the files that are not known yet; return what the manifest says of each."""
    entries = {}
    for name, writer in writers.items():
        full = f"{prefix}-{name}"
        if full not in known:
            writer(folder / full)
            _flush(folder / full)
        entries[full] = known.get(full) or {"size": (folder / full).stat().st_size, "sum": _checksum(folder / full)}
    return entries


def _known(folder: Path) -> Mapping[str, Any]:
    """The files of the index that is there, if one is."""
    try:
        files: Mapping[str, Any] = _manifest(folder)["files"]
        for name, expected in files.items():
            _verify(folder / name, expected, whole=False)
    except (StoreError, OSError, ValueError, KeyError, TypeError):
        return {}
    return files


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    _flush(new)
    new.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path, kept: Mapping[str, Any]) -> None:
    """Remove what earlier saves wrote. Whoever has such a file mapped keeps it."""
    for path in folder.iterdir():
        if path.suffix in {".npy", ".faiss"} and path.name not in kept:
            path.unlink(missing_ok=True)


# ---- what is read


def _manifest(folder: Path) -> dict[str, Any]:
    text = json.loads((folder / _MANIFEST).read_text())
    manifest: dict[str, Any] = text["index"]
    if text["sum"] != _digest(manifest):
        raise StoreError(f"{_MANIFEST} is damaged")
    if manifest["format"] != _FORMAT:
        raise StoreError(f"an index of the format {manifest['format']}", expected=f"{_FORMAT}")
    return manifest


def _verify(path: Path, expected: Mapping[str, Any], *, whole: bool) -> None:
    if path.stat().st_size != expected["size"] or (whole and _checksum(path) != expected["sum"]):
        raise StoreError(f"{path.name} is damaged")


def _segment(names: Mapping[str, Path], manifest: Mapping[str, Any]) -> Segment:
    clusters, shelves = _clusters(names), _shelves(names)
    traits = manifest["traits"]
    bands = tuple(Band(**band) for band in traits["bands"])
    return Segment(
        np.load(names["keys.npy"]),
        _mapped(names["vectors.npy"]),
        np.load(names["home.npy"]),
        clusters,
        shelves,
        Traits(**{**traits, "bands": bands}),
        np.load(names["classes.npy"]),
        np.load(names["order.npy"]),
        manifest["segment"],
    )


def _mapped(path: Path) -> Array:
    values: Array = np.load(path, mmap_mode="r").view(np.ndarray)
    return values


def _clusters(names: Mapping[str, Path]) -> Clusters | None:
    if "clusters.faiss" not in names:
        return None
    arrays = (np.load(names[f"{name}.npy"]) for name in ("list_of", "head", "sizes", "spread"))
    return Clusters(Lists.open(names["clusters.faiss"]), *arrays)


def _shelves(names: Mapping[str, Path]) -> Shelves | None:
    if "shelves.faiss" not in names:
        return None
    return Shelves(
        Lists.open(names["shelves.faiss"]), np.load(names["rotation.npy"]), np.load(names["list_of_class.npy"])
    )


def _recent(names: Mapping[str, Path], dimension: int | None) -> Recent:
    recent = Recent(dimension or 0)
    keys, vectors, classes = (np.load(names[f"recent_{name}.npy"]) for name in ("keys", "vectors", "classes"))
    if len(keys):
        recent.append(keys, vectors, classes)
    return recent


# ---- checksums


def _checksum(path: Path) -> str:
    """Of every byte, at the speed of memory: the bytes of a block are added up, the sums are hashed."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            whole = len(piece) // _BLOCK * _BLOCK
            words = np.frombuffer(piece, np.uint64, whole // 8)
            digest.update(words.reshape(-1, _BLOCK // 8).sum(axis=1, dtype=np.uint64).tobytes())
            digest.update(piece[whole:])
    return digest.hexdigest()


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def _errors(what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise StoreError(f"could not {what}: {error.what}", expected=error.expected, hint=hint) from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError) as error:
        raise StoreError(f"could not {what}: {error}", hint=hint) from error
