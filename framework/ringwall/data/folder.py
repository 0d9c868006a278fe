"""The text files of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ringwall.data.outcome import Refused
from ringwall.errors import InvalidInput

if TYPE_CHECKING:
    from langchain_core.documents import Document

_SUFFIXES: Final = frozenset((".txt", ".md"))


def read_folder(folder: str | Path) -> Iterator[Document | Refused]:
    """Read every `.txt` and `.md` file below `folder`, in the order of their names: UTF-8, one document each.

    A document's id is its path below the folder, with `/`. A file that is not UTF-8, cannot be read, or is a
    link that leads out of the folder, comes as `Refused`. Raises `InvalidInput` if there is no such folder.
    """
    from langchain_core.documents import Document

    root = Path(folder).resolve()
    if not root.is_dir():
        raise InvalidInput(f"no folder {str(folder)!r}", expected="a folder of .txt and .md files")
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and not path.is_dir()):
        name = path.relative_to(root).as_posix()
        try:
            yield Document(id=name, page_content=_text(path, root), metadata={"source": name})
        except InvalidInput as error:
            yield Refused(name, error)


def _text(path: Path, root: Path) -> str:
    if not path.resolve().is_relative_to(root):
        raise InvalidInput(f"{path.name!r} is a link that leads out of the folder")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path.name!r} is not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}",
            expected="text in UTF-8",
            hint="convert it, for instance with `iconv -f latin1 -t utf-8`",
        ) from error
    except OSError as error:
        raise InvalidInput(f"{path.name!r} cannot be read: {error.strerror}") from error
