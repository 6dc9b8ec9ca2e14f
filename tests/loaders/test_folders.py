"""Folders: what is read, in which order, and what the ignore rules leave out (git itself is the oracle)."""

import shutil
import subprocess

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.loaders import builders
from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders import load
from ttt_memory.loaders.folders import files
from ttt_memory.loaders.ignore import Rules


def names(root, **options):
    return [document.metadata["path"].removeprefix(f"{root}/") for document in load(root, **options)]


def test_a_folder_is_read_in_a_fixed_order_without_what_is_hidden(tmp_path):
    for name in ("b.txt", "a/z.md", "a/.hidden.txt", ".git/config", "node_modules/x.js", "__pycache__/y.py", "LICENSE"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "program").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert names(tmp_path) == ["LICENSE", "a/z.md", "b.txt"]
    skipped = {}
    assert names(tmp_path, on_skip=lambda path, error: skipped.update({path.name: error})) == [
        "LICENSE",
        "a/z.md",
        "b.txt",
    ]
    assert set(skipped) == {"empty.txt", "program", "picture.png"}


def test_a_damaged_file_stops_a_folder_unless_the_caller_takes_note(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4 damaged")
    (tmp_path / "b.txt").write_text("good")
    with pytest.raises(InvalidDocumentError, match=r"a\.pdf"):
        names(tmp_path)
    skipped = []
    assert names(tmp_path, on_skip=lambda path, _: skipped.append(path.name)) == ["b.txt"]
    assert skipped == ["a.pdf"]


def test_rotated_logs_come_oldest_first(tmp_path):
    import gzip

    logs = ["app.log.10.gz", "app.log.2.gz", "app.log.1", "app.log"]
    dated = ["web.log-20260101.gz", "web.log-20260102", "web.log", "web.log.old.md"]
    for number, name in enumerate(logs + dated):
        data = builders.log(3, start=number * 3)
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert names(tmp_path) == logs + dated


def test_rules_of_nested_folders(tmp_path):
    tree = ("keep.log", "x.tmp", "build/out.txt", "sub/x.tmp", "sub/deep/drop.txt", "sub/deep/keep.txt", "sub/build")
    for name in tree:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / ".gitignore").write_text("# built\n*.tmp\nbuild/\n*.log\n!keep.log\n")
    (tmp_path / "sub/.gitignore").write_text("!x.tmp\n/deep/drop.*\n")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in files(tmp_path)) == [
        "keep.log",
        "sub/build",
        "sub/deep/keep.txt",
        "sub/x.tmp",
    ]
    (tmp_path / ".ignore").write_text("sub\n")
    assert [path.name for path in files(tmp_path)] == ["keep.log"]


PATHS = [
    "a",
    "b.txt",
    "a.b",
    "ab",
    "d/a",
    "d/b.txt",
    "d/e/a",
    "d/e/f/b.txt",
    "e/a",
    "!x",
    "#y",
    "a b",
    "d/[z]",
    "d/a\\b",
]
PIECES = st.sampled_from(["a", "b", "*", "?", ".txt", "d", "e", "[ab]", "[!a]", "[z]", "[a-d]", "\\*", " ", "!", "#"])
SEGMENTS = st.one_of(
    st.lists(PIECES, min_size=1, max_size=4).map("".join), st.just("**")
)  # "a**" is left to git's whim
LINES = st.builds(
    lambda negated, root, segments, folder: negated + root + "/".join(segments) + folder,
    st.sampled_from(["", "", "!"]), st.sampled_from(["", "", "/"]),
    st.lists(SEGMENTS, min_size=1, max_size=4), st.sampled_from(["", "", "/"]),
)  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    if not shutil.which("git"):
        pytest.skip("git is not installed: the rules are compared with its own; install it with the system's packages")
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    for name in PATHS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text")
    return root


@given(st.lists(LINES, min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
@example(["d/", "!d/a"])
@example(["**/e/**"])
@example(["a[", "[", "d/a\\\\b"])
@example(["/a", "d/**/b.txt", "!d/e/f/b.txt"])
def test_rules_are_those_of_git(repository, lines):
    assume(not any("**" in segment and segment != "**" for line in lines for segment in line.lstrip("!").split("/")))
    (repository / ".gitignore").write_text("\n".join(lines) + "\n")
    listed = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "ls-files", "-z", "--others", "--exclude-standard"],
        cwd=repository, capture_output=True, check=True,
    ).stdout.decode().split("\0")  # fmt: skip
    ours = {path.relative_to(repository).as_posix() for path in files(repository)}
    assert ours == set(filter(None, listed)) - {".gitignore"}


def test_hostile_rules_end_soon(tmp_path):
    (tmp_path / ".gitignore").write_text(
        "\n".join(["*a" * 400, "**/" * 300 + "x", "[" * 900, "*" * 900, "a*" * 8 + "b"] * 50)
    )
    (tmp_path / ("a" * 200)).write_text("text")
    deep = tmp_path.joinpath(*["a"] * 40)
    deep.mkdir(parents=True)
    (deep / "b.txt").write_text("text")
    assert len(list(files(tmp_path))) <= 2
    assert not Rules().ignores(("a",), False)
