"""The examples, as a user runs them: on the built-in model here, on the real one in `make test-all`."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PATHS = os.pathsep.join(str(ROOT / room) for room in ("", "kernels", "training", "adapters"))
NAMES = ("agent", "log_watcher", "long_reader", "support_tickets")


def example(name: str) -> ModuleType:
    """The example as a module; its `main` takes the command line."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The example in a process of its own."""
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        env=os.environ | {"PYTHONPATH": PATHS, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=1200,
        check=False,
    )


def check(name: str, told: str) -> None:
    """What each example promises, whatever the model."""
    if name == "support_tickets":
        answers = told.split("\n? ")[1:]
        assert "T-1002" in answers[0]
        assert "the sensor is dry" in answers[0]
        assert "G-204" in answers[1]
        assert "within 30 days" in answers[2]
        assert "hand it to a person" in answers[3]
        assert "T-1004" not in told  # open tickets are filtered out
    elif name == "log_watcher":
        assert "3 of 3 strange lines found, 0 false alarms" in told
        alarms = re.findall(r"^ALARM \S+Z (.*)", told, re.MULTILINE)
        assert [line.split()[0] for line in alarms] == ["ERROR", "CRIT", "INFO"]
        assert "login failed" in alarms[2]
    elif name == "long_reader":
        answers = told.split("\n? ")[1:]
        assert "StatisticsError" in answers[0]
        assert re.search(r"\(pydoc statistics, page \d+\)", answers[0])
        assert "whitespace" in answers[1]
        assert re.search(r"\(pydoc textwrap, page \d+\)", answers[1])
        assert "most surprising page" in told
    else:
        first, second = told.split("[process ")[1:]
        assert first.split()[0] != second.split()[0]
        assert "begins with 0 messages" in first
        assert "begins with 3 messages" in second
        for question, quote in (("allergic to?", "walnuts"), ("key?", "blue door"), ("plumber come?", "at nine")):
            reply = second[second.index(question) :].splitlines()[1]
            assert quote in reply


@pytest.mark.parametrize("name", [name for name in NAMES if name != "agent"])
def test_it_does_what_it_says_on_the_built_in_model(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert example(name).main(["--model", "tiny"]) == 0
    check(name, capsys.readouterr().out)


def test_the_agent_remembers_from_one_process_to_the_next(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The story itself starts the two processes."""
    monkeypatch.setenv("PYTHONPATH", PATHS)
    monkeypatch.setenv("PYTHONUTF8", "1")
    assert example("agent").main(["--model", "tiny", "--db", str(tmp_path / "agent.db")]) == 0
    check("agent", capfd.readouterr().out)


@pytest.mark.slow
@pytest.mark.timeout(1300)
@pytest.mark.smollm2
@pytest.mark.parametrize("name", NAMES)
def test_it_does_what_it_says_on_the_default_model(name: str, smollm2_available: Any, minilm: Any) -> None:
    ended = run(name)
    assert ended.returncode == 0, ended.stderr
    check(name, ended.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_it_explains_itself_and_is_short(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = example(name)
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    assert "--model" in help_text
    assert "--db" in help_text
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 122
    assert f"python examples/{name}.py" in (module.__doc__ or "")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("support_tickets", ["--tickets", "absent.jsonl", "--model", "tiny"]),
        ("long_reader", ["absent.txt", "--model", "tiny"]),
        ("log_watcher", ["absent.log", "--model", "tiny"]),
    ],
)
def test_bad_input_ends_with_1_and_says_why(
    name: str, arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert example(name).main(arguments) == 1
    assert "absent" in capsys.readouterr().err


def test_an_agent_needs_a_file_for_its_messages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        example("agent").main(["Hello."])
    assert ended.value.code == 2
    assert "--db" in capsys.readouterr().err


def test_the_reader_cuts_any_text_into_pages_and_loses_nothing() -> None:
    reader = example("long_reader")
    text = "".join(f"line {number}\n" for number in range(1, 151))
    found = list(reader.pages("book", text))
    assert [page.metadata["page"] for page in found] == [1, 2, 3]
    assert "".join(page.text for page in found) == text


def test_the_tickets_read_again_are_recognised(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tickets = example("support_tickets")
    for new in (12, 0):
        assert tickets.main(["--model", "tiny", "--db", str(tmp_path / "support.db"), "Error H-17?"]) == 0
        assert f"12 tickets, {new} of them new" in capsys.readouterr().out
