"""Rules that say who reads a document."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest
from langchain_core.documents import Document

from ringwall.data import BesideIt, ByPath, ByPermission, Ingestor, MemoryStore, first_of, front_matter_readers
from ringwall.errors import BadPolicy, DocumentWithoutReaders, InvalidInput
from ringwall.principal import ACL, PUBLIC

OPEN, STAFF, HR = ACL.of(PUBLIC), ACL.of("role:staff"), ACL.of("role:hr", "user:ana")


def named(name: str, text: str = "") -> Document:
    return Document(id=name, page_content=text)


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("hr/**", ["hr/a.md", "hr/x/y/a.md", "hr/\n"], ["hr", "chr/a.md", "x/hr/a.md"]),
        ("*.md", ["a.md"], ["hr/a.md", "a.mdx"]),
        ("**/*.md", ["a.md", "hr/x/a.md"], ["a.txt"]),
        ("hr/?.md", ["hr/a.md"], ["hr/ab.md", "hr//.md"]),
        ("a+b[1].md", ["a+b[1].md"], ["aab1.md"]),
        ("**", ["a", "a/b", "\n"], []),
    ],
)
def test_a_pattern_fits_paths(pattern: str, fits: list[str], fits_not: list[str]) -> None:
    rule = ByPath([(pattern, STAFF)])
    assert all(rule(named(name)) == STAFF for name in fits)
    assert not any(rule(named(name)) for name in fits_not)


def test_the_first_rule_of_a_file_that_fits_decides(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("# who reads what\n\nhr/public/**  public  # leaflets\nhr/** role:hr user:ana\n")
    rule = ByPath.read(tmp_path / "rules")
    assert [rule(named(n)) for n in ("hr/public/a", "hr/a", "it/a")] == [OPEN, HR, None]


def test_a_rule_without_readers_is_named(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("** public\nhr/** # nobody\n")
    with pytest.raises(BadPolicy, match="rules:2"):
        ByPath.read(tmp_path / "rules")


def test_a_file_beside_a_document_or_its_folder_names_its_readers(tmp_path: Path) -> None:
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr.readers").write_text("role:hr\nuser:ana")
    (tmp_path / "hr" / "leaflet.md.readers").write_text("public")
    rule = BesideIt(tmp_path)
    assert [rule(named(n)) for n in ("hr/a.md", "hr/leaflet.md", "a.md", "../hr/a.md")] == [HR, OPEN, None, None]


def test_an_empty_file_beside_a_document_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.md.readers").write_text("")
    with pytest.raises(DocumentWithoutReaders):
        BesideIt(tmp_path)(named("a.md"))


@pytest.mark.parametrize(
    ("file", "folder", "more"),
    [(0o644, 0o755, "public group"), (0o640, 0o755, "group"), (0o600, 0o755, ""), (0o644, 0o750, "group")],
)
def test_a_files_permissions_are_its_readers(tmp_path: Path, file: int, folder: int, more: str) -> None:
    (tmp_path / "hr").mkdir()
    path = tmp_path / "hr" / "a.md"
    path.write_text("trout")
    tmp_path.chmod(0o755)
    path.chmod(file)
    path.parent.chmod(folder)
    group = f"role:{grp.getgrgid(path.stat().st_gid).gr_name}"
    expected = [f"user:{pwd.getpwuid(os.getuid()).pw_name}", *more.replace("group", group).split()]
    assert ByPermission(tmp_path)(named("hr/a.md")) == ACL(expected)


def test_the_permissions_of_a_file_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="permissions"):
        ByPermission(tmp_path)(named("gone.md"))
    assert ByPermission(tmp_path)(named("../../etc/passwd")) is None


async def test_of_several_rules_the_first_that_knows_decides(tmp_path: Path) -> None:
    rule = first_of(front_matter_readers, ByPath([("hr/**", HR)]))
    own = named("hr/a", "---\nreaders: [role:staff]\n---\ntrout")
    report = await Ingestor(MemoryStore()).ingest([own, named("hr/b", "trout"), named("it/c", "trout")], rule)
    assert [refused.document for refused in report.refused] == ["it/c"]
    assert [rule(own), rule(named("hr/b"))] == [STAFF, HR]
