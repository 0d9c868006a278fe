"""Files become documents, and the bad ones reasons: each is made here by the library that people make them with."""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import json
import os
import socket
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from email.message import EmailMessage
from itertools import pairwise
from pathlib import Path

import openpyxl
import psutil
import pytest
from docx import Document as Word
from docx.oxml import OxmlElement
from docx.shared import Pt, RGBColor
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from pptx import Presentation
from pptx.util import Inches
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from ringwall import ACL, Principal
from ringwall.data import Ingestor, Manifest, MemoryStore, Pending, Query, Refused, split
from ringwall.errors import ConfigurationError, InvalidInput
from ringwall_files import Limits, Parsed, Parser, ParserDied, TooLarge, Unreadable, find_files, parse, read_files

SUFFIXES = [
    ".txt",
    ".md",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".html",
    ".htm",
    ".eml",
    ".pdf",
    ".docx",
    ".pptx",
    ".xlsx",
    ".py",
    ".ts",
]

Draw = Callable[[Canvas], None]


def pdf(*pages: Draw | str, title: str = "", password: str = "") -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file, encrypt=StandardEncryption(password) if password else None)
    canvas.setTitle(title)
    for page in pages:
        if isinstance(page, str):
            canvas.drawString(72, 700, page)
        else:
            page(canvas)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def word(*paragraphs: str) -> bytes:
    document, file = Word(), io.BytesIO()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    document.save(file)
    return file.getvalue()


def slides(*titles: str) -> bytes:
    presentation, file = Presentation(), io.BytesIO()
    for title in titles:
        slide = presentation.slides.add_slide(presentation.slide_layouts[5])
        assert slide.shapes.title is not None
        slide.shapes.title.text = title
    presentation.save(file)
    return file.getvalue()


def sheet(*rows: Sequence[object]) -> bytes:
    book, file = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(file)
    return file.getvalue()


def with_part(archive: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """The same archive, with one part changed or added."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            if part != name:
                new.writestr(part, old.read(part))
        new.writestr(name, change(old.read(name) if name in old.namelist() else b""))
    return changed.getvalue()


def hidden(parsed: Parsed) -> str:
    return "|".join(parsed.text[start:end].strip() for start, end in parsed.hidden)


def seen(parsed: Parsed) -> str:
    ranges = [(0, 0), *parsed.hidden, (len(parsed.text), 0)]
    return "".join(parsed.text[end:start] for (_, end), (start, _) in pairwise(ranges))


def pages(parsed: Parsed) -> list[str]:
    ends = (*parsed.pages[1:], len(parsed.text))
    return [parsed.text[start:end].strip() for start, end in zip(parsed.pages, ends, strict=True)]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str, bytes | str], Parsed]:
    """Write a file and parse it."""

    def read(name: str, content: bytes | str) -> Parsed:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return parse(path)

    return read


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    with Parser() as parser:
        yield parser


@pytest.fixture
def children() -> Callable[[], list[psutil.Process]]:
    """The processes that were started since the test began."""
    before = psutil.Process().children()
    return lambda: [child for child in psutil.Process().children() if child not in before]


Read = Callable[[str, bytes | str], Parsed]
Children = Callable[[], list[psutil.Process]]


class TestText:
    def test_a_text_is_read_as_it_stands(self, read: Read) -> None:
        assert read("a.txt", "Trout\n\n# no heading\n") == Parsed("Trout\n\n# no heading\n")
        assert read("a.py", "# no heading\nx = '<!-- -->'\n") == Parsed("# no heading\nx = '<!-- -->'\n")

    def test_the_first_heading_is_the_title_of_a_markdown_file_and_its_comments_are_hidden(self, read: Read) -> None:
        parsed = read("a.md", "Before\n# Menu of today\n<!-- obey\nme -->\n## Fish\n")
        assert (parsed.title, hidden(parsed)) == ("Menu of today", "<!-- obey\nme -->")

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    def test_a_byte_order_mark_says_how_a_text_is_written(self, read: Read, encoding: str) -> None:
        assert read("a.txt", "Müsli\r\nTrout\rWine".encode(encoding)).text == "Müsli\nTrout\nWine"

    def test_letters_without_a_shape_are_hidden(self, read: Read) -> None:
        smuggled = "".join(chr(0xE0000 + ord(letter)) for letter in "obey me")
        parsed = read("a.txt", f"Trout{smuggled} and \u200bwine\u200b")
        assert [parsed.text[start:end] for start, end in parsed.hidden] == [smuggled]


class TestTables:
    @pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.csv", "\t")])
    def test_rows_are_markdown(self, read: Read, name: str, delimiter: str) -> None:
        file = io.StringIO()
        csv.writer(file, delimiter=delimiter).writerows([["dish", "price"], ["trout, or\npike", "1|2"], [], ["x"]])
        assert read(name, file.getvalue()).text == (
            "| dish | price |\n| --- | --- |\n| trout, or pike | 1\\|2 |\n| x |"
        )

    def test_a_quote_that_does_not_close_is_refused(self, read: Read) -> None:
        with pytest.raises(Unreadable, match=r"'a.csv' is not a table .* line"):
            read("a.csv", 'dish,price\n"trout,1\n' + "pike,2\n" * 20_000)


class TestJson:
    def test_each_value_is_a_line_with_its_path(self, read: Read) -> None:
        text = '{"menu": [{"dish": "Trout", "price": 12.50, "fresh": true}, {"dish": null}], "menu": 1e999}'
        assert read("a.json", text).text.splitlines() == [
            "menu[0].dish: Trout",
            "menu[0].price: 12.50",
            "menu[0].fresh: true",
            "menu[1].dish: null",
            "menu: 1e999",
        ]

    def test_each_record_of_json_lines_is_a_paragraph(self, read: Read) -> None:
        assert read("a.jsonl", '{"a": 1, "b": "x"}\n\n"y"\n').text == "a: 1\nb: x\n\ny"

    @pytest.mark.parametrize(
        ("name", "text", "what"),
        [
            ("a.json", '{"a": 1,\n}', "line 2"),
            ("a.jsonl", "1\n2\n{", "line 3"),
            ("a.json", "[" * 200_000, "nested too deeply"),
            ("a.json", '{"a":' * 200 + "1" + "}" * 200, "nested too deeply"),
        ],
    )
    def test_what_is_no_json_or_a_trap_is_refused(self, read: Read, name: str, text: str, what: str) -> None:
        with pytest.raises(Unreadable, match=what):
            read(name, text)


class TestHtml:
    def test_headings_lists_and_tables_are_markdown_and_all_text_is_there(self, read: Read) -> None:
        parsed = read(
            "a.html",
            """<!doctype html><html><head><title>The
            house</title><style>p {}</style></head><body><nav><a href=/>Home</a></nav>
            <h1>Menu <i>of</i> today</h1><p>Fresh<b>ly</b>
            made<br>here<!-- not this --><script>nor(this)</script>
            <ul><li>Trout<li><p>Pike</p></ul>
            <table><thead><tr><th>Dish<th>Price</thead><tr><td>Tro|ut <b>x</b><td>12</table>
            <table><tr><td><h2>Placed</h2>by a table</table><pre> a\n  b</pre></body></html>""",
        )
        assert parsed.title == "The house"
        assert parsed.hidden == ()
        assert parsed.text == (
            "Home\n\n# Menu of today\n\nFreshly made\nhere\n\n- Trout\n- Pike\n\n"
            "| Dish | Price |\n| --- | --- |\n| Tro\\|ut x | 12 |\n\n## Placed\n\nby a table\n\n a\n  b"
        )

    @pytest.mark.parametrize(
        "element",
        [
            "<p hidden>{}</p>",
            "<noscript>{}</noscript>",
            "<video><p>{}</p></video>",
            "<div style='DISPLAY : none !important'><p>{}</p></div>",
            "<p style='display:/* */none'>{}</p>",
            "<p style='visibility:hidden'>{}</p>",
            "<p style='opacity:0.0'>{}</p>",
            "<p style='font-size:0'>{}</p>",
            "<p style='font-size:1px'><b>{}</b></p>",
            "<p style='position:absolute;left:-9999px'>{}</p>",
            "<p style='color:#FFF'>{}</p>",
            "<p style='color: rgb(255, 255, 255)'>{}</p>",
            "<p style='color:transparent'>{}</p>",
            "<p style='color:rgba(0, 0, 0, 0)'>{}</p>",
            "<p style='color:#0008;background:rgb(0% 0% 0%)'>{}</p>",
            "<p style='color:#fefefe'>{}</p>",
            "<p style='max-height:0;overflow:hidden'>{}</p>",
            "<font color=white>{}</font>",
            "<div style='background:#000;color:white'><p style='background:#fff'>{}</p></div>",
        ],
    )
    def test_what_a_browser_does_not_show_is_kept_but_marked(self, read: Read, element: str) -> None:
        parsed = read("a.html", f"<p>Before</p>{element.format('obey me')}<p>After</p>")
        assert hidden(parsed) == "obey me"
        assert seen(parsed).split() == ["Before", "After"]

    @pytest.mark.parametrize(
        "element",
        [
            "<div style='visibility:hidden'><p style='visibility:visible'>{}</p></div>",
            "<div style='font-size:0'><p style='font-size:12px'>{}</p></div>",
            "<div style='background-color:navy'><p style='color:white'>{}</p></div>",
            "<table bgcolor='#000000'><tr><td style='color:white'>{}</td></tr></table>",
            "<p style='color:#ffff00;opacity:.5'>{}</p>",
            "<p style='background:black'>{}</p>",
            "<svg><title>not this</title><text>{}</text></svg>",
            "<div style='background:url(night.png)'><p style='color:white'>{}</p></div>",
            "<p style='color:rgb(255 255 255 / 50%);background:var(--dark)'>{}</p>",
            "<p style='color:rgb(.,1e9,...);background:rgb(1,2)'>{}</p>",
            "<p style='color:;font-size:large;background:none'>{}</p>",
        ],
    )
    def test_what_is_seen_is_not_marked(self, read: Read, element: str) -> None:
        parsed = read("a.html", element.format("hello"))
        assert (parsed.text, parsed.hidden) == ("hello" if "<table" not in element else "| hello |\n| --- |", ())

    @pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1252", "utf-8"])
    def test_a_page_says_how_it_is_written(self, read: Read, charset: str) -> None:
        page = (
            f"<meta charset='{charset}'><p>Crème “brûlée”</p>"
            if charset != "iso-8859-1"
            else ("<meta http-equiv=Content-Type content='text/html; charset=iso-8859-1'><p>Crème “brûlée”</p>")
        )
        encoding = "cp1252" if charset == "iso-8859-1" else charset
        assert read("a.htm", page.encode(encoding)).text == "Crème “brûlée”"

    def test_an_encoding_that_hides_things_is_not_obeyed(self, read: Read) -> None:
        assert read("a.html", b"<meta charset=utf-7><p>+ADw-b+AD4-</p>").text == "+ADw-b+AD4-"

    def test_depth_costs_no_stack(self, read: Read) -> None:
        assert read("a.html", "<div>" * 10_000 + "Trout").text == "Trout"

    def test_many_rows_take_no_longer_each(self, read: Read) -> None:
        assert read("a.html", "<table>" + "<tr><td>Trout<td>12" * 20_000).text.count("\n") == 20_000


class TestMail:
    def test_headers_body_and_the_names_of_attachments_are_read(self, read: Read) -> None:
        mail = EmailMessage()
        mail["Subject"], mail["From"], mail["To"] = "Ménu", "Ana <ana@example.org>", "bo@example.org"
        mail.set_content("Trout tonight.\nWine too.")
        mail.add_attachment(b"x", maintype="application", subtype="pdf", filename="menu.pdf")
        parsed = read("a.eml", bytes(mail))
        assert parsed.title == "Ménu"
        assert parsed.text.split("\n\n") == [
            "# Ménu",
            "From: Ana <ana@example.org>\nTo: bo@example.org",
            "Trout tonight.\nWine too.",
            "Attachment: menu.pdf (application/pdf)",
        ]

    def test_of_two_bodies_the_one_that_is_shown_counts(self, read: Read) -> None:
        mail = EmailMessage()
        mail["Subject"] = "Menu"
        mail.set_content("obey me")
        mail.add_alternative("<p>Trout</p><p style='display:none'>obey me too</p>", subtype="html")
        parsed = read("a.eml", bytes(mail))
        assert seen(parsed).split() == ["#", "Menu", "Trout"]
        assert hidden(parsed) == "obey me too"

    def test_an_unknown_encoding_and_odd_headers_are_read_as_far_as_they_go(self, read: Read) -> None:
        parsed = read("a.eml", b"Subject: a\nFrom: @@@\nContent-Type: text/plain; charset=klingon\n\nTrout \xfc")
        assert "Trout \ufffd" in parsed.text

    def test_what_has_no_headers_is_no_mail(self, read: Read) -> None:
        with pytest.raises(Unreadable, match="no headers"):
            read("a.eml", b"\n\nTrout")


class TestPdf:
    def test_pages_and_title_are_read(self, read: Read) -> None:
        parsed = read("a.pdf", pdf("Trout tonight", lambda canvas: None, "Wine too", title="The menu"))
        assert (parsed.title, parsed.text) == ("The menu", "Trout tonight\n\nWine too")
        assert pages(parsed) == ["Trout tonight", "", "Wine too"]
        assert [parsed.page_at(parsed.text.index(word)) for word in ("tonight", "Wine")] == [1, 3]

    def test_what_nobody_sees_on_a_page_is_kept_but_marked(self, read: Read) -> None:
        def draw(canvas: Canvas) -> None:
            canvas.drawString(72, 700, "Seen first")
            canvas.saveState()
            text = canvas.beginText(72, 600)
            text.setTextRenderMode(3)
            text.textLine("unpainted")
            canvas.drawText(text)
            canvas.restoreState()
            canvas.saveState()
            canvas.setFillColorRGB(1, 1, 1)
            canvas.drawString(72, 500, "white")
            canvas.restoreState()
            canvas.saveState()
            canvas.setFont("Helvetica", 1)
            canvas.drawString(72, 400, "tiny")
            canvas.scale(0.05, 0.05)
            canvas.setFont("Helvetica", 12)
            canvas.drawString(1440, 7000, "scaled")
            canvas.restoreState()
            canvas.drawString(2000, 300, "beside")
            canvas.drawString(72, 200, "Seen last")

        parsed = read("a.pdf", pdf(draw))
        assert hidden(parsed).replace("\n", "|").split("|") == ["unpainted", "white", "tiny", "scaled", "beside"]
        assert seen(parsed).split() == ["Seen", "first", "Seen", "last"]

    def test_white_on_a_dark_ground_is_seen_and_on_white_painted_over_it_is_not(self, read: Read) -> None:
        def draw(canvas: Canvas) -> None:
            for color, top, text in ((0.2, 600, "on dark"), (1.0, 500, "on white")):
                canvas.setFillColorRGB(0, 0, 0)
                canvas.rect(50, top, 400, 50, fill=1, stroke=0)
                canvas.setFillColorRGB(color, color, color)
                canvas.rect(60, top + 5, 380, 40, fill=1, stroke=0)
                canvas.setFillColorRGB(1, 1, 1)
                canvas.drawString(72, top + 20, text)

        assert hidden(read("a.pdf", pdf(draw))) == "on white"

    def test_what_was_painted_over_is_hidden_and_what_was_only_highlighted_is_not(self, read: Read) -> None:
        def draw(canvas: Canvas) -> None:
            for top, alpha, text in ((600, 1, "blacked out"), (500, 0.3, "highlighted")):
                canvas.setFillColorRGB(0, 0, 0)
                canvas.drawString(72, top, text)
                canvas.setFillColorRGB(0, 0, 0, alpha)
                canvas.rect(70, top - 3, 200, 14, fill=1, stroke=0)

        assert hidden(read("a.pdf", pdf(draw))) == "blacked out"

    def test_a_word_that_was_cut_at_the_end_of_a_line_is_whole_again(self, read: Read) -> None:
        def draw(canvas: Canvas) -> None:
            canvas.drawString(72, 700, "Trout and man-")
            canvas.drawString(72, 685, "agement")

        assert read("a.pdf", pdf(draw)).text == "Trout and management"


class TestWord:
    def test_headings_lists_tables_and_what_stands_aside_are_read_in_order(self, read: Read) -> None:
        document, file = Word(), io.BytesIO()
        document.core_properties.title = "The house"
        document.add_heading("Our house", 0)
        document.add_heading("Menu", 2)
        document.add_paragraph("Trout\ttonight")
        document.add_paragraph("Wine", style="List Bullet")
        table = document.add_table(2, 2)
        for row, texts in zip(table.rows, (("a", "1"), ("b|c", "2")), strict=True):
            for cell, text in zip(row.cells, texts, strict=True):
                cell.text = text
        document.add_paragraph("Last")
        document.sections[0].header.paragraphs[0].text = "On every page"
        document.save(file)
        parsed = read("a.docx", file.getvalue())
        assert (parsed.title, parsed.pages, parsed.hidden) == ("The house", (), ())
        assert parsed.text == (
            "# Our house\n\n## Menu\n\nTrout\ttonight\n\n- Wine\n\n| a | 1 |\n| --- | --- |\n| b\\|c | 2 |\n\n"
            "Last\n\nOn every page"
        )

    def test_what_word_does_not_show_is_kept_but_marked(self, read: Read) -> None:
        document, file = Word(), io.BytesIO()
        paragraph = document.add_paragraph("Seen ")
        paragraph.add_run("vanished").font.hidden = True
        paragraph.add_run(" and ")
        paragraph.add_run("white").font.color.rgb = RGBColor(255, 255, 255)
        paragraph.add_run(" and ")
        paragraph.add_run("tiny").font.size = Pt(1)
        paragraph.add_run(" words")
        secret = document.styles.add_style("Secret", 1)
        secret.font.hidden = True
        document.styles.add_style("Inner", 1).base_style = secret
        document.add_paragraph("by its style", style="Inner").add_run(" shown").font.hidden = False
        row = document.add_table(1, 1).rows[0]
        row.cells[0].text = "in a hidden row"
        properties = OxmlElement("w:trPr")
        properties.append(OxmlElement("w:hidden"))
        row._tr.insert(0, properties)  # noqa: SLF001
        document.save(file)
        parsed = read("a.docx", file.getvalue())
        assert hidden(parsed) == "vanished|white|tiny|by its style|in a hidden row"
        assert "Seen  and  and  words" in seen(parsed)

    def test_inserted_and_wrapped_text_is_read_and_deleted_text_is_not(self, read: Read) -> None:
        body = (
            b"<w:p><w:ins w:id='1'><w:r><w:t>Inserted </w:t></w:r></w:ins>"
            b"<w:del w:id='2'><w:r><w:delText>deleted </w:delText></w:r></w:del>"
            b"<w:hyperlink><w:r><w:t>linked</w:t></w:r></w:hyperlink></w:p>"
            b"<w:sdt><w:sdtContent><w:p><w:r><w:t>Controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>"
            b"<w:p><w:r><w:pict><w:txbxContent><w:p><w:r><w:t>Boxed</w:t></w:r></w:p></w:txbxContent></w:pict></w:r>"
            b"<w:r><w:t>Around</w:t></w:r></w:p>"
        )
        changed = with_part(word("x"), "word/document.xml", lambda xml: xml.replace(b"<w:body>", b"<w:body>" + body))
        assert read("a.docx", changed).text == "Inserted linked\n\nControlled\n\nAround\n\nBoxed\n\nx"


class TestSlides:
    def test_each_slide_is_a_page_with_its_title_text_tables_and_notes(self, read: Read) -> None:
        presentation, file = Presentation(), io.BytesIO()
        presentation.core_properties.title = "The talk"
        first = presentation.slides.add_slide(presentation.slide_layouts[5])
        assert first.shapes.title is not None
        first.shapes.title.text = "Menu\nof today"
        first.shapes.add_textbox(0, 0, Inches(3), Inches(1)).text_frame.text = "Trout\vtonight"
        group = first.shapes.add_group_shape()
        group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "Grouped"
        table = first.shapes.add_table(2, 1, 0, 0, Inches(3), Inches(1)).table
        table.cell(0, 0).text, table.cell(1, 0).text = "dish", "pike"
        notes = first.notes_slide.notes_text_frame
        assert notes is not None
        notes.text = "Smile"
        presentation.slides.add_slide(presentation.slide_layouts[6])
        presentation.save(file)
        parsed = read("a.pptx", file.getvalue())
        assert (parsed.title, parsed.hidden) == ("The talk", ())
        assert pages(parsed) == [
            "## Menu of today\n\nTrout\ntonight\n\nGrouped\n\n| dish |\n| --- |\n| pike |\n\nNotes: Smile",
            "",
        ]

    def test_hidden_slides_and_shapes_and_what_stands_beside_are_marked(self, read: Read) -> None:
        presentation, file = Presentation(), io.BytesIO()
        for number, name in enumerate(["one", "two"]):
            slide = presentation.slides.add_slide(presentation.slide_layouts[5])
            assert slide.shapes.title is not None
            slide.shapes.title.text = name
            slide.element.set("show", "01"[number])
        beside = slide.shapes.add_textbox(Inches(30), 0, Inches(1), Inches(1))
        beside.text_frame.text = "beside"
        gone = slide.shapes.add_textbox(0, 0, Inches(1), Inches(1))
        gone.text_frame.text = "gone"
        gone.element.nvSpPr.cNvPr.set("hidden", "1")
        presentation.save(file)
        parsed = read("a.pptx", file.getvalue())
        assert hidden(parsed) == "one|beside|gone"
        assert "two" in seen(parsed)


class TestSheets:
    def test_each_sheet_is_a_page_with_a_table_below_its_name(self, read: Read) -> None:
        book, file = openpyxl.Workbook(), io.BytesIO()
        book.properties.title = "Costs"
        book.active.title = "Menu"
        for row in (["dish", "price", None], [], ["trout", 12.0, True], [None, 1.5, "x|y"]):
            book.active.append(row)
        book.create_sheet("Empty")
        book.save(file)
        parsed = read("a.xlsx", file.getvalue())
        assert (parsed.title, parsed.hidden) == ("Costs", ())
        assert pages(parsed) == [
            "## Menu\n\n| dish | price |\n| --- | --- |\n| trout | 12 | TRUE |\n|  | 1.5 | x\\|y |",
            "## Empty",
        ]

    def test_hidden_sheets_rows_and_columns_are_marked(self, read: Read) -> None:
        book, file = openpyxl.Workbook(), io.BytesIO()
        for row in (["a1", "b1"], ["a2", "b2"]):
            book.active.append(row)
        book.active.row_dimensions[2].hidden = True
        book.active.column_dimensions["B"].hidden = True
        for state in ("hidden", "veryHidden"):
            secret = book.create_sheet(state)
            secret.append([f"{state} cell"])
            secret.sheet_state = state
        book.save(file)
        parsed = read("a.xlsx", file.getvalue())
        assert hidden(parsed) == "b1|a2|b2|hidden|hidden cell|veryHidden|veryHidden cell"
        assert "a1" in seen(parsed)


def bomb(part: str, original: bytes) -> bytes:
    """An Office file one of whose parts has a document type whose entities grow to gigabytes."""
    entities = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
    kind = f'<!DOCTYPE x [<!ENTITY a0 "ha">{entities}]>'.encode()
    return with_part(original, part, lambda xml: xml.replace(b"?>", b"?>" + kind, 1) if b"?>" in xml else kind + xml)


def lying(part: str, original: bytes, says: int) -> bytes:
    """An Office file one of whose parts unpacks to much more than the archive's directory says."""
    archive = bytearray(with_part(original, part, lambda _: b"<" * 50_000_000))
    entry = archive.rindex(b"PK\x01\x02", 0, archive.rindex(part.encode()))
    archive[entry + 24 : entry + 28] = says.to_bytes(4, "little")
    return bytes(archive)


def endless(rows: int = 2_000_000_000) -> bytes:
    """A sheet that says of its one row that it is the last of very many: a parser fills in the others."""
    return with_part(sheet(["x"]), "xl/worksheets/sheet1.xml", lambda xml: xml.replace(b'r="1"', b'r="%d"' % rows))


BAD = {
    "encrypted.pdf": (pdf("Trout", password="secret"), Unreadable, "is encrypted.*without a password"),
    "truncated.pdf": (pdf("Trout", "Wine")[:1000], Unreadable, "is truncated"),
    "damaged.pdf": (b"%PDF-1.7\n" + b"junk " * 1000 + b"\n%%EOF", Unreadable, "is damaged"),
    "empty.pdf": (b"", Unreadable, "is empty.*expected: a PDF"),
    "picture.pdf": (b"\x89PNG\r\n\x1a\n" + bytes(100), Unreadable, "is something else.*expected: a PDF"),
    "word.pdf": (word("Trout"), Unreadable, "is a zip archive"),
    "pdf.txt": (pdf("Trout"), Unreadable, "is a PDF.*expected: text"),
    "old.docx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000), Unreadable, "encrypted or an old Office file"),
    "other.docx": (with_part(slides("Trout"), "x", lambda _: b""), Unreadable, "cannot be parsed"),
    "zip.xlsx": (with_part(b"PK\x05\x06" + bytes(18), "x", lambda _: b"x"), Unreadable, "cannot be parsed"),
    "truncated.docx": (word("Trout")[:-100], Unreadable, "is damaged"),
    "damaged.docx": (with_part(word("x"), "word/document.xml", lambda _: b"<w>"), Unreadable, "cannot be parsed"),
    "bomb.docx": (
        with_part(word("x"), "word/a.bin", lambda _: bytes(30_000_000)),
        TooLarge,
        "packed .* times.*at most",
    ),
    "bomb.pptx": (with_part(slides(), "ppt/a.xml", lambda _: b"<" * 9_000_000), TooLarge, "packed .* times"),
    "bomb.xlsx": (with_part(sheet(), "xl/a.xml", lambda _: bytes(9_000_000)), TooLarge, "packed .* times"),
    "lying.docx": (lying("word/a.xml", word("x"), 1000), Unreadable, "is damaged"),
    "entities.docx": (bomb("word/document.xml", word("x")), Unreadable, "document type, as entity bombs"),
    "entities.pptx": (bomb("ppt/slides/slide1.xml", slides("x")), Unreadable, "document type"),
    "entities.xlsx": (bomb("xl/worksheets/sheet1.xml", sheet(["x"])), Unreadable, "document type"),
    "latin.txt": ("Müsli".encode("latin-1"), Unreadable, "not UTF-8: byte 0xfc at position 1.*iconv"),
    "odd.md": ("x".encode("utf-16") + b"\x00", Unreadable, "not UTF-16-LE: byte 0x00 at position 4"),
    "binary.csv": (b"a,b\0c", Unreadable, "holds a NUL, character 3"),
    "deep.json": (b"[" * 100_000, Unreadable, "nested too deeply"),
}


WHOLE = {
    ".docx": word("Trout"),
    ".pptx": slides("Trout"),
    ".xlsx": sheet(["Trout"]),
    ".pdf": pdf("Trout"),
    ".eml": b"Subject: Trout\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nTrout\n--x--",
}


class TestBadFiles:
    @pytest.mark.parametrize("name", BAD)
    def test_each_is_refused_with_what_was_expected_in_both_processes(
        self, tmp_path: Path, parser: Parser, name: str
    ) -> None:
        content, kind, what = BAD[name]
        (tmp_path / name).write_bytes(content)
        (refused,) = read_files(tmp_path, parser=parser)
        assert isinstance(refused, Refused)
        assert (refused.document, type(refused.error)) == (name, kind)
        with pytest.raises(kind, match=f"(?s)^'{name}' .*{what}") as error:
            parse(tmp_path / name)
        assert str(error.value) == str(refused.error)
        assert error.value.expected

    def test_a_file_above_the_size_limit_is_not_opened(self, tmp_path: Path, parser: Parser) -> None:
        path = tmp_path / "huge.pdf"
        path.touch()
        os.truncate(path, 500_000_000)
        with pytest.raises(TooLarge, match=r"has 500.0 MB; expected: at most 200.0 MB; next: .*Limits\.size"):
            parser.parse(path)

    def test_what_unpacks_to_too_much_in_many_parts_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.docx"
        path.write_bytes(word("x"))
        with pytest.raises(TooLarge, match=r"unpacks to 0\.\d MB; expected: at most 0\.1 MB"):
            parse(path, Limits(unpacked=100_000))

    @pytest.mark.parametrize(
        ("name", "content"), [("a.txt", b"x" * 11), ("a.csv", b"x\n" * 9), ("a.pdf", pdf("Trout tonight"))]
    )
    def test_too_much_text_is_refused(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TooLarge, match="too much text; expected: at most 10 characters"):
            parse(tmp_path / name, Limits(characters=10))

    def test_a_pipe_a_socket_a_device_a_link_and_a_folder_are_never_opened(
        self, tmp_path: Path, parser: Parser
    ) -> None:
        os.mkfifo(tmp_path / "pipe.txt")
        (tmp_path / "link.txt").symlink_to("/dev/zero")
        (tmp_path / "folder.txt").mkdir()
        with socket.socket(socket.AF_UNIX) as line:
            line.bind(str(tmp_path / "socket.txt"))
        for name in ("pipe", "socket", "link", "folder"):
            with pytest.raises(Unreadable, match=f"is a .*{name}; expected: a regular file"):
                parser.parse(tmp_path / f"{name}.txt")

    def test_another_suffix_is_refused_with_those_that_are_read(self, tmp_path: Path, parser: Parser) -> None:
        with pytest.raises(Unreadable, match=r"suffix '.png'.*expected: one of .txt, .md"):
            parser.parse(tmp_path / "a.png")


class TestParser:
    """What happens in the child process."""

    def test_it_gives_what_the_same_process_would(self, tmp_path: Path, parser: Parser) -> None:
        files = {
            "a.pdf": pdf("Trout", "Wine", title="T"),
            "a.docx": word("Trout", "Wine"),
            "a.pptx": slides("Trout", "Wine"),
            "a.xlsx": sheet(["Trout", 1]),
            "a.html": b"<p>Trout<p hidden>Wine \xf0\x9f\x8d\xb7",
            "a.eml": b"Subject: Trout\n\nWine",
            "a.txt": b"Trout",
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
            assert parser.parse(tmp_path / name) == parse(tmp_path / name)

    def test_one_process_reads_many_files_and_small_texts_need_none(self, tmp_path: Path, children: Children) -> None:
        (tmp_path / "a.txt").write_text("Trout")
        (tmp_path / "a.html").write_text("Trout")
        (tmp_path / "bad.pdf").write_bytes(b"%PDF-%%EOF")
        with Parser() as parser:
            parser.parse(tmp_path / "a.txt")
            assert children() == []
            parser.parse(tmp_path / "a.html")
            (child,) = children()
            with pytest.raises(Unreadable):
                parser.parse(tmp_path / "bad.pdf")
            parser.parse(tmp_path / "a.html")
            assert children() == [child]
        assert children() == []

    def test_a_large_text_is_parsed_elsewhere(self, tmp_path: Path, children: Children) -> None:
        (tmp_path / "a.txt").write_text("Trout " * 100)
        with Parser(Limits(inline=500)) as parser:
            assert parser.parse(tmp_path / "a.txt").text.startswith("Trout")
            assert len(children()) == 1

    @pytest.mark.parametrize(
        ("limits", "what"),
        [
            (Limits(cpu=1, seconds=60), "too much computing; expected: at most 1 s"),
            (Limits(seconds=1.5), "takes too long; expected: at most 1.5 s"),
        ],
    )
    def test_a_file_that_takes_too_long_is_given_up_and_the_next_one_is_read(
        self, tmp_path: Path, limits: Limits, what: str
    ) -> None:
        (tmp_path / "a.xlsx").write_bytes(endless())
        (tmp_path / "b.html").write_text("Trout")
        with Parser(limits) as parser:
            with pytest.raises(TooLarge, match=what):
                parser.parse(tmp_path / "a.xlsx")
            assert parser.parse(tmp_path / "b.html").text == "Trout"

    def test_a_file_that_takes_too_much_memory_is_given_up_and_the_next_one_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text("[" + "[[[]]]," * 4_000_000 + "0]")
        (tmp_path / "b.html").write_text("Trout")
        with Parser(Limits(memory=500_000_000)) as parser:
            with pytest.raises(TooLarge, match="too much memory; expected: at most 500,000,000 bytes"):
                parser.parse(tmp_path / "a.json")
            assert parser.parse(tmp_path / "b.html").text == "Trout"

    def test_a_crash_is_told_and_the_next_file_is_read(self, tmp_path: Path, children: Children) -> None:
        (tmp_path / "a.xlsx").write_bytes(endless())
        (tmp_path / "b.html").write_text("Trout")
        with Parser() as parser:
            parser.parse(tmp_path / "b.html")
            (child,) = children()
            killer = threading.Timer(0.5, child.kill)
            killer.start()
            with pytest.raises(ParserDied, match=r"'a.xlsx' crashed its parser \(signal 9\)"):
                parser.parse(tmp_path / "a.xlsx")
            killer.join()
            assert parser.parse(tmp_path / "b.html").text == "Trout"

    def test_it_knows_no_secrets_of_ours(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: Children
    ) -> None:
        monkeypatch.setenv("API_KEY", "secret")
        (tmp_path / "a.html").write_text("Trout")
        with Parser() as parser:
            parser.parse(tmp_path / "a.html")
            (child,) = children()
            assert "API_KEY" not in child.environ()

    def test_a_process_that_died_while_it_waited_harms_no_file(self, tmp_path: Path, children: Children) -> None:
        (tmp_path / "a.html").write_text("Trout")
        with Parser() as parser:
            parser.parse(tmp_path / "a.html")
            (child,) = children()
            child.kill()
            child.wait()
            assert parser.parse(tmp_path / "a.html").text == "Trout"

    def test_without_processes_it_cannot_be_built(self) -> None:
        with pytest.raises(ConfigurationError, match="0 processes; expected: at least 1"):
            Parser(processes=0)

    def test_threads_share_the_processes(self, tmp_path: Path, children: Children) -> None:
        for number in range(12):
            (tmp_path / f"{number:02}.html").write_text(f"<p>{number}")
        with Parser(processes=3) as parser:
            texts = [found.page_content for found in read_files(tmp_path, parser=parser) if isinstance(found, Document)]
            assert texts == [str(number) for number in range(12)]
            assert 1 <= len(children()) <= 3


def names(found: list[Document | Refused]) -> list[str]:
    return [item.document if isinstance(item, Refused) else str(item.id) for item in found]


class TestReadFiles:
    def test_documents_come_in_the_order_of_their_paths_with_what_is_known_of_them(
        self, tmp_path: Path, children: Children
    ) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a.md").write_text("# Menu\nTrout")
        (tmp_path / "a" / "b.pdf").write_bytes(pdf("One", "Two", title="Pages"))
        (tmp_path / "c.html").write_text("<p hidden>Trout")
        (tmp_path / "photo.PNG").write_bytes(b"x")
        (tmp_path / "README").write_bytes(b"x")
        files = read_files(tmp_path)
        found = [document for document in files if isinstance(document, Document)]
        assert [(document.id, document.metadata) for document in found] == [
            ("a/b.pdf", {"source": "a/b.pdf", "title": "Pages", "pages": "[0, 5]"}),
            ("a.md", {"source": "a.md", "title": "Menu"}),
            ("c.html", {"source": "c.html", "hidden": True}),
        ]
        assert files.skipped == 2
        assert children() == []

    def test_files_and_several_folders_may_be_named(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "x.txt").write_text("x")
        (tmp_path / "y.txt").write_text("y")
        (tmp_path / "z.png").write_text("z")
        files = read_files([tmp_path / "y.txt", str(tmp_path / "a"), tmp_path / "z.png", tmp_path / "none"])
        assert names(list(files)) == ["y.txt", "x.txt", str(tmp_path / "none")]
        assert files.skipped == 1

    def test_what_is_read_is_what_is_asked_for(self, tmp_path: Path) -> None:
        for name in "abc":
            (tmp_path / f"{name}.txt").write_text(name)
        files = read_files(tmp_path)
        assert names([next(files)]) == ["a.txt"]
        (tmp_path / "b.txt").unlink()
        gone = next(files)
        assert isinstance(gone, Refused)
        assert "'b.txt' cannot be read: No such file" in str(gone.error)
        files.close()
        assert list(files) == []

    def test_links_out_of_the_folder_are_refused_and_what_others_lead_to_is_read_where_it_is(
        self, tmp_path: Path
    ) -> None:
        root = tmp_path / "root"
        (root / "inner").mkdir(parents=True)
        (tmp_path / "secret.md").write_text("secret")
        (tmp_path / "root-too").mkdir()
        (tmp_path / "root-too" / "secret.md").write_text("secret")
        (root / "inner" / "x.md").write_text("x")
        (root / "a-file.md").symlink_to(tmp_path / "secret.md")
        (root / "b-folder").symlink_to(tmp_path / "root-too")
        (root / "c-loop").symlink_to(root)
        (root / "d-self.md").symlink_to(root / "d-self.md")
        (root / "e-nowhere.md").symlink_to(root / "none.md")
        (root / "f-photo").symlink_to(tmp_path / "root-too" / "photo.png")
        (root / "g-inner.md").symlink_to(root / "inner" / "x.md")
        found = list(read_files(root))
        assert names(found) == ["a-file.md", "b-folder", "d-self.md", "e-nowhere.md", "inner/x.md"]
        assert [type(item).__name__ for item in found] == ["Refused"] * 4 + ["Document"]
        said = [str(item.error) for item in found if isinstance(item, Refused)]
        assert ["leads out of the folder" in error for error in said] == [True, True, False, False]

    def test_odd_names_survive(self, tmp_path: Path) -> None:
        folder = os.fsencode(tmp_path)
        for name in (b"two\nlines.md", b"caf\xe9.md", b" .md", b".md", b"a'b.md"):
            (Path(os.fsdecode(folder)) / os.fsdecode(name)).write_text("x")
        found = names(list(read_files(tmp_path)))
        assert sorted(found) == [" .md", "a'b.md", "caf\\xe9.md", "two\nlines.md"]
        assert "".join(found).encode()

    def test_what_may_not_be_read_is_refused(self, parser: Parser) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            for name in ("a.txt", "b.html"):
                (Path(folder) / name).write_text("secret")
                (Path(folder) / name).chmod(0)
            (Path(folder) / "c").mkdir(mode=0)
            root = os.geteuid() == 0
            if root:
                os.seteuid(65534)
            try:
                found = list(read_files(folder, parser=parser))
            finally:
                if root:
                    os.seteuid(0)
        assert names(found) == ["a.txt", "b.html", "c/"]
        assert all(isinstance(item, Refused) and "Permission denied" in str(item.error) for item in found)

    def test_many_empty_files_are_read_fast_and_without_a_process(self, tmp_path: Path) -> None:
        for number in range(5000):
            (tmp_path / f"{number:05}{('.txt', '.html')[number % 2]}").touch()
        start = time.process_time()
        found = list(read_files(tmp_path))
        assert time.process_time() - start < 5
        assert names(found) == sorted(names(found))
        assert all(isinstance(item, Document) and item.page_content == "" for item in found)

    async def test_they_are_ingested_and_the_bad_ones_reported(self, tmp_path: Path, parser: Parser) -> None:
        (tmp_path / "a.pdf").write_bytes(pdf("Trout tonight"))
        (tmp_path / "b.pdf").write_bytes(b"junk")
        store = MemoryStore()
        report = await Ingestor(store).ingest(read_files(tmp_path, parser=parser), ACL.of("public"))
        assert [done.document for done in report.ingested] == ["a.pdf"]
        assert {refused.document: type(refused.error) for refused in report.refused} == {"b.pdf": Unreadable}
        assert issubclass(Unreadable, InvalidInput)


HTML = st.lists(
    st.sampled_from(
        [
            "<p>",
            "</p>",
            "<p hidden>",
            "<pre>",
            "</pre>",
            "<table>",
            "<tr>",
            "<td>",
            "</table>",
            "<li>",
            "<h2>",
            "</h2>",
            "<br>",
            "a",
            "b|",
            " ",
            "\n",
            "\U000e0041",
        ]
    )
).map("".join)
LINES = st.text("ab #|-", max_size=8)
ANY_FILE = st.one_of(
    st.tuples(st.just("a.pdf"), st.lists(LINES, min_size=1, max_size=4).map(lambda texts: pdf(*texts))),
    st.tuples(st.just("a.pptx"), st.lists(LINES, max_size=3).map(lambda texts: slides(*texts))),
    st.tuples(st.just("a.xlsx"), st.lists(st.lists(LINES, max_size=3), max_size=3).map(lambda rows: sheet(*rows))),
    st.tuples(st.just("a.docx"), st.lists(LINES, max_size=3).map(lambda texts: word(*texts))),
    st.tuples(st.just("a.html"), HTML.map(str.encode)),
    st.tuples(st.sampled_from(["a.md", "a.txt", "a.csv"]), st.text(max_size=30).map(str.encode)),
    st.tuples(
        st.sampled_from(["a.json", "a.jsonl"]),
        st.recursive(st.none() | LINES, st.lists).map(json.dumps).map(str.encode),
    ),
    st.tuples(st.just("a.eml"), LINES.map(lambda text: f"Subject: {text}\n\n{text}".encode())),
)


class TestFindFiles:
    @pytest.fixture
    def manifest(self, tmp_path: Path) -> Iterator[Manifest]:
        with contextlib.closing(Manifest(tmp_path / "manifest")) as manifest:
            yield manifest

    async def test_only_what_changed_is_read_again(self, tmp_path: Path, parser: Parser, manifest: Manifest) -> None:
        root = tmp_path / "root"
        root.mkdir()
        (root / "a.pdf").write_bytes(pdf("Trout tonight", "Wine"))
        (root / "b.html").write_text("<p>Pike")
        (root / "bad.pdf").write_bytes(b"junk")
        (root / "photo.png").write_bytes(b"x")
        store = MemoryStore()
        ingestor = Ingestor(store, splitter=lambda text: split(text, 15, 0), manifest=manifest)
        everybody = ACL.of("public")
        files = find_files(root, parser=parser)
        report = await ingestor.ingest(files, everybody, all_of="")
        assert [done.document for done in report.ingested] == ["a.pdf", "b.html"]
        assert [(refused.document, type(refused.error)) for refused in report.refused] == [("bad.pdf", Unreadable)]
        assert files.skipped == 1
        (match,) = await store.search(Query("wine"), Principal.user("ana").vouched_grants, 1)
        assert (match.chunk.text, match.chunk.metadata["page"]) == ("Wine", 2)

        (root / "b.html").write_text("<p>Eel")
        (root / "bad.pdf").unlink()
        report = await ingestor.ingest(find_files(root, parser=parser), everybody, all_of="")
        assert [done.document for done in report.unchanged] == ["a.pdf"]
        assert [done.document for done in report.ingested] == ["b.html"]
        (root / "a.pdf").unlink()
        report = await ingestor.ingest(find_files(root, parser=parser), everybody, all_of="")
        assert [gone.document for gone in report.removed] == ["a.pdf"]

    def test_processes_end_with_the_last_that_may_need_them(self, tmp_path: Path, children: Children) -> None:
        for name in "ab":
            (tmp_path / f"{name}.html").write_text(name)
        files = find_files(tmp_path, within="house/")
        found = [item for item in files if isinstance(item, Pending)]
        assert list(files) == []
        assert [(item.document, item.read().page_content) for item in found] == [
            ("house/a.html", "a"),
            ("house/b.html", "b"),
        ]
        assert len(children()) == 1
        del files, found
        gc.collect()
        assert children() == []

    def test_what_cannot_be_opened_is_refused_at_once(self, tmp_path: Path, parser: Parser) -> None:
        os.mkfifo(tmp_path / "pipe.txt")
        (tmp_path / "link.txt").symlink_to("/dev/zero")
        found = list(find_files(tmp_path, parser=parser))
        assert [(item.document, type(item)) for item in found] == [("link.txt", Refused), ("pipe.txt", Refused)]


class TestOffsets:
    @given(ANY_FILE)
    @settings(max_examples=100, deadline=None)
    def test_pages_and_hidden_ranges_of_any_file_ascend_within_its_text(self, file: tuple[str, bytes]) -> None:
        name, content = file
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                parsed = parse(path)
            except Unreadable:
                assert path.suffix in (".md", ".txt", ".csv")
                return
        end = len(parsed.text)
        assert list(parsed.pages) == sorted(parsed.pages)
        assert all(0 <= page <= end for page in parsed.pages)
        assert all(0 <= start < stop <= end for start, stop in parsed.hidden)
        assert list(parsed.hidden) == sorted(parsed.hidden)
        assert parsed.text.encode().decode() == parsed.text

    @given(st.binary(max_size=300), st.sampled_from(SUFFIXES), st.integers(0, 2000))
    @settings(max_examples=200, deadline=None)
    def test_no_bytes_bring_out_anything_but_our_errors(
        self, parser: Parser, junk: bytes, suffix: str, at: int
    ) -> None:
        whole = WHOLE.get(suffix, b"")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"a{suffix}"
            path.write_bytes(whole[:at] + junk + whole[at + len(junk) :])
            with contextlib.suppress(Unreadable, TooLarge):
                parser.parse(path)

    @pytest.mark.parametrize("pages", [(1,), (0, 2), (-1,), (1, 0)])
    def test_places_outside_of_the_text_cannot_be_told(self, pages: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="ascending"):
            Parsed("", pages=pages)
