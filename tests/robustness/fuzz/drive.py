"""Fuzz every target in a process of its own, and count.

    python tests/robustness/fuzz/drive.py --inputs 2000000              # all targets, by their share
    python tests/robustness/fuzz/drive.py --target manifest --inputs 1000

Guided by coverage where atheris is installed, else by seeded mutation. A fault is printed with its input in hexadecimal
digits, which `--input` runs again; an input that takes more than 20 seconds is a hang. Exit code 1 when there is a
fault.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARES = {
    "manifest": 6, "spec": 10, "gate": 10, "recipe": 10, "boxes": 10, "result": 10, "picture": 10, "frame": 10,
    "outputs": 8, "lowering": 6, "onnx-checkpoint": 6, "pickled-checkpoint": 2, "state-keys": 2,
    "branch": 4, "labels": 8, "teacher": 1, "vertices": 1,
    "any-file": 6, "json": 10, "text": 10, "arrays": 6, "release": 6, "stage": 2, "row": 1, "device": 3, "entries": 2,
    "inspect": 4,
}  # fmt: skip
SECONDS_FOR_ONE = 20
LONGEST = 2048
BATCH = 25_000
"""Inputs of one process: atheris keeps some memory of every input."""


def one(target: str, data: bytes) -> None:
    """Run an input; a refusal is no fault."""
    from targets import TARGETS

    from retinaface_edge.runtime import RetinaFaceEdgeError

    try:
        TARGETS[target][0](data)
    except RetinaFaceEdgeError as refusal:
        assert "\n" not in str(refusal).strip(), "an error of more than one line"


def mutate(target: str, inputs: int, seed: int) -> None:
    """Seeded mutation: bytes changed, removed, repeated and joined from the seeds."""
    from targets import TARGETS

    chance, seeds = random.Random(f"{target} {seed}"), TARGETS[target][1]
    for _ in range(inputs):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 9)):
            place = chance.randrange(len(data) + 1)
            kind = chance.randrange(5)
            if kind == 0 and place < len(data):
                data[place] = chance.randrange(256)
            elif kind == 1:
                data[place:place] = chance.randbytes(chance.randrange(1, 9))
            elif kind == 2:
                del data[place : place + chance.randrange(1, 9)]
            elif kind == 3:
                data[place:] = chance.choice(seeds)[place:]
            elif place < len(data):
                data[place] ^= 1 << chance.randrange(8)
        try:
            one(target, bytes(data[:LONGEST]))
        except BaseException:
            print(f"{target}: fault by --input {bytes(data[:LONGEST]).hex()}", file=sys.stderr)
            raise


def guided(target: str, inputs: int, seed: int) -> None:
    """By coverage; atheris ends the process."""
    import atheris

    with atheris.instrument_imports(include=["retinaface_edge"]):
        import targets

        # What a target imports late: here it is instrumented, and PyTorch's seconds are not the first input's.

    def checked(data: bytes) -> None:
        try:
            one(target, data)
        except BaseException:
            print(f"{target}: fault by --input {data.hex()}", file=sys.stderr)
            raise

    with tempfile.TemporaryDirectory() as corpus:
        for index, content in enumerate(targets.TARGETS[target][1]):
            (Path(corpus) / f"seed{index}").write_bytes(content)
        options = [f"-runs={inputs}", f"-seed={seed + 1}", f"-max_len={LONGEST}", f"-timeout={SECONDS_FOR_ONE}"]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/", "-rss_limit_mb=4096", corpus], checked)
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=sorted(SHARES))
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", type=bytes.fromhex, help="run this one input of the target")
    parser.add_argument("--engine", choices=("auto", "atheris", "mutation"), default="auto")
    options = parser.parse_args()
    engine = options.engine
    if engine == "auto":
        import importlib.util

        engine = "atheris" if importlib.util.find_spec("atheris") else "mutation"
    if options.target and options.input is not None:
        one(options.target, options.input)
        return 0
    if options.target:
        (guided if engine == "atheris" else mutate)(options.target, options.inputs, options.seed)
        return 0
    total, faults = 0, 0
    for target, share in SHARES.items():
        begin, ran, code = time.monotonic(), 0, 0
        wanted = -(-options.inputs * share // sum(SHARES.values()))
        while ran < wanted and not code:
            count = min(wanted - ran, BATCH)
            seed = options.seed + ran // BATCH
            command = [sys.executable, __file__, "--target", target, "--inputs", str(count), "--seed", str(seed)]
            ended = subprocess.run([*command, "--engine", engine], capture_output=True, text=True, errors="replace")
            code = ended.returncode
            if code:
                said = (ended.stdout + ended.stderr).splitlines()
                kept = [line for line in said if not line.startswith(("#", "INFO", "\t", "WARNING"))]
                print("\n".join(f"    {line}" for line in kept[-25:]), flush=True)
                break
            done = re.findall(r"Done (\d+) (?:runs )?in", ended.stderr)
            ran += int(done[-1]) if done else count
        total, faults = total + ran, faults + (code != 0)
        print(f"{target:20} {ran:>9,} inputs {time.monotonic() - begin:7.0f} s  exit {code}", flush=True)
    print(f"{total:,} inputs by {engine}, {faults} targets with a fault")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
