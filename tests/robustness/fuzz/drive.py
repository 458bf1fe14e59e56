"""Fuzz every target in processes of its own, and count.

    python tests/robustness/fuzz/drive.py --inputs 2000000 --jobs 16    # all targets, by their share
    python tests/robustness/fuzz/drive.py --target manifest --inputs 1000

Guided by coverage where atheris is installed, else by seeded mutation. A fault is printed with its input in hexadecimal
digits, which `--input` runs again; an input that takes more than 20 seconds is a hang. Exit code 1 when there is a
fault.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SHARES = {
    "manifest": 6, "spec": 10, "gate": 10, "recipe": 10, "boxes": 10, "result": 10, "picture": 10, "frame": 10,
    "outputs": 8, "lowering": 6, "onnx-checkpoint": 6, "pickled-checkpoint": 2, "state-keys": 2,
    "branch": 4, "labels": 8, "teacher": 1, "vertices": 1,
    "any-file": 6, "json": 10, "text": 10, "arrays": 6, "release": 6, "stage": 2, "row": 1, "device": 3, "entries": 2,
    "inspect": 4,
    "tensors": 2, "onnx-detector": 3, "embedder": 3, "pairs": 6, "picture-list": 3, "prediction": 6, "boards": 4,
    "video": 2, "results": 4, "report": 1, "blob": 3, "names": 6,
}  # fmt: skip
SLOW = {"teacher": 12, "tensors": 9, "onnx-detector": 8, "report": 7, "state-keys": 6, "pickled-checkpoint": 5}
"""Targets whose inputs take longest, and how long compared with each other."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SECONDS_FOR_ONE = 20
SECONDS_FOR_A_BATCH = 7200
LONGEST = 2048
BATCH = 25_000
"""Inputs of one process: atheris keeps some memory of every input."""


@dataclass(frozen=True)
class Ran:
    """How a batch ended: its exit code, how many inputs it ran, and what it said of a fault."""

    code: int
    count: int
    seconds: float
    said: str


@dataclass(frozen=True)
class Batch:
    """Inputs of one target that one process runs."""

    target: str
    count: int
    seed: int
    engine: str

    def run(self) -> Ran:
        """Run them; atheris may end before its count, and then goes on with another seed."""
        begin, ran, turn = time.monotonic(), 0, 0
        while ran < self.count:
            asked = ["--inputs", str(self.count - ran), "--seed", str(self.seed + 1000 * turn)]
            command = [sys.executable, __file__, "--target", self.target, *asked, "--engine", self.engine]
            try:
                ended = subprocess.run(
                    command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, errors="replace",
                    timeout=SECONDS_FOR_A_BATCH,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                said = f"    {self.target}: a batch took more than {SECONDS_FOR_A_BATCH} s (seed {self.seed})\n"
                return Ran(124, ran, time.monotonic() - begin, said)
            if ended.returncode:
                lines = (ended.stdout + ended.stderr).splitlines()
                kept = [line for line in lines if not line.startswith(("#", "INFO", "\t", "WARNING"))]
                said = "".join(f"    {line}\n" for line in kept[-25:])
                return Ran(ended.returncode, ran, time.monotonic() - begin, said)
            done = re.findall(r"Done (\d+) (?:runs )?in", ended.stderr)
            ran += max(int(done[-1]), 1) if done else self.count - ran
            turn += 1
        return Ran(0, ran, time.monotonic() - begin, "")


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
            with bounded(SECONDS_FOR_ONE):
                one(target, bytes(data[:LONGEST]))
        except BaseException:
            print(f"{target}: fault by --input {bytes(data[:LONGEST]).hex()}", file=sys.stderr)
            raise


class Hang(BaseException):
    """An input took too long. No handler of an ordinary exception takes it for one."""


@contextlib.contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Inside, `Hang` is raised after that long; in the main thread only, where signals come."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hang(number: int, frame: object) -> None:
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
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
    batches = [
        Batch(target, min(BATCH, wanted - start), options.seed + start // BATCH, engine)
        for target, share in SHARES.items()
        for wanted in [-(-options.inputs * share // sum(SHARES.values()))]
        for start in range(0, wanted, BATCH)
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        # Those that take longest begin first; what they found is printed in the order of the targets.
        order = sorted(range(len(batches)), key=lambda index: -SLOW.get(batches[index].target, 0))
        under_way = {index: pool.submit(batches[index].run) for index in order}
        for target in SHARES:
            ran = [under_way[index].result() for index, batch in enumerate(batches) if batch.target == target]
            failed = next((one for one in ran if one.code), None)
            print(failed.said if failed else "", end="")
            count, seconds, code = sum(one.count for one in ran), sum(one.seconds for one in ran), failed
            print(f"{target:20} {count:>9,} inputs {seconds:7.0f} s  exit {code.code if code else 0}", flush=True)
            total, faults = total + count, faults + (failed is not None)
    print(f"{total:,} inputs by {engine}, {faults} targets with a fault")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
