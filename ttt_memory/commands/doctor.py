"""`ttt-memory doctor`: what this machine has and lacks, and the line that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from ttt_memory.cache_folder import cache_dir
from ttt_memory.commands.output import err, out, print_json, size
from ttt_memory.commands.place import Place, verb
from ttt_memory.commands.reports import Check, DoctorReport
from ttt_memory.errors import TTTMemoryError
from ttt_memory.model.catalogue import PULL_COMMAND, list_models
from ttt_memory.settings import Settings

_NEEDED = ("torch", "numpy", "safetensors", "tiktoken", "sqlalchemy", "alembic", "faiss-cpu", "pydantic", "zstandard")
_EXTRAS = {
    "PostgreSQL stores": ("postgres", "psycopg"),
    "PDF, DOCX, PPTX and HTML files": ("loaders", "pypdf"),
    "An MCP server": ("mcp", "mcp"),
    "Models behind endpoints": ("http", "httpx"),
    "GPU kernels": ("triton", "triton"),
}
_ROOM = 2_000_000_000
EXAMPLES = """
ttt-memory doctor
ttt-memory doctor --db postgresql://user@host/memory --json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "doctor", examples=EXAMPLES)(_doctor)


def _doctor(place: Place) -> None:
    """Say what this machine has and lacks, and the exact line that mends it. Exit code 1 where something is missing."""
    checks = (*_python(), *_torch(), *_models(), *_room(), *_store(place), *_extras())
    report = DoctorReport(ok=all(check.state != "missing" for check in checks), checks=checks)
    if place.as_json:
        print_json(report)
    else:
        for check in checks:
            style = {"ok": "green", "optional": "yellow", "missing": "bold red"}[check.state]
            out().print(f"{check.state:<9} {check.name}: {check.detail}", style=style)
            if check.fix:
                out().print(f"          -> {check.fix}")
        err().print("All that a memory needs is here." if report.ok else "Something is missing.")
    raise typer.Exit(0 if report.ok else 1)


def _python() -> Iterator[Check]:
    enough = sys.version_info >= (3, 11)
    yield Check(
        name="Python",
        state="ok" if enough else "missing",
        detail=platform.python_version(),
        fix="" if enough else "Install Python 3.11 or newer.",
    )
    for package in _NEEDED:
        try:
            yield Check(name=package, state="ok", detail=importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name=package, state="missing", detail="not installed", fix="pip install ttt-memory")
    yield Check(name="SQLite", state="ok", detail=sqlite3.sqlite_version)


def _torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check(name="computing", state="missing", detail=str(error), fix="pip install --force-reinstall torch")
        return
    from ttt_memory.model.processor import instruction_set, multiplies_bf16

    if torch.cuda.is_available():
        yield Check(name="GPU", state="ok", detail=torch.cuda.get_device_name())
    else:
        yield Check(name="GPU", state="optional", detail="none; the CPU computes")
    threads = Settings.from_env().threads
    precision = "bf16" if multiplies_bf16() else "no bf16: float32, slower"
    detail = f"{instruction_set()}, {precision}, threads: {threads}"
    yield Check(name="CPU", state="ok", detail=detail)


def _models() -> Iterator[Check]:
    for info in list_models():
        if info.state == "built in":
            continue
        if info.state == "absent":
            needed = 'needed unless model="tiny"'
            yield Check(name=info.name, state="missing", detail=f"{info.kind} weights not here; {needed}",
                        fix=f"{PULL_COMMAND} {info.name}")  # fmt: skip
        else:
            yield Check(name=info.name, state="ok", detail=f"{info.kind}, {info.state}, {size(info.bytes)}")


def _room() -> Iterator[Check]:
    folder = cache_dir()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    writable = os.access(there, os.W_OK)
    yield Check(
        name="cache folder",
        state="ok" if writable else "missing",
        detail=f"{folder}, {size(free)} free" + ("" if writable else ", not writable"),
        fix="" if writable else "export TTT_MEMORY_CACHE=/a/folder/you/can/write",
    )
    if free < _ROOM:
        yield Check(
            name="disk", state="optional", detail=f"{size(free)} free is little", fix="Make room, or move the cache."
        )


def _store(place: Place) -> Iterator[Check]:
    from ttt_memory.ledger import Ledger
    from ttt_memory.ledger.engine import Store

    try:
        path = Store(place.url).path
        if path is not None and not path.exists():
            yield _new_file(path)
            return
        with Ledger.open(place.url) as ledger:
            tenants = ledger.tenants()
            shown = ", ".join(tenants[:10]) + ("…" if len(tenants) > 10 else "")
            where = ledger.store.shown
            yield Check(
                name="store", state="ok", detail=f"{where}, {size(ledger.size_bytes())}, tenants: {shown or 'none'}"
            )
    except TTTMemoryError as error:
        yield Check(name="store", state="missing", detail=f"{error.what} {error.why}".strip(), fix=error.fix)


def _new_file(path: Path) -> Check:
    folder = path.absolute().parent
    if folder.is_dir() and os.access(folder, os.W_OK):
        return Check(name="store", state="ok", detail=f"{path} will be made by the first ingest")
    return Check(name="store", state="missing", detail=f"{folder} cannot be written", fix=f"mkdir -p '{folder}'")


def _extras() -> Iterator[Check]:
    for use, (extra, module) in _EXTRAS.items():
        if importlib.util.find_spec(module):
            yield Check(name=use, state="ok", detail=f"{module} is installed")
        else:
            fix = f"pip install 'ttt-memory[{extra}]'"
            yield Check(name=use, state="optional", detail=f"{module} is not installed", fix=fix)
