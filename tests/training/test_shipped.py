"""The one command behind the shipped weights: its steps, what it does when run again, the whole road on `tiny`."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ttt_training import options as run_options
from ttt_training import shipped
from ttt_training.evaluate import __main__ as evaluate

from ttt_memory.errors import InvalidInputError

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
    given: dict[str, str | Path] = {
        "--data": DOCS,
        "--val": held_out,
        "--docs": held_out,
        "--questions": squad(tmp_path / "squad.jsonl"),
    }
    given |= {"--data-about": "how-to pages, Apache-2.0", "--out": tmp_path / "out", "--base": "tiny"}
    return [str(word) for pair in given.items() for word in pair] + list(more)


def options(given: list[str]) -> argparse.Namespace:
    parsed = shipped._parser().parse_args(given)
    parsed.results = parsed.out / "results"
    return parsed


def controls(tmp_path: Path, name: str) -> Path:
    found = tmp_path / "out" / "results" / "controls.json"
    found.parent.mkdir(parents=True, exist_ok=True)
    found.write_text(json.dumps({"results": {"control": {"about": f"{name}: trained without writes"}}}))
    return found


def test_every_step_is_a_command_that_can_be_given_by_hand(tmp_path: Path) -> None:
    controls(tmp_path, "control-0.0002")
    every = list(shipped.steps(options(words(tmp_path, "--tokens", "900", "--threads", "1"))))
    names = [step.name for step in every]
    assert names[:5] == ["ttt", "control-0.0002", "control-0.0004", "control-0.0008", "export"]
    assert names[5:] == [
        *("controls", "evaluate", "unrounded", "evaluate-docs"),
        *("specificity", "answering", "drift", "needles", "card"),
    ]
    for step in every:
        parser = evaluate._parser() if step.module.endswith("evaluate") else run_options.parser()
        parser.parse_args(step.words)
    parsed = [run_options.parser().parse_args(step.words) for step in every[:4]]
    assert [one.control for one in parsed] == [False, True, True, True]
    assert [one.lr for one in parsed] == [None, 2e-4, 4e-4, 8e-4]
    assert len({(one.tokens, one.threads, one.keep_prefix, tuple(one.data)) for one in parsed}) == 1
    compared = evaluate._parser().parse_args(every[6].words)
    assert [path.name for path in compared.control] == ["control-0.0002"]  # the best of them, and only it


def test_what_is_done_is_not_done_again_and_what_is_kept_for_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(tmp_path, "--tokens", "600", "--length", "300", "--threads", "1")
    (tmp_path / "books.jsonl").write_text('{"text": "too short"}\n')
    out = tmp_path / "out"
    assert shipped.main(given) == 1
    assert "failed in controls; the same command goes on once that is mended" in capsys.readouterr().err
    assert (out / "tiny-ttt.safetensors").is_file()
    assert not (out / "prefix").exists()
    made = {path: path.stat().st_mtime_ns for path in out.rglob("final.safetensors")}
    assert len(made) == 4
    assert shipped.main(given) == 1
    assert made == {path: path.stat().st_mtime_ns for path in out.rglob("final.safetensors")}
    given[given.index("600")] = "900"
    assert shipped.main(given) == 1
    assert "holds another run" in capsys.readouterr().err  # not taken for the run that was asked for


def test_ctrl_c_keeps_the_training_it_stops(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "ttt_training.shipped", *words(tmp_path, "--tokens", "3000000", "--threads", "1")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    log = tmp_path / "out" / "ttt" / "retrofit" / "log.jsonl"
    with subprocess.Popen(line, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while process.poll() is None and not (log.is_file() and log.read_text().count("\n") >= 2):
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()[1]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of it
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 3, said
    assert "stopped in ttt; the same command goes on" in said
    steps = log.read_text().count("\n")
    assert list((log.parent / "checkpoints").glob(f"step-{steps:08d}*")), said


def test_what_is_missing_is_said_before_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = words(tmp_path)
    (tmp_path / "squad.jsonl").unlink()
    assert shipped.main(given) == 1
    assert "squad.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_choice_of_other_controls_is_an_error(tmp_path: Path) -> None:
    controls(tmp_path, "control-7")
    every = shipped.steps(options(words(tmp_path)))
    with pytest.raises(InvalidInputError, match=r"controls\.json"):
        list(every)


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
    assert "| hybrid exact |" in card
    results = {path.stem: json.loads(path.read_text()) for path in (out / "results").glob("*.json")}
    tried = {about.split(":")[0] for about in results["controls"]["results"]["control"]["tried"]}
    assert tried == {"control-0.0002", "control-0.0004", "control-0.0008"}
    assert "control-naive" in results["evaluate"]["results"]
    assert len(results) == 8
    assert shipped.main(given) == 0  # again: nothing is left but the card
