"""Files become documents, and the bad ones reasons: every file here is made by the library that people make them with."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from email.message import EmailMessage
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

from ringwall import ACL
from ringwall.data import Ingestor, MemoryStore, Refused
from ringwall.errors import InvalidInput
from ringwall_files import Limits, Parsed, Parser, ParserDied, TooLarge, Unreadable, parse, read_files

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


def sheet(*rows: list[object]) -> bytes:
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
    return "".join(parsed.text[end:start] for (_, end), (start, _) in zip(ranges, ranges[1:], strict=False))


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


Read = Callable[[str, bytes | str], Parsed]


class TestText:
    def test_a_text_is_read_as_it_stands(self, read: Read) -> None:
        assert read("a.txt", "Trout\n\n# no heading\n") == Parsed("Trout\n\n# no heading\n")

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
            "<p style='color:#fffff0;opacity:.5'>{}</p>",
        ],
    )
    def test_what_is_seen_is_not_marked(self, read: Read, element: str) -> None:
        assert read("a.html", element.format("hello")).hidden == ()

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
        assert read("a.html", "<div>" * 50_000 + "Trout").text == "Trout"

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

    def test_letters_beyond_the_first_plane_are_one_character_each(self, read: Read) -> None:
        parsed = read("a.pdf", pdf("Trout"))
        assert len(parsed.text) == 5


class TestWord:
    def test_headings_lists_tables_and_what_stands_aside_are_read_in_order(self, read: Read) -> None:
        document, file = Word(), io.BytesIO()
        document.core_properties.title = "The house"
        document.add_heading("Our house", 0)
        document.add_heading("Menu", 2)
        document.add_paragraph("Trout\ttonight")
        document.add_paragraph("Wine", style="List Bullet")
        table = document.add_table(2, 2)
        for cell, text in zip(
            table.columns[0].cells + table.columns[1].cells, "a b|c".split() + ["1", "2"], strict=False
        ):
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
        row._tr.insert(0, properties)
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
