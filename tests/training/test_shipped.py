"""The one command behind the shipped weights: its steps, what it does when run again, the whole road on `tiny`."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ttt_training import options as run_options
from ttt_training import shipped
from ttt_training.evaluate import __main__ as evaluate

DOCS = Path(__file__).parents[2] / "docs" / "how-to"


def squad(path: Path) -> Path:
    questions = [
        {"id": str(n), "question": f"How long is the river, asked {n}?", "answers": [{"text": "40 km"}]}
        for n in range(100)
    ]
    qas = [{**one, "is_impossible": False} for one in questions]
    article = {"title": "Orm", "paragraphs": [{"context": "The river Orm is 40 km long.", "qas": qas}]}
    path.write_text(json.dumps(article) + "\n")
    return path


def books(path: Path) -> Path:
    """Sixteen texts that are long enough for every measurement."""
    terms = (DOCS / "ingesting.md").read_text(encoding="utf-8").split()
    texts = [" ".join(random.Random(seed).choices(terms, k=1200)) for seed in range(16)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def words(tmp_path: Path, *more: str) -> list[str]:
    held_out = books(tmp_path / "books.jsonl")
    given = {"--data": DOCS, "--val": held_out, "--docs": held_out, "--questions": squad(tmp_path / "squad.jsonl")}
    given |= {"--data-about": "how-to pages, Apache-2.0", "--out": tmp_path / "out", "--base": "tiny"}
    return [str(word) for pair in given.items() for word in pair] + list(more)


def controls(tmp_path: Path, name: str) -> Path:
    found = tmp_path / "out" / "results" / "controls.json"
    found.parent.mkdir(parents=True, exist_ok=True)
    found.write_text(json.dumps({"results": {"control": {"about": f"{name}: trained without writes"}}}))
    return found


def test_every_step_is_a_command_that_can_be_given_by_hand(tmp_path: Path) -> None:
    controls(tmp_path, "control-0.0002")
    every = list(shipped.steps(shipped._parser().parse_args(words(tmp_path, "--tokens", "900", "--threads", "1"))))
    names = [step.name for step in every]
    assert names[:5] == ["ttt", "control-0.0001", "control-0.0002", "control-0.0004", "export"]
    assert names[5:] == [
        *("controls", "evaluate", "unrounded", "evaluate-docs"),
        *("specificity", "answering", "drift", "needles", "card"),
    ]
    for step in every:
        parser = evaluate._parser() if step.module.endswith("evaluate") else run_options.parser()
        parser.parse_args(step.words)
    parsed = [run_options.parser().parse_args(step.words) for step in every[:4]]
    assert [one.control for one in parsed] == [False, True, True, True]
    assert [one.lr for one in parsed] == [None, 1e-4, 2e-4, 4e-4]
    assert len({(one.tokens, one.threads, one.keep_prefix, tuple(one.data)) for one in parsed}) == 1
    compared = evaluate._parser().parse_args(every[6].words)
    assert [path.name for path in compared.control] == ["control-0.0002"]  # the best of them, and only it


def test_what_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def command(line: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(line[3])
        out = Path(line[line.index("--out") + 1])
        if len(ran) == 2:
            return subprocess.CompletedProcess(line, 3)  # stopped by Ctrl-C
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").write_text('{"done": {"retrofit": {}}}')
        return subprocess.CompletedProcess(line, 1 if len(ran) == 4 else 0)

    monkeypatch.setattr(shipped.subprocess, "run", command)
    assert shipped.main(words(tmp_path)) == 3
    assert "stopped in control-0.0001" in capsys.readouterr().err
    assert shipped.main(words(tmp_path)) == 1
    assert "ttt: done" in capsys.readouterr().err
    assert ran == ["run"] * 4


def test_a_choice_of_other_controls_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    controls(tmp_path, "control-7")
    out = tmp_path / "out"
    for name in ("ttt", "control-0.0001", "control-0.0002", "control-0.0004"):
        (out / name).mkdir()
        (out / name / "run.json").write_text('{"done": {"retrofit": {}}}')
    (out / "tiny-ttt.safetensors").write_text("")
    assert shipped.main(words(tmp_path)) == 1
    assert "controls.json" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_road_on_tiny(tmp_path: Path, minilm: object) -> None:
    given = words(
        tmp_path, "--tokens", "2000", "--length", "500", "--documents", "2", "--read", "1024", "--threads", "1"
    )
    assert shipped.main(given) == 0
    out = tmp_path / "out"
    card = (out / "tiny-ttt.md").read_text()
    assert "Apache-2.0" in card
    results = {path.stem: json.loads(path.read_text()) for path in (out / "results").glob("*.json")}
    tried = {about.split(":")[0] for about in results["controls"]["results"]["control"]["tried"]}
    assert tried == {"control-0.0001", "control-0.0002", "control-0.0004"}
    assert "control-naive" in results["evaluate"]["results"]
    assert len(results) == 8
    assert shipped.main(given) == 0  # again: nothing is left but the card
