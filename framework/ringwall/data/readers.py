"""Rules that say who reads a document: by its path, a file beside it, its file's permissions.

Each rule is a function of a document that returns its readers, or None where it has nothing to say;
`first_of` asks several in turn. `front_matter_readers` is one more.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ringwall.data.admit import Readers
from ringwall.errors import BadPolicy, InvalidInput
from ringwall.principal import ACL

if TYPE_CHECKING:
    from langchain_core.documents import Document

SIDECAR: Final = ".readers"
"""What the name of a file ends with that says who reads the file beside it."""

_COMMENT: Final = re.compile(r"(^|\s)#.*")
_PARTS: Final = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_WILD: Final = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class ByPath:
    """Readers by the document's id: `ByPath([("hr/**", ACL.of("role:hr")), ("*.md", ACL.of("public"))])`.

    The first pattern that fits decides; `*` stands for any characters but `/`, `**` for any at all, `?` for one.
    """

    by_name = True

    def __init__(self, rules: Iterable[tuple[str, ACL]]) -> None:
        self._rules = [(_pattern(pattern), readers) for pattern, readers in rules]

    @classmethod
    def read(cls, path: str | Path) -> ByPath:
        """The rules of a file, one a line: a pattern, white space, and grants with white space between them.

        Empty lines count for nothing, nor does what follows a `#`. Raises `BadPolicy` naming the line.
        """
        return cls(_rule(line, f"{path}:{n}") for n, line in enumerate(_lines(Path(path)), 1) if _said(line))

    def __call__(self, document: Document) -> ACL | None:
        name = str(document.id or document.metadata.get("source", ""))
        return next((readers for pattern, readers in self._rules if pattern.fullmatch(name)), None)


class BesideIt:
    """Readers by a file beside the document's: `menu.md.readers` holds the grants, with white space between them.

    One beside a folder, `hr.readers`, counts for all in it that has none of its own. `root` is the folder that
    the documents' ids begin in. Raises `InvalidInput` for such a file that cannot be read or holds no grants.
    """

    by_name = True

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).resolve()

    def __call__(self, document: Document) -> ACL | None:
        name = Path(str(document.id or document.metadata.get("source", "")))
        for above in (name, *name.parents):
            beside = self._root / above.parent / f"{above.name}{SIDECAR}"
            if above.name and beside.is_relative_to(self._root) and beside.is_file():
                return ACL.of(*" ".join(map(_said, _lines(beside))).split())
        return None


class ByPermission:
    """Readers by the file's permissions: `public` if anybody may read it, else `role:GROUP`, and `user:OWNER`.

    `names` turns a numeric user or group id into a name, `getpwuid` and `getgrgid` by default; ids without
    a name are left out. `root` is the folder that the documents' ids begin in. Folders on the way that are
    closed to somebody count too.
    """

    by_name = True

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).resolve()

    def __call__(self, document: Document) -> ACL | None:
        path = self._root / str(document.id or document.metadata.get("source", ""))
        if not path.resolve().is_relative_to(self._root):
            return None
        try:
            return _permitted(path, self._root)
        except OSError as error:
            raise InvalidInput(f"the permissions of {path.name!r} cannot be read: {error.strerror}") from error


def first_of(*rules: Readers) -> Callable[[Document], ACL | None]:
    """A rule that asks each of `rules` in turn; the first that knows decides. An ACL always knows."""
    return _First(rules)


class _First:
    def __init__(self, rules: tuple[Readers, ...]) -> None:
        self._rules = rules
        self.by_name = all(isinstance(rule, ACL) or getattr(rule, "by_name", False) for rule in rules)

    def __call__(self, document: Document) -> ACL | None:
        said = (rule(document) if callable(rule) else rule for rule in self._rules)
        return next((readers for readers in said if readers), None)


def _permitted(path: Path, root: Path) -> ACL | None:
    import grp
    import pwd

    file = path.stat()
    on_the_way = [folder.stat().st_mode for folder in path.parents if folder.is_relative_to(root)]
    grants: list[str] = []
    if file.st_mode & stat.S_IROTH and all(mode & stat.S_IXOTH for mode in on_the_way):
        grants.append("public")
    try:
        if file.st_mode & stat.S_IRUSR:
            grants.append(f"user:{pwd.getpwuid(file.st_uid).pw_name}")
        if file.st_mode & stat.S_IRGRP and all(mode & stat.S_IXGRP for mode in on_the_way):
            grants.append(f"role:{grp.getgrgid(file.st_gid).gr_name}")
    except KeyError:  # an id without a name is nobody's grant
        pass
    return ACL(grants) if grants else None


def _pattern(pattern: str) -> re.Pattern[str]:
    if not pattern:
        raise BadPolicy("an empty pattern", expected="a path such as `hr/**`")
    return re.compile("".join(_WILD.get(part) or re.escape(part) for part in _PARTS.findall(pattern)), re.DOTALL)


def _rule(line: str, place: str) -> tuple[str, ACL]:
    pattern, *grants = _said(line).split()
    if not grants:
        raise BadPolicy(f"{place}: {pattern!r} without readers", expected="a pattern and at least one grant")
    return pattern, ACL.of(*grants)


def _said(line: str) -> str:
    return _COMMENT.sub("", line).strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the readers in {str(path)!r} cannot be read: {error}") from error
