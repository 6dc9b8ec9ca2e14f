"""The retrofit's outer loop on the GPU, a few minutes a command, going on where the last one ended.

Here:  python gpu/train_retrofit.py pack --gguf FILE --shards FOLDER   makes .gpu/ (ignored by git) of what travels
There: python gpu/train_retrofit.py keep                               once with each part that was carried
       python gpu/train_retrofit.py train --minutes 8                  as often as there is time
Here:  python gpu/train_retrofit.py join --parts FOLDER --to FILE      the exported weights that came back

The machine keeps checkpoints (fp32 masters and moments, too large to come back) while it is held. On a fresh one, carry
the exported parts that came back as .gpu/weights.*: training then starts from them, with new moments.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

PARTS, BASE, WEIGHTS, DATA = Path(".gpu"), "base.gguf", "weights.safetensors", "data"
PART_BYTES = {BASE: 50 << 20, WEIGHTS: 15 << 20}
NAME = "smollm2-135m-ttt"


def kept() -> Path:
    """Where this machine keeps what was carried and what was trained."""
    return Path(os.environ.get("TTT_GPU_KEPT", Path.home() / "ttt_gpu"))


def split(file: Path, folder: Path, name: str) -> list[Path]:
    """The file in parts `name.0`, `name.1` ..., none larger than may travel."""
    content, size = file.read_bytes(), PART_BYTES[name]
    parts = [folder / f"{name}.{number}" for number in range(-(-len(content) // size))]
    for number, part in enumerate(parts):
        part.write_bytes(content[number * size : (number + 1) * size])
    return parts


def join(folder: Path, name: str, to: Path) -> bool:
    """Inverse of `split`; False where there are no parts."""
    parts = sorted(folder.glob(f"{name}.[0-9]"))
    if parts:
        to.write_bytes(b"".join(part.read_bytes() for part in parts))
    return bool(parts)


def pack(gguf: Path, shards: Path) -> None:
    """Parts of the base model, and the shards, under .gpu/."""
    PARTS.mkdir(exist_ok=True)
    shutil.copytree(shards, PARTS / DATA, dirs_exist_ok=True)
    for path in (*split(gguf, PARTS, BASE), PARTS / DATA):
        size = path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.iterdir())
        print(f"{path}\t{size / 2**20:.1f} MiB")


def keep() -> None:
    """Takes what was carried out of the working tree, which the next call replaces."""
    kept().mkdir(parents=True, exist_ok=True)
    for path in PARTS.iterdir():
        if path.is_dir():
            shutil.copytree(path, kept() / path.name, dirs_exist_ok=True)
        else:
            shutil.copy(path, kept() / path.name)
    print("kept:", *sorted(path.name for path in kept().iterdir()))


def train(options: argparse.Namespace) -> None:
    """Trains until the time is up, then writes weights and a table to $OUT."""
    os.environ.setdefault("TTT_MEMORY_CACHE", str(kept() / "cache"))
    import torch
    from ttt_training.data.shards import open_shards
    from ttt_training.recipes import Changes, changed, recipe
    from ttt_training.running import run
    from ttt_training.trainer import FINAL_FILE
    from ttt_training.weights import export, load_trained

    from ttt_memory.model.registry import load_model

    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this job needs a CUDA GPU; --device cpu tries the script without one")
    started = kept() / "start.safetensors"
    base_file = kept() / BASE
    if not base_file.is_file() and not join(kept(), BASE, base_file) and options.base is None:
        raise SystemExit(f"no base model in {kept()}: carry {PARTS / BASE}.0 and .1, and run `keep` after each")
    carried = join(kept(), WEIGHTS, started)
    base = options.base or str(base_file)
    start = f"{base}::{started}" if carried else base
    model = load_model(start)
    changes = Changes(tokens=options.tokens, length=options.length, batch=options.batch, control=options.control)
    made = changed(recipe("retrofit", base=start, config=model.config), changes)
    out = kept() / ("control" if options.control else "run")
    timer = threading.Timer(60 * options.minutes, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()
    begun = time.monotonic()
    finished = run(
        made,
        open_shards(kept() / DATA),
        model.tokenizer,
        out,
        device=options.device,
        dtype=model.compute_dtype,
        say=print,
        about={"command": shlex.join(["python", "gpu/train_retrofit.py", *sys.argv[1:]])},
    )
    timer.cancel()
    (phase,) = made.phases
    log = [json.loads(line) for line in (out / phase.name / "log.jsonl").read_text().splitlines()]
    results = Path(os.environ.get("OUT", "."))
    results.mkdir(parents=True, exist_ok=True)
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else "none"
    about: dict[str, Any] = {"recipe": "retrofit", "control": options.control, "tokens": log[-1]["tokens"], "gpu": gpu}
    about |= {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "steps": log[-1]["step"]}
    about |= {"settings": replace(phase.training).to_dict(), "licence": "Apache-2.0", "skipped": log[-1]["skipped"]}
    record = json.loads((out / "run.json").read_text())
    about |= {key: record[key] for key in ("machine", "data", "about")} | {
        "seconds": record["about"]["seconds"][phase.name]
    }
    file = kept() / WEIGHTS
    base_model = load_model(base)
    trained = load_trained(out / phase.name / FINAL_FILE)
    known = options.base or "smollm2-135m"
    export(base_model.net, trained, file, name=NAME, base_name=known, config=phase.config, training=about)
    for part in split(file, results, WEIGHTS):
        print(part.name, f"{part.stat().st_size / 2**20:.1f} MiB")
    seconds = round(time.monotonic() - begun)
    (results / "train_retrofit.json").write_text(json.dumps({**about, "seconds": seconds, "log": log}, indent=1) + "\n")
    print("\nstep\ttokens\tloss\ttokens/s\tinner rate\tskipped")
    for row in log[-1 :: -max(1, len(log) // 10)][::-1]:
        numbers = (row["step"], row["tokens"], round(row["loss"], 4), round(row["tokens_per_second"]))
        print(*numbers, round(row["inner_rate"], 3), row["skipped"], sep="\t")
    print("done" if finished.done else "not done: run it again")


def main() -> None:
    """One verb a call."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack")
    packing.add_argument("--gguf", type=Path, required=True, help="the base model's file")
    packing.add_argument("--shards", type=Path, required=True, help="a shards-KEY folder of at most 55 MiB")
    verbs.add_parser("keep")
    training = verbs.add_parser("train")
    training.add_argument("--minutes", type=float, default=8.0, help="stop after this long; less than the call's limit")
    training.add_argument("--tokens", type=int, default=30_000_000)
    training.add_argument("--length", type=int, default=6144)
    training.add_argument("--batch", type=int, default=4)
    training.add_argument("--control", action="store_true", help="the same without writes")
    training.add_argument("--device", default="cuda")
    training.add_argument("--base", help="another base model, for a try: tiny")
    joining = verbs.add_parser("join")
    joining.add_argument("--parts", type=Path, required=True)
    joining.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    if options.verb == "pack":
        pack(options.gguf, options.shards)
    elif options.verb == "keep":
        keep()
    elif options.verb == "train":
        train(options)
    elif not join(options.parts, WEIGHTS, options.to):
        raise SystemExit(f"no {WEIGHTS}.N in {options.parts}")


if __name__ == "__main__":
    main()
