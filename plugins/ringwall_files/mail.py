"""Mail: its main headers, the body that a mail program shows, and the names of what is attached."""

from __future__ import annotations

import email
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from typing import BinaryIO, Final

from ringwall_files.faults import Unreadable
from ringwall_files.parsed import Limits, Parsed
from ringwall_files.writing import Writer

_HEADERS: Final = ("From", "To", "Cc", "Date")


def read(file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
    """Return headers and body. Of a body in HTML and in plain text the HTML counts: it is what is shown."""
    message = email.message_from_binary_file(file, policy=default)
    assert isinstance(message, EmailMessage)
    if not message.keys():
        raise Unreadable("is not a mail: it has no headers", expected="a mail as it was sent")
    writer = Writer(limits)
    title = str(message.get("Subject", ""))
    writer.heading(1, [(title, False)])
    for name in _HEADERS:
        for value in message.get_all(name, []):
            writer.put(f"{name}: {' '.join(str(value).split())}\n")
    body = message.get_body(("html", "plain"))
    if isinstance(body, EmailMessage):
        _body(writer, body, limits)
    for name in _attachments(message):
        writer.put(f"Attachment: {name}\n")
    return writer.parsed(title=title)


def _body(writer: Writer, body: EmailMessage, limits: Limits) -> None:
    text = _content(body)
    if body.get_content_subtype() != "html":
        writer.paragraph([(text.replace("\r\n", "\n").strip("\n"), False)])
        return
    from ringwall_files.html import page  # selectolax is for those mails alone

    shown = page(text, limits)
    writer.paragraph(_spans(shown))


def _content(body: EmailMessage) -> str:
    try:
        return str(body.get_content())
    except LookupError:  # an encoding that nobody knows
        payload = body.get_payload(decode=True)
        return payload.decode("ascii", "replace") if isinstance(payload, bytes) else ""


def _spans(shown: Parsed) -> Iterator[tuple[str, bool]]:
    at = 0
    for start, end in shown.hidden:
        yield shown.text[at:start], False
        yield shown.text[start:end], True
        at = end
    yield shown.text[at:], False


def _attachments(message: EmailMessage) -> Iterator[str]:
    for part in message.walk():
        if part.is_attachment():
            yield f"{' '.join((part.get_filename() or 'without a name').split())} ({part.get_content_type()})"
