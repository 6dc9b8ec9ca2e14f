"""`ttt-memory ask` with a model behind an endpoint, and with an explanation."""

from __future__ import annotations

import json

import pytest

from tests.memory.answerers_server import openai_stream, serving, status
from tests.memory.helpers import open_tiny
from ttt_memory.cli import main


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TTT_MEMORY_API_KEY", "sk-SECRET")
    monkeypatch.delenv("TTT_MEMORY_BASE_URL", raising=False)
    with open_tiny(tmp_path) as memory:
        memory.ingest("The harbour is closed on Mondays.", learn=False)

    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["--db", str(tmp_path / "memory.db"), "--tenant", "a", "ask", "When is it closed?", *arguments])
        out, err = capsys.readouterr()
        assert "SECRET" not in out + err
        return ended.value.code or 0, out, " ".join(err.split())

    return command


def test_a_model_behind_an_endpoint_answers(run, monkeypatch):
    with serving(openai_stream("On ", "Mondays.", " So said \x1b[31mPelle.")) as server:
        url = f"{server.url}/v1"
        code, out, err = run("--answerer", "openai:reader-1", "--base-url", url, "--explain")
        monkeypatch.setenv("TTT_MEMORY_BASE_URL", url)
        as_json = json.loads(run("--answerer", "openai:reader-1", "--json")[1])
    assert (code, out.splitlines()[0]) == (0, "On Mondays. So said \ufffd[31mPelle.")
    assert "Note: Not borne out by the passages" in err
    assert "Answered by reader-1; confidence" in err
    assert "Question: When is it closed?" in err
    assert "\x1b" not in out + err
    assert server.requests[0][1]["Authorization"] == "Bearer sk-SECRET"
    assert (as_json["prompt"], [claim["supported"] for claim in as_json["claims"]]) == (None, [True, False])


def test_failures_say_what_to_do(run):
    code, out, err = run("--answerer", "openai:reader-1")
    assert (code, out) == (1, "")
    assert "Give --base-url URL" in err
    assert "anthropic, openai" in run("--answerer", "other:reader-1")[2]
    with serving(status(401)) as server:
        code, _, err = run("--answerer", "anthropic:reader-1", "--base-url", server.url)
    assert code == 1
    assert "refused the key" in err


def test_quotes_are_explained(run):
    code, out, err = run("--explain")
    assert (code, out.splitlines()[0]) == (0, "The harbour is closed on Mondays.")
    assert "quoted" in err
    assert "overlap" in err
