"""The page on loaders and the loaders cannot drift apart."""

import re
from pathlib import Path

from ttt_memory.loaders import limits
from ttt_memory.loaders.formats import FORMATS

PAGE = (Path(__file__).parents[2] / "docs/how-to/loaders.md").read_text()


def test_its_python_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```\n\nThis prints `(.*?)`\.\n", PAGE, re.DOTALL)
    assert len(blocks) == PAGE.count("```python") == 3
    for block, printed in blocks:
        exec(compile(block, "loaders.md", "exec"), {"__name__": "__main__"})
        assert capsys.readouterr().out.strip() == printed


def test_it_has_every_format_and_its_suffixes():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == [format.name for format in FORMATS]
    for (_, files), format in zip(rows, FORMATS, strict=True):
        named = set(re.findall(r"`(\.\w+)`", files))
        assert named <= set(format.suffixes)
        assert "..." in files or named == set(filter(None, format.suffixes))


def test_it_has_the_limits():
    megabytes = {name: f"{getattr(limits, name) // limits.MIB} MiB" for name in dir(limits) if name.endswith("_BYTES")}
    for size in megabytes.values():
        assert size in PAGE, megabytes
    for number in (limits.ARCHIVE_ENTRIES, limits.PDF_PAGES, limits.LINE_CHARACTERS):
        assert f"{number:,}" in PAGE
    assert f"{limits.RATIO} to 1" in PAGE
    assert f"up to {limits.LOG_BLOCK_LINES} lines" in PAGE
    assert f"{limits.PDF_PAGE_SECONDS:.0f} s a page" in PAGE
