"""What is compared: each name is a model (weights, window, inner rates), a state to start from, writes or none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ttt_memory.errors import InvalidInputError, ModelFormatError
from ttt_memory.model.config import FOLD_VERSION, ModelConfig
from ttt_memory.model.initialisation import reshaped
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.state import FastWeights
from ttt_memory.model.transformer import Transformer
from ttt_training.evaluate.weights_file import WeightsFile

RATES = (0.25, 0.5, 1.0, 2.0)
"""Inner rates of which `naive` and `control-naive` take the best."""
WIDER = 4
NAMES = ("swa", "swa4x", "full", "naive", "ttt", "control", "control4x", "control-naive")


@dataclass(frozen=True)
class Subject:
    """One way of reading a text.

    Attributes:
        name: as in NAMES.
        about: one line for people.
        model: with the window and the inner rates that this subject reads with.
        state: fast weights before the first token; None skips the dynamic MLPs.
        writes: an inner step after every mini-batch; otherwise the text is only scored.
        whole: the text is one segment, so that everything before a token can be attended to.
        rate: one inner rate for all layers; None where they are the model's own.
        identity: what its losses depend on besides the text; equal identities give equal numbers.
    """

    name: str
    about: str
    model: LoadedModel
    state: FastWeights | None
    writes: bool
    whole: bool = False
    rate: float | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)


def subjects(
    name: str,
    base: LoadedModel,
    *,
    weights: WeightsFile | None = None,
    controls: Sequence[WeightsFile] = (),
    rates: Sequence[float] = RATES,
) -> list[Subject]:
    """The subjects of one name; of several (rates, controls) the best counts.

    Args:
        name: one of NAMES.
        base: the base model as shipped.
        weights: what was trained with writes; needed by `ttt`.
        controls: what was trained without, one for each outer learning rate; needed by the names that begin with
            `control`.
        rates: for `naive` and `control-naive`.

    Raises:
        InvalidInputError: an unknown name, or one whose weights were not given.
        ModelFormatError: the trained weights do not fit the base model.
    """
    if name not in NAMES:
        raise InvalidInputError(f"There is nothing called {name!r} to compare.", fix=f"Known: {', '.join(NAMES)}.")
    if name in ("swa", "swa4x", "full"):
        read = _widened(base, name)
        return [_subject(name, "base as shipped", read, None, whole=name == "full")]
    if name == "naive":
        return _at_rates(name, "W0 copied", base, rates, None)
    trained = ([weights] if weights else []) if name == "ttt" else list(controls)
    if not trained:
        option = "--weights" if name == "ttt" else "--control"
        raise InvalidInputError(f"{name!r} needs trained weights.", fix=f"Give {option} FILE.safetensors.")
    found = []
    for given in trained:
        model = variant(_under(base, given.config), tensors=given.tensors)
        if name == "control-naive":
            found += _at_rates(name, f"{given.name}: trained without writes", model, rates, given)
        elif name == "ttt":
            about = f"{given.name}: trained with writes, learned rates"
            found.append(_subject(name, about, model, model.initial_state(), writes=True, given=given))
        else:
            about, read = f"{given.name}: trained without writes, read without", _widened(model, name)
            found.append(_subject(name, about, read, model.initial_state(), given=given))
    return found


def _under(base: LoadedModel, config: ModelConfig | None) -> LoadedModel:
    return base if config is None else replace(base, net=reshaped(base.net, config))


def _at_rates(
    name: str, about: str, model: LoadedModel, rates: Sequence[float], given: WeightsFile | None
) -> list[Subject]:
    state = model.initial_state()
    return [
        _subject(
            name,
            f"{about}, writes at rate {rate:g}",
            variant(model, rate=rate),
            state,
            writes=True,
            rate=rate,
            given=given,
        )
        for rate in rates
    ]


def variant(
    model: LoadedModel, *, tensors: Mapping[str, Tensor] | None = None, rate: float | None = None, **config: Any
) -> LoadedModel:
    """The model with some parameters replaced, one inner rate for all layers, or fields of its configuration changed.

    Everything else is shared with `model`, not copied.

    Raises:
        ModelFormatError: `tensors` holds a name or a shape that the model does not have.
    """
    own: dict[str, Tensor] = {name: value.detach() for name, value in model.net.named_parameters()}
    if unknown := sorted(set(tensors or {}) - set(own)):
        raise ModelFormatError("These weights are of another model.", why=f"it has no {', '.join(unknown[:3])}")
    for name, tensor in (tensors or {}).items():
        # W0, rates and norms keep their precision; the network multiplies by the other matrices as they are.
        exact = tensor.ndim == 1 or "w0_" in name
        own[name] = tensor if exact else tensor.to(own[name].dtype)
    if rate is not None:
        own["inner_rates"] = torch.full_like(own["inner_rates"], rate)
    with torch.device("meta"):
        net = Transformer(replace(model.config, **config))
    try:
        net.load_state_dict(own, strict=True, assign=True)
    except RuntimeError as error:
        raise ModelFormatError("These weights do not fit the model.", why=str(error)) from error
    return replace(model, net=net.requires_grad_(False).eval())


def _widened(model: LoadedModel, name: str) -> LoadedModel:
    config = model.config
    if name == "full":
        return variant(model, window=None)
    if name.endswith("4x") and config.window is not None:
        wide = WIDER * config.window
        return variant(model, window=wide, context_tokens=max(config.context_tokens, wide))
    return model


def _subject(
    name: str,
    about: str,
    model: LoadedModel,
    state: FastWeights | None,
    *,
    writes: bool = False,
    whole: bool = False,
    rate: float | None = None,
    given: WeightsFile | None = None,
) -> Subject:
    size = f"window {model.config.window}" if model.config.window else "full attention"
    identity = {
        "base": model.fingerprint,
        "dtype": str(model.compute_dtype),
        "weights": None if given is None else given.sha256,
        "config": hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode()).hexdigest()[:16],
        "state": state is not None,
        "writes": writes,
        "whole": whole,
        "rate": rate,
        "fold": FOLD_VERSION,
    }
    return Subject(name, f"{about}; {size}", model, state, writes, whole, rate, identity)
