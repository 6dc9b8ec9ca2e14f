"""Learned initialisations: a small file that turns a base model into one whose W0 was meta-learned.

A file holds what training changed: matrices as int8 rows, each with its scale, to be added to the base's own weights
(the copied static MLP); vectors (inner rates, norms) whole in fp32. Its metadata names the base, the configuration and
how it was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ttt_memory.cache_folder import sha256_of
from ttt_memory.errors import ModelFormatError, ModelNotFoundError
from ttt_memory.model.catalogue import shipped
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.transformer import Transformer

FORMAT = "ttt_memory initialisation 1"
BESIDE = "::"
"""`BASE::FILE` names the base of a file whose base is not a published model."""
LEVELS, SCALE = "int8", "scale"


@dataclass(frozen=True)
class Initialisation:
    """What one file says. Made by `ttt_training.weights`.

    Attributes:
        path: the file.
        name: what a model with it is called.
        base: name of the base model.
        base_sha256: `static_digest` of the base.
        config: the configuration it was trained under.
        training: how it was made (recipe, tokens, date, ...), for people.
        sha256: of the file.
    """

    path: Path
    name: str
    base: str
    base_sha256: str
    config: ModelConfig
    training: Mapping[str, Any]
    sha256: str

    def tensors(self) -> dict[str, Tensor]:
        """The file's tensors, as they are stored."""
        try:
            with safe_open(self.path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            raise _unreadable(self.path, str(error)) from error


def find_initialisation(spec: str | Path) -> tuple[str | None, Path] | None:
    """(base named in the spec, file) if `spec` is a shipped name, a `.safetensors` file or `BASE::FILE`; else None.

    Raises ModelNotFoundError where `BASE::FILE` names a file that is not there.
    """
    base, beside, rest = str(spec).rpartition(BESIDE)
    if beside:
        path = Path(rest).expanduser().absolute()
        if not path.is_file():
            raise ModelNotFoundError(f"There is no learned initialisation {rest!r}.", model=str(spec))
        return base, path
    if str(spec) in shipped():
        return None, shipped()[str(spec)]
    path = Path(spec).expanduser().absolute()
    return (None, path) if path.suffix == ".safetensors" and path.is_file() else None


def read_initialisation(path: Path) -> Initialisation:
    """What the file says. Raises ModelFormatError if it is no learned initialisation."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise _unreadable(path, f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
        return Initialisation(
            path=path,
            name=metadata["name"],
            base=metadata["base"],
            base_sha256=metadata["base_sha256"],
            config=ModelConfig.from_dict(json.loads(metadata["config"])),
            training=json.loads(metadata["training"]),
            sha256=sha256_of(path),
        )
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def reshaped(net: Transformer, config: ModelConfig) -> Transformer:
    """The same base under another configuration: another window, other inner settings, more or fewer dynamic blocks.

    Blocks that become dynamic get the copied W0, which changes nothing until it learns. Static weights are shared. A
    narrower dynamic MLP keeps the neurons whose static weights downwards have the largest norm.

    Raises ModelFormatError where `config` describes another network, or a wider dynamic MLP.
    """
    tensors = dict(net.state_dict())
    for layer in range(config.layers):
        ours = f"blocks.{layer}."
        dynamic = layer >= config.prefix_layers
        if not dynamic:
            for name in [n for n in tensors if n.startswith((f"{ours}w0_", f"{ours}dynamic_"))]:
                del tensors[name]
        elif f"{ours}w0_down" not in tensors and layer < net.config.layers:
            tensors[f"{ours}dynamic_norm"] = tensors[f"{ours}mlp_norm"].clone()
            if f"{ours}mlp_post_norm" in tensors:
                tensors[f"{ours}dynamic_post_norm"] = tensors[f"{ours}mlp_post_norm"].clone()
            tensors[f"{ours}w0_gate_up"] = tensors[f"{ours}gate_up"].clone()
            tensors[f"{ours}w0_down"] = torch.zeros_like(tensors[f"{ours}down"])
        if f"{ours}w0_down" in tensors and config.dynamic_mlp < tensors[f"{ours}w0_down"].shape[1]:
            kept = _strongest(tensors[f"{ours}down"], config.dynamic_mlp)
            gate, up = tensors[f"{ours}w0_gate_up"].chunk(2)
            tensors[f"{ours}w0_gate_up"] = torch.cat((gate[kept], up[kept]))
            tensors[f"{ours}w0_down"] = tensors[f"{ours}w0_down"][:, kept].contiguous()
    if config.dynamic_layers != net.config.dynamic_layers or config.inner.rate != net.config.inner.rate:
        tensors["inner_rates"] = torch.full((config.dynamic_layers,), config.inner.rate)
    return _assembled(tensors, config)


def initialised(base: Transformer, initialisation: Initialisation, *, base_sha256: str | None = None) -> Transformer:
    """The base network with the learned initialisation: W0 and vectors in fp32, the rest in the base's precision.

    Args:
        base: as `load_model` gives it.
        initialisation: from `read_initialisation`.
        base_sha256: `static_digest` of the base where it is known already; it takes about as long as loading.

    Raises ModelFormatError if the file was made for another base or does not fit it.
    """
    if (base_sha256 or static_digest(base)) != initialisation.base_sha256:
        raise ModelFormatError(
            f"{initialisation.path.name} was trained on another base model than this one.",
            why=f"it needs {initialisation.base!r} with the digest {initialisation.base_sha256[:12]}",
            fix=f"Name the right base: BASE{BESIDE}{initialisation.path.name}.",
        )
    net = reshaped(base, initialisation.config)
    tensors = dict(net.state_dict())
    stored = initialisation.tensors()
    for key, value in stored.items():
        name, _, kind = key.partition("/")
        old = tensors.get(name)
        if old is None or kind not in ("", LEVELS, SCALE):
            raise _unreadable(initialisation.path, f"unknown tensor {key!r}")
        if kind == SCALE:
            continue
        new = value if kind == "" else old.float() + unpack(value, _scale(stored, name, initialisation.path))
        if new.shape != old.shape:
            raise _unreadable(initialisation.path, f"{name} is {list(new.shape)}, not {list(old.shape)}")
        tensors[name] = new if old.ndim == 1 or "w0_" in name else new.to(old.dtype)
    return _assembled(tensors, initialisation.config)


def static_digest(net: Transformer) -> str:
    """SHA-256 (hex) of everything in a base model but W0, the inner rates and the dynamic norms, as bf16."""
    sha = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        if name != "inner_rates" and "w0_" not in name and "dynamic_" not in name:
            sha.update(f"{name}:{'x'.join(map(str, tensor.shape))};".encode())
            sha.update(tensor.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().data.cast("B"))
    return sha.hexdigest()


def pack(change: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [R, C] as int8 levels and fp32 scales [R]; the error is at most half a scale."""
    scale = change.float().abs().amax(dim=1) / 127
    return (change.float() / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8), scale


def unpack(levels: Tensor, scale: Tensor) -> Tensor:
    """Inverse of `pack`, fp32."""
    return levels.float() * scale[:, None]


def _strongest(down: Tensor, count: int) -> Tensor:
    """Indices of the `count` columns of largest norm, in order."""
    kept: Tensor = torch.linalg.vector_norm(down.float(), dim=0).topk(count).indices
    return kept.sort().values


def _assembled(tensors: dict[str, Tensor], config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        net = Transformer(config)
    try:
        net.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ModelFormatError("The base model does not fit the configuration.", why=str(error)) from error
    return net.requires_grad_(False).eval()


def _scale(stored: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    try:
        return stored[f"{name}/{SCALE}"]
    except KeyError:
        raise _unreadable(path, f"{name} has no scale") from None


def _unreadable(path: Path, why: str) -> ModelFormatError:
    return ModelFormatError(
        f"{path.name} cannot be read as a learned initialisation.", why=why, fix="Make it with ttt_training.weights."
    )
