"""The pages and the program cannot drift apart."""

import re
from pathlib import Path

import typer.main

from ttt_memory.cli import app
from ttt_memory.commands.reference import reference

DOCS = Path(__file__).parents[2] / "docs" / "how-to"


def commands():
    root = typer.main.get_command(app)
    for name, command in root.commands.items():
        if name == "model":
            for below in command.commands:
                yield f"model {below}", command.commands[below]
        else:
            yield name, command


def test_the_page_has_every_command_and_no_other():
    page = (DOCS / "cli.md").read_text()
    table = page[page.index("| command |") : page.index("## Which memory")]
    shown = {match.strip() for match in re.findall(r"`((?:model )?[a-z]+)", table)}
    assert shown == {name for name, _ in commands()}


def test_options_on_the_page_exist():
    page = (DOCS / "cli.md").read_text()
    known = {option for _, command in commands() for parameter in command.params for option in parameter.opts}
    page = re.sub(r"<!-- setup\n.*?-->", "", page, flags=re.DOTALL)  # other programs, with options of their own
    named = set(re.findall(r"(--[a-z][a-z-]+)", page)) - {"--help", "--install-completion"}
    assert named <= known, named - known


def test_every_command_has_help_and_examples_that_parse(run):
    known = dict(commands())
    for name, command in known.items():
        assert command.help, name
        if name.startswith("model"):
            continue
        ended = run(*name.split(), "--help")
        assert ended.code == 0
        examples = ended.out[ended.out.index("Examples:") :].splitlines()[1:]
        assert examples
        for example in examples:
            assert f"ttt-memory {name}" in example, name
            for option in re.findall(r"(?<!\S)(--[a-z-]+)", example):
                assert any(option in parameter.opts for parameter in command.params), (name, option)


def test_the_python_of_the_async_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "async.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "async.md", "exec"), {"__name__": "__main__"})
    assert "Ada Lovelace" in capsys.readouterr().out


def test_the_reference_is_that_of_the_program():
    page = DOCS.parent / "cli-reference.md"
    assert page.read_text() == reference(), f"mend it: python -m ttt_memory.commands.reference docs/{page.name}"
    sections = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)[1:]
    assert sections == [name for name, _ in commands()]
