"""The n-th call of the operating system, or the n-th allocation, fails, for every n.

    python tests/robustness/trust/faults.py --scenario pictures --fault EIO [--sample 40]

A library preloaded before the process (`faults.c`) counts what it opens, reads, writes, syncs, renames and makes below
one folder, in whatever language, and fails the n-th of them: with EIO, or ENOSPC after half of a write. Allocations are
those of NumPy arrays and whole files by our own code: `MemoryError` comes from the n-th call of a function of NumPy
that makes an array, or of `read_file`. Inside the frameworks a failing allocation is theirs to answer for.

Each run is a fork of a process that has imported the frameworks. It must end with a documented exit code and without a
traceback; each output must be the earlier one or that of an undisturbed run, whole; after exit code 0 it is the latter.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from kill_verbs import VERBS, Room, prepared

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait

SOURCE = Path(__file__).with_name("faults.c")
LIBRARY = "RETINAFACE_EDGE_FAULTS"
FRAMEWORKS = (
    "torch", "onnx", "onnxruntime", "onnxsim", "onnx_ir", "cv2", "PIL.Image", "ai_edge_litert.interpreter", "openvino",
    "skimage.data", "retinaface.weights", "sqlite3", "safetensors.torch", "importlib.metadata",
    "retinaface_edge.cli.main", "retinaface_edge.export.build",
)  # fmt: skip
ALLOCATE = (
    "array", "asarray", "ascontiguousarray", "concatenate", "copy", "empty", "empty_like", "full", "ones", "pad",
    "repeat", "stack", "tile", "where", "zeros", "zeros_like",
)  # fmt: skip
DOCUMENTED = (0, 1, 2, 3)
SECONDS = 120.0
OLD = b"an earlier output"


def _detect(source: str, *options: str) -> Callable[[Room], list[str]]:
    return lambda room: [
        *("detect", "bundle", source, "--json", "out/faces.jsonl", "--csv", "out/faces.csv", "--draw", "out"),
        *("--backend", "tflite", "--precision", "int8", *options),
    ]


def _build(*options: str) -> Callable[[Room], list[str]]:
    small = ("--images", "1", "--size", "64x64", "--recipe", "fast", "--force", "--quiet")
    return lambda room: ["build", "--output", "out/bundle", *small, *options]


SCENARIOS: dict[str, Callable[[Room], list[str]]] = {
    "pictures": _detect("two", "--crops", "out", "--blur", "out/blurred"),
    "video": _detect("clip.avi", "--frames", "6"),
    "openvino": lambda room: ["detect", "bundle", "two", "--json", "out/faces.jsonl", "--backend", "openvino"],
    "eval": lambda room: [*VERBS["eval"].command(room), "--artifact", "tflite int8"],
    "build": _build("--no-cache"),
    "cached-build": _build("--cache", "fresh"),
    "warm-build": _build("--cache", "warm"),
}


@dataclass
class Walk:
    """What the runs of one scenario ended with, and those that were wrong."""

    calls: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def walk(scenario: str, fault: str, room: Room, options: argparse.Namespace) -> Walk:
    """Fail each call in turn, or `sample` of them, spread evenly, or one."""
    command, found = SCENARIOS[scenario](room), Walk()
    if scenario == "warm-build":
        code, found.calls, _ = run(command, fault, 0, room)
        assert code == 0
    reset(room, scenario)
    code, found.calls, said = run(command, fault, 0, room)
    assert code == 0, said
    expected = room.contents()
    numbers = range(1, found.calls + 1)
    sample = options.sample
    if options.call:
        numbers = range(options.call, options.call + 1)
    elif sample and sample < found.calls:
        start = random.Random(options.seed).uniform(0, found.calls / sample)
        numbers = [1 + int(start + index * found.calls / sample) for index in range(sample)]  # type: ignore[assignment]
    for number in numbers:
        reset(room, scenario)
        before = room.contents()
        code, _, said = run(command, fault, number, room)
        found.codes[code] += 1
        for problem in problems(code, said, before, room.contents(), expected):
            found.wrong.append(f"{scenario} {fault} {number}: {problem}")
            print(found.wrong[-1], flush=True)
    return found


def problems(
    code: int, said: str, before: dict[str, bytes], after: dict[str, bytes], expected: dict[str, bytes]
) -> Iterator[str]:
    """What is wrong after a run."""
    called = said.splitlines()[0] if said else ""
    if code not in DOCUMENTED or "Traceback" in said:
        yield f"exit code {code} ({called}): {said[-1500:]}"
    for name, content in after.items():
        if ".part." in name and called.startswith("rename") and content == expected.get(name.replace(".part.", ".")):
            continue  # whole, and the error names it
        if ".part." in name or Path(name).name.startswith("."):
            yield f"{name} is left ({called})"
        elif "bundle/" not in name and not _whole(name, content, code, before, expected):
            yield f"{name} is half written: {len(content)} of {len(expected.get(name, b''))} bytes ({called})"
    gone = [name for name in before if name not in after and "bundle/" not in name]
    if gone:
        yield f"{gone} is gone ({called})"
    bundles = [{k: v for k, v in files.items() if k.startswith("bundle/")} for files in (before, after, expected)]
    if bundles[1] not in (bundles[0], bundles[2]):
        yield f"the bundle is neither the earlier nor the new one ({called})"
    if code == 0 and after != expected:
        different = [name for name in expected if after.get(name) != expected[name]]
        if different == ["eval.json"] and _whole("eval.json", after["eval.json"], code, before, expected):
            return
        yield f"exit code 0, and {different} is not what it should be ({called})"


def _whole(name: str, content: bytes, code: int, before: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    """Whether it is the earlier output or the new one; after an error, lines and rows of what was found until then."""
    if content in (before.get(name), expected.get(name)):
        return True
    if name == "eval.json":  # a picture that cannot be read is left out, and the result says so
        return bool(json.loads(content)["images"]["skipped"])
    if code != 0 and name.endswith(".mp4"):
        return _plays(content)
    lines = content.splitlines(keepends=True)
    if code == 3:  # the video cannot be read to its end, and its last frame is damaged
        return name.endswith(".csv") or all(json.loads(line) for line in lines)
    return code != 0 and name.endswith((".jsonl", ".csv")) and set(lines) <= set(expected[name].splitlines(True))


def _plays(content: bytes) -> bool:
    from retinaface_edge.runtime.io.frame_source import FrameSource, Stream, opencv

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(content)
        source = FrameSource(opencv(), Stream(str(path)))
        return len(list(source.frames())) == source.promised


def reset(room: Room, scenario: str) -> None:
    """Earlier outputs, and a cache that is empty."""
    shutil.rmtree(room.out)
    shutil.rmtree(room.cache, ignore_errors=True)
    shutil.rmtree(room.folder / "fresh", ignore_errors=True)
    shutil.rmtree(room.folder / "blobs", ignore_errors=True)
    room.out.mkdir()
    room.clear_scratch()
    if "build" in scenario:
        shutil.copytree(room.folder / "bundle", room.out / "bundle")
    elif scenario == "eval":
        (room.out / "eval.json").write_bytes(OLD)
    else:
        for name in ("faces.jsonl", "faces.csv", *(("clip.mp4",) if scenario == "video" else ("0.png", "0-0.png"))):
            if scenario != "openvino" or name == "faces.jsonl":
                (room.out / name).write_bytes(OLD)


def run(command: list[str], fault: str, number: int, room: Room) -> tuple[int, int, str]:
    """One command in a fork, whose call of that number fails; gives its exit code, the calls, and what it said."""
    said, counted = room.folder.parent / "said", room.folder.parent / "counted"
    counted.write_text("0")
    process = os.fork()
    if process == 0:
        code = 70
        try:
            code = _inside(command, fault, number, room, said, counted)
        finally:
            os._exit(code)
    until = time.monotonic() + SECONDS
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            break
        if time.monotonic() > until:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    return code, int(counted.read_text() or 0), said.read_text(errors="replace")


def _inside(command: list[str], fault: str, number: int, room: Room, said: Path, counted: Path) -> int:
    from retinaface_edge.cli.main import main

    output = os.open(said, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(room.folder)
    os.environ["RETINAFACE_EDGE_STATE"] = str(room.folder / "state")
    os.environ["RETINAFACE_EDGE_CACHE"] = str(room.folder / "blobs")
    os.environ["TMPDIR"] = str(room.scratch)
    tempfile.tempdir = None
    if fault == "memory":
        with failing_allocations(number) as seen:
            code = main(command)
        counted.write_text(str(seen[0]))
        return code
    library = ctypes.CDLL(os.environ[LIBRARY])
    library.fault_name.restype = ctypes.c_char_p
    root = ctypes.c_char_p(os.fsencode(f"{room.folder}/"))
    paths = contextlib.chdir(room.folder) if sys.version_info >= (3, 11) else contextlib.nullcontext()
    with paths:
        library.fault_arm(root, ctypes.c_long(number), getattr(errno, fault), int(fault == "ENOSPC"))
        code = main([_absolute(word, room) for word in command])
        seen_calls = library.fault_seen()
        failed = bytes(library.fault_name() or b"")
        library.fault_arm(b"", ctypes.c_long(-1), 0, 0)
    counted.write_text(str(seen_calls))
    sys.stdout.flush()
    text = said.read_bytes()
    said.write_bytes(failed + b"\n" + text)
    return code


def _absolute(word: str, room: Room) -> str:
    """Paths as the library compares them: whole."""
    first = word.split("/")[0]
    known = ("bundle", "out", "two", "clip.avi", "photos", "cache", "fresh", "warm")
    return str(room.folder / word) if first in known else word


@contextlib.contextmanager
def failing_allocations(number: int) -> Iterator[list[int]]:
    """Inside, the allocation of that number by our code fails; gives the count so far."""
    from retinaface_edge.runtime.io import untrusted

    seen = [0]

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if sys._getframe(1).f_globals.get("__name__", "").startswith("retinaface_edge"):
                seen[0] += 1
                if seen[0] == number:
                    raise MemoryError
            return function(*arguments, **options)

        return call

    places: list[tuple[Any, str]] = [(np, name) for name in ALLOCATE]
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("retinaface_edge")]
    places += [(m, "read_file") for m in modules if getattr(m, "read_file", None) is untrusted.read_file]
    before = [getattr(owner, name) for owner, name in places]
    for (owner, name), function in zip(places, before, strict=True):
        setattr(owner, name, failing(function))
    try:
        yield seen
    finally:
        for (owner, name), function in zip(places, before, strict=True):
            setattr(owner, name, function)


def compiled(folder: Path) -> Path:
    """The library, compiled."""
    library = folder / "faults.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=tuple(SCENARIOS), action="append")
    parser.add_argument("--fault", choices=("EIO", "ENOSPC", "memory"), action="append")
    parser.add_argument("--sample", type=int, help="so many calls of each walk (default: all)")
    parser.add_argument("--call", type=int, help="this call alone")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        if LIBRARY not in os.environ:
            library = str(compiled(folder))
            environment = {**os.environ, LIBRARY: library, "LD_PRELOAD": library, "OMP_NUM_THREADS": "1"}
            return subprocess.run([sys.executable, *sys.argv], env=environment).returncode
        for framework in FRAMEWORKS:
            importlib.import_module(framework)
        portrait()
        (folder / "room").mkdir()
        room, wrong = prepared(folder / "room"), 0
        shutil.copytree(
            folder / "room/photos", folder / "room/two", ignore=shutil.ignore_patterns("[2-9].jpg", "[lb]*")
        )
        for scenario in options.scenario or SCENARIOS:
            for fault in options.fault or ("EIO", "ENOSPC", "memory"):
                begin = time.monotonic()
                found = walk(scenario, fault, room, options)
                wrong += len(found.wrong)
                print(
                    f"{scenario:12} {fault:7} {sum(found.codes.values())} of {found.calls} calls failed in turn: "
                    f"exit codes {dict(sorted(found.codes.items()))}, {len(found.wrong)} wrong, "
                    f"{time.monotonic() - begin:.0f} s",
                    flush=True,
                )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
