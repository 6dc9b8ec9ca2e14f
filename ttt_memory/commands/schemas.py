"""JSON Schemas of what commands print with `--json`.

    python -m ttt_memory.commands.schemas docs/json-schemas

writes them anew after a type has changed; a test compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ttt_memory.commands.reports import DoctorReport, ErrorReport, Exported, IngestReport, LogEntry
from ttt_memory.model.catalogue import ModelInfo
from ttt_memory.types import (
    Answer,
    DocumentInfo,
    ForgetReport,
    Passage,
    Snapshot,
    Stats,
    VerifyReport,
)

PRINTED: dict[str, Any] = {
    "ask": Answer,
    "doctor": DoctorReport,
    "documents": list[DocumentInfo],
    "error": ErrorReport,
    "export": Exported,
    "forget": ForgetReport,
    "fork": Stats,
    "get": DocumentInfo,
    "import": Stats,
    "ingest": IngestReport,
    "log": list[LogEntry],
    "model-info": ModelInfo,
    "model-list": list[ModelInfo],
    "reindex": Stats,
    "restore": Snapshot,
    "search": list[Passage],
    "snapshot": Snapshot,
    "snapshots": list[Snapshot],
    "stats": Stats,
    "verify": VerifyReport,
}
"""Commands to the types they print; `error` is what any of them prints instead where it fails."""


def schema(command: str) -> str:
    """The schema of one command's output, as the file holds it."""
    found = TypeAdapter(PRINTED[command]).json_schema(mode="serialization")
    top = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"ttt-memory {command} --json"}
    return json.dumps({**found, **top}, indent=2, sort_keys=True) + "\n"


def write(folder: Path) -> None:
    """Write every schema to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in PRINTED:
        (folder / f"{command}.json").write_text(schema(command), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
