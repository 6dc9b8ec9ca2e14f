"""What `--json` prints is what the committed schemas say."""

import json
from pathlib import Path

import jsonschema
import pytest

from ttt_memory.commands.schemas import PRINTED, schema

FOLDER = Path(__file__).parents[2] / "docs" / "json-schemas"


def test_the_committed_schemas_are_those_of_the_types():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(PRINTED)
    for command in PRINTED:
        text = (FOLDER / f"{command}.json").read_text()
        assert text == schema(command), "mend it: python -m ttt_memory.commands.schemas docs/json-schemas"
        jsonschema.Draft202012Validator.check_schema(json.loads(text))


def valid(command: str, value) -> bool:
    jsonschema.validate(value, json.loads((FOLDER / f"{command}.json").read_text()))
    return True


def test_every_command_prints_what_its_schema_says(run, notes, tmp_path, own_cache):
    (notes / "bad.txt").write_bytes(b"\xff")
    done = run("ingest", notes / "harbour.md", notes / "bad.txt", "--json").json
    first = done["results"][0]["receipt"]["document_id"]
    printed = {
        "ingest": done,
        "ask": run("ask", "What is the door code?", "--json").json,
        "search": run("search", "harbour", "--json").json,
        "documents": run("documents", "--json").json,
        "get": run("get", first, "--json").json,
        "snapshot": run("snapshot", "s", "--json").json,
        "snapshots": run("snapshots", "--json").json,
        "restore": run("restore", "s", "--json").json,
        "fork": run("fork", "other", "--json").json,
        "log": run("log", "--json").json,
        "stats": run("stats", "--json").json,
        "verify": run("verify", "--replay", "--json").json,
        "reindex": run("reindex", "--json").json,
        "export": run("export", tmp_path / "a.ttt", "--json").json,
        "import": run("import", tmp_path / "a.ttt", "--tenant", "new", "--json").json,
        "forget": run("forget", first, "--yes", "--json").json,
        "doctor": run("doctor", "--json").json,
        "model-list": run("model", "list", "--json").json,
        "model-info": run("model", "info", "tiny", "--json").json,
        "error": run("get", first, "--json").json,
    }
    assert set(printed) == set(PRINTED)
    for command, value in printed.items():
        assert valid(command, value), command


def test_a_schema_refuses_what_no_command_prints(run, notes):
    run("ingest", notes / "harbour.md")
    stats = run("stats", "--json").json
    for wrong in ({**stats, "more": 1}, {k: v for k, v in stats.items() if k != "digest"}, {**stats, "tokens": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            valid("stats", wrong)
