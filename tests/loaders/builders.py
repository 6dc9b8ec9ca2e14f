"""Real files, small: made with the libraries that write them, or byte by byte where a test needs a bad one."""

import csv
import gzip
import io
import json
import zipfile
import zlib
from email.message import EmailMessage


def pdf(pages, *, compress=True, title="Handbook"):
    """A PDF of pages of text, one line each."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        escaped = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        content = f"BT /F1 12 Tf 72 720 Td ({escaped}) Tj ET".encode("latin-1")
        objects.append(stream(content, compress=compress))
        contents = len(objects)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {contents} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    objects.append(f"<< /Title ({title}) >>".encode())
    return assemble(objects, f"/Info {len(objects)} 0 R")


def stream(content, *, compress=True):
    data = zlib.compress(content) if compress else content
    filtered = b"/Filter /FlateDecode " if compress else b""
    return b"<< " + filtered + f"/Length {len(data)} >>\nstream\n".encode() + data + b"\nendstream"


def assemble(objects, trailer=""):
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF".encode()
    return bytes(out)


def docx(paragraphs=("The harbour opens at six.",), *, table=(), page_breaks=False, title="Rules"):
    from docx import Document
    from docx.enum.text import WD_BREAK

    document = Document()
    document.core_properties.title = title
    for number, text in enumerate(paragraphs):
        paragraph = document.add_paragraph(text)
        if page_breaks and number + 1 < len(paragraphs):
            paragraph.add_run().add_break(WD_BREAK.PAGE)
    if table:
        cells = document.add_table(len(table), len(table[0]))
        for row, texts in enumerate(table):
            for column, text in enumerate(texts):
                cells.cell(row, column).text = text
    return _saved(document)


def pptx(slides=("Tides",), *, notes="", table=()):
    from pptx import Presentation
    from pptx.util import Inches

    presentation = Presentation()
    for text in slides:
        slide = presentation.slides.add_slide(presentation.slide_layouts[5])
        slide.shapes.title.text = text
        if table:
            shape = slide.shapes.add_table(len(table), len(table[0]), Inches(1), Inches(2), Inches(4), Inches(1))
            for row, texts in enumerate(table):
                for column, value in enumerate(texts):
                    shape.table.cell(row, column).text = value
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    return _saved(presentation)


def _saved(document):
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def rezip(data, replace=None, add=None):
    """The archive with some parts replaced or added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, (replace or {}).get(entry.filename, old.read(entry)))
        for name, content in (add or {}).items():
            new.writestr(name, content)
    return out.getvalue()


def email(*, html=False, attach=True):
    message = EmailMessage()
    message["From"], message["To"] = "Ada Löv <ada@example.org>", "ben@example.org"
    message["Subject"] = "Crane 4 — inspection"
    message["Date"] = "Tue, 03 Feb 2026 09:15:00 +0100"
    message["Message-ID"] = "<1@example.org>"
    body = "The crane passed.\nNext visit in May."
    if html:
        message.set_content(f"<p>{body}</p><script>alert(1)</script>", subtype="html")
    else:
        message.set_content(body)
        message.add_alternative("<p>another wording</p>", subtype="html")
    if attach:
        message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="crane.png")
    return message.as_bytes()


def table(rows, delimiter=","):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode()


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
TICKETS = [
    {"id": 17, "status": "open", "title": "Pump leaks", "created_at": "2026-01-05T10:00:00Z", "tags": ["pump"]},
    {"id": 18, "status": "closed", "title": "Lamp broken", "created_at": "2026-01-06T10:00:00Z", "tags": []},
]
CHAT = [
    {"role": "user", "content": "Where is the key?", "timestamp": 1767607200},
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "Under the mat."}, {"type": "image_url", "image_url": {}}],
    },
]
HTML = (
    b"<!doctype html><html><head><title>Port  rules</title><style>p{}</style></head><body><h1>Rules</h1>"
    b"<p>No <b>open</b> fire.</p><table><tr><td>berth</td><td>7</td></tr></table>"
    b"<script>x()</script><pre>a\n  b</pre></body></html>"
)


def jsonl(records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def log(count, start=0):
    lines = (f"2026-02-03T10:{n // 60 % 60:02}:{n % 60:02}Z berth {n} free\n" for n in range(start, start + count))
    return "".join(lines).encode()


SAMPLES = {
    "text": ("notes.txt", "Grüße from the pier.\nSecond line.\n".encode()),
    "markdown": ("readme.md", b"# Pier\n\n* berth 7\n"),
    "code": ("crane.py", b"def lift(load):\n    return load * 2\n"),
    "html": ("rules.html", HTML),
    "pdf": ("handbook.pdf", pdf(["First page (intro).", "The mast is 40 m high."])),
    "docx": ("rules.docx", docx(table=(("berth", "depth"), ("7", "9 m")))),
    "pptx": ("talk.pptx", pptx(("Tides", "Winds"), notes="speak slowly", table=(("hour", "height"),))),
    "csv": ("tickets.csv", table([["id", "title"], ["1", "Pump, leaking"], ["2", 'He said "no"']])),
    "json": ("tickets.json", json.dumps(TICKETS).encode()),
    "json chat": ("chat.json", json.dumps({"id": "c1", "messages": CHAT}).encode()),
    "jsonl": ("tickets.jsonl", jsonl(TICKETS)),
    "jsonl chat": ("chat.jsonl", jsonl(CHAT)),
    "email": ("crane.eml", email()),
    "log": ("app.log", log(20)),
    "log gzip": ("app.log.2.gz", gzip.compress(log(20), mtime=0)),
}
