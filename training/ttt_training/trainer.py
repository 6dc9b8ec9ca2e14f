"""The outer loop: sequences in, trained masters and checkpoints out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ttt_memory.model.fold import Segment
from ttt_memory.model.transformer import Transformer
from ttt_training import checkpoints
from ttt_training.adjoint import OuterGradient, outer_gradient
from ttt_training.config import TrainConfig
from ttt_training.errors import TrainingConfigError, TrainingDivergedError
from ttt_training.keeping import Keeper, find
from ttt_training.kept_prefix import KeptPrefix
from ttt_training.logs import Display, Log
from ttt_training.optimizer import RATES, Optimizer, clip
from ttt_training.prefix import add_to
from ttt_training.resuming import identity_of, require_same_run
from ttt_training.run_types import Progress, Source, TrainResult
from ttt_training.schedule import inner_rate_scale, warm_up_cosine
from ttt_training.sharding import Sharding
from ttt_training.signals import Stop, StopRequestedError
from ttt_training.trained import Trained

if TYPE_CHECKING:
    from ttt_training.distributed import Group

CHECKPOINTS, FINAL_FILE = "checkpoints", "final.safetensors"
__all__ = ["CHECKPOINTS", "FINAL_FILE", "Progress", "Source", "TrainResult", "train"]


def train(
    net: Transformer,
    sequences: Source,
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = True,
    progress: Progress | bool = True,
    tokenizer: str = "",
    group: Group | None = None,
    wandb: str | None = None,
    keep_prefix: Path | None = None,
) -> TrainResult:
    """Trains `net` in place and leaves checkpoints, `log.jsonl` and the trained parameters in `out`.

    The same network, sequences, configuration, thread count and machine give the same bits, interrupted or not.

    Args:
        net: with the initial weights; W0, norms and inner rates that are trained become fp32.
        sequences: each as the fold reads it. If they end early, so does the run.
        config: see TrainConfig.
        out: folder of the run.
        resume: go on from the newest checkpoint in `out`. False refuses a folder that has one.
        progress: True shows a bar (or plain lines) on standard error; False nothing; or a function.
        tokenizer: fingerprint of the model's; compared with `sequences.tokenizer` where there is one.
        group: the ranks that share the sequences of every outer step; the first one writes the log.
        wandb: project of Weights & Biases that the log goes to as well.
        keep_prefix: a folder for the outputs of the frozen prefix, which other runs on the same sequences then use.

    Raises:
        TrainingConfigError: the configuration, the data or the checkpoint cannot work with this network.
        MissingExtraError: `wandb` without the package.
        TrainingDivergedError: more than `max_skipped` outer steps were not finite.
    """
    config.check(net.config)
    if group is not None and config.batch % group.world:
        raise TrainingConfigError(
            f"{group.world} ranks cannot share {config.batch} sequences a step.", fix="Give a multiple with --batch."
        )
    if keep_prefix is not None and (group is not None or config.train in ("lora", "all")):
        raise TrainingConfigError(
            "The prefix's outputs can be kept where it is frozen, and by one process.",
            fix="Leave --keep-prefix out, or train 'dynamic' or 'dynamic+norms' in one process.",
        )
    theirs = getattr(sequences, "tokenizer", "")
    if tokenizer and theirs and tokenizer != theirs:
        raise TrainingConfigError(
            "The data was tokenised with another tokenizer than the model's.",
            why=f"{theirs[:12]} is not {tokenizer[:12]}",
            fix="Make the shards again with this model.",
        )
    return _Run(net, sequences, config, out, resume, progress, tokenizer, group, wandb, keep_prefix).run()


class _Run:
    def __init__(
        self,
        net: Transformer,
        sequences: Source,
        config: TrainConfig,
        out: Path,
        resume: bool,
        progress: Progress | bool,
        tokenizer: str,
        group: Group | None,
        wandb: str | None,
        keep_prefix: Path | None,
    ) -> None:
        self.net, self.source, self.config, self.out = net, sequences, config, out
        self.folder = out / CHECKPOINTS
        self.group, self.first = group, group is None or group.first
        self.identity = identity_of(net, config, tokenizer)
        self.trained = Trained(net, config.train, rank=config.rank, alpha=config.alpha, seed=config.seed)
        self.sharding: Sharding | None = None
        if group is not None:
            group.require_same("the network", str(self.identity))
            self.sharding = Sharding(net, group.device, keep=self.trained.adapted)
            self.trained.shard(self.sharding)
        self.optimizer = Optimizer(self.trained.masters, betas=config.betas, weight_decay=config.weight_decay)
        self.keeper = Keeper(self.folder, self.trained, self.optimizer, group, self.sharding)
        self.step, self.tokens, self.skipped, self.loss = 0, 0, 0, math.nan
        self.position = sequences.state()
        self._resume(resume)
        self.trained.publish()
        self.kept_prefix = KeptPrefix(keep_prefix, net) if keep_prefix is not None else None
        if group is not None:
            group.require_same("the position", f"{self.step} {self.position}")
        out.mkdir(parents=True, exist_ok=True)
        if self.first:
            checkpoints.clean(self.folder)
        self.log = Log(out, self.step, wandb=wandb) if self.first else None
        self.display = Display(config.steps, self.step) if progress is True and self.first else None
        self.progress = progress if callable(progress) else self.display
        self.saved_at, self.saved_step = time.monotonic(), self.step if self.step else -1

    def _resume(self, resume: bool) -> None:
        kept = find(self.folder, self.group)
        if kept is None:
            return
        _, meta = kept
        if not resume:
            raise TrainingConfigError(
                f"{self.out} holds a run already.", why=f"it has done {meta['step']} steps", fix="Name another folder."
            )
        require_same_run(meta, self.identity, self.out)
        self.keeper.load(kept)
        self.step, self.tokens, self.skipped = meta["step"], meta["tokens"], meta["skipped"]
        self.loss = math.nan if meta["loss"] is None else meta["loss"]
        self.position = meta["position"]
        self.source.seek(self.position)

    def run(self) -> TrainResult:
        interrupted = False
        try:
            with Stop() as stop:
                try:
                    stream = iter(self.source)
                    while self.step < self.config.steps and self._outer_step(stream, stop):
                        if self.group is not None and self.group.any(stop.requested):
                            raise StopRequestedError
                        stop.check()
                        self._save_when_due()
                except StopRequestedError:
                    interrupted = True
                self._save()
            self._say_kept(interrupted)
        finally:
            if self.log is not None:
                self.log.close()
            if self.display is not None:
                self.display.close()
        parameters = self.out / FINAL_FILE
        merged = self.trained.merged()
        if self.first:
            checkpoints.save_tensors(merged, parameters)
        if self.group is not None:
            self.group.wait()
        return TrainResult(
            step=self.step,
            tokens=self.tokens,
            loss=self.loss,
            skipped=self.skipped,
            interrupted=interrupted,
            checkpoint=self.folder / f"step-{self.step:08d}",
            parameters=parameters,
        )

    def _outer_step(self, stream: Iterator[tuple[Segment, ...]], stop: Stop) -> bool:
        """One outer step; False where the sequences have ended."""
        config, began = self.config, time.monotonic()
        grads: dict[str, Tensor] = {}
        found: list[OuterGradient] = []
        rank, world = (self.group.rank, self.group.world) if self.group is not None else (0, 1)
        for index in range(rank, config.batch, world):
            sequence = next(stream, None)
            ended = sequence is None if self.group is None else self.group.any(sequence is None)
            if sequence is None or ended:
                return False
            result = self._gradient(sequence, index, stop)
            found.append(result)
            for name, grad in result.grads.items():
                add_to(grads, name, grad * (world / config.batch))
        loss = sum(one.loss for one in found) / len(found)
        tokens = sum(one.tokens for one in found)
        norm = None
        if self.group is not None and self.sharding is not None:
            names, net = self.trained.names, self.net
            loss, tokens, grads = self.group.average(loss, tokens, grads, names, net, self.sharding)
        grads = self.trained.pull(grads)
        if self.sharding is not None:
            norm = self.sharding.norm(grads)
        norm = clip(grads, config.clip, norm) if grads else math.nan
        good = math.isfinite(loss) and math.isfinite(norm)
        peaks = {"lr": (config.lr, config.floor), "rate_lr": (config.rate_lr, config.rate_floor)}
        rates = {
            name: warm_up_cosine(
                self.step, steps=config.steps, warm_up=round(config.warm_up * config.steps), peak=peak, floor=floor
            )
            for name, (peak, floor) in peaks.items()
        }
        if good:
            self.optimizer.step(grads, **rates)
            self.trained.publish()
        self.step, self.tokens, self.loss = self.step + 1, self.tokens + tokens, loss
        self.skipped += not good
        self.position = self.source.state()
        self._report(found, loss, tokens, norm, rates, time.monotonic() - began)
        if self.skipped > config.max_skipped:
            raise TrainingDivergedError(
                f"{self.skipped} outer steps had no finite loss or gradient; the last at step {self.step}.",
                fix=f"Lower the learning rates; the last good checkpoint is in {self.folder}.",
                step=self.step,
                skipped=self.skipped,
            )
        return True

    def _gradient(self, sequence: tuple[Segment, ...], index: int, stop: Stop) -> OuterGradient:
        config, recall = self.config, None
        if config.recall is not None and self.net.config.window is not None:
            random = np.random.default_rng([config.seed, self.step, index])
            recall = config.recall.choose(sequence, self.net.config.window, random)
        return outer_gradient(
            self.net,
            sequence,
            parameters=self.trained.names,
            order=config.order,
            writes=config.inner == "fold",
            kv_grad=config.kv_grad,
            every=config.every,
            memory=config.memory_gb * 1e9,
            rate_scale=inner_rate_scale(self.step, steps=config.inner_warm_up, start=config.inner_start),
            recall=recall,
            on_block=stop.check if self.group is None else None,  # ranks stop together, after a step
            kept_prefix=self.kept_prefix,
        )

    def _report(
        self, found: list[OuterGradient], loss: float, tokens: int, norm: float, rates: dict[str, float], seconds: float
    ) -> None:
        recalled = [one.recall_loss for one in found if one.recall_loss is not None]
        inner = [value for one in found for value in one.inner_norms]
        learned = self.trained.masters.get(RATES)
        record = {
            "step": self.step,
            "loss": loss,
            "tokens": self.tokens,
            "tokens_per_second": tokens / seconds,
            **rates,
            "grad_norm": norm,
            "inner_norm": sum(inner) / len(inner) if inner else 0.0,
            "inner_rate": float(learned.mean()) if learned is not None else 0.0,
            "skipped": self.skipped,
        }
        if recalled:
            record["recall_loss"] = sum(recalled) / len(recalled)
        if self.log is not None:
            self.log.add(record)
        if self.progress is not None:
            self.progress(record)

    def _save_when_due(self) -> None:
        config, late = self.config, time.monotonic() - self.saved_at
        due = bool(config.checkpoint_minutes) and late >= 60 * config.checkpoint_minutes
        if self.group is not None:
            due = self.group.any(due)  # each rank has a clock of its own
        if due or (config.checkpoint_steps and self.step % config.checkpoint_steps == 0):
            self._save()

    def _save(self) -> None:
        if self.saved_step == self.step:
            return
        meta = {
            **self.identity,
            "model": self.net.config.to_dict(),
            "tokens": self.tokens,
            "skipped": self.skipped,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "position": self.position,
        }
        self.keeper.save(self.step, meta)
        self.saved_at, self.saved_step = time.monotonic(), self.step

    def _say_kept(self, interrupted: bool) -> None:
        if self.display is not None:
            how = "stopped" if interrupted else "done"
            self.display.say(f"{how} after step {self.step}; kept in {self.folder / f'step-{self.step:08d}'}")
