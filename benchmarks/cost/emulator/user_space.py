"""The ARM64 user space that frames run in, and the tools of this machine that run it.

Everything that the counted program can see is the same wherever it runs, down to the paths, so that its memory lies the
same and the simulated caches miss the same: the user space is mounted at one fixed place, in a mount namespace of its
own, and holds its own /proc/cpuinfo and list of processors.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import MeasurementError
from ..cores import Core
from .counts import Counts, read_counts
from .symbols import Functions, read_functions

MOUNTED = "/mnt"
SITE_PACKAGES = "opt/venv/lib/python3.11/site-packages"
LIBRARY = "libpywrap_litert_common.so"
WORK = "opt/count"
PROCESSORS = 4
TIME_LIMIT_S = 600
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""After `unshare`, which has the kernel forget it: the emulator must not outlive a command that is killed."""
PLUGIN_FLAGS = [
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Werror",
    "-O2",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
]
PACKAGES = {"qemu-aarch64": "qemu-user", "gcc": "gcc", "unshare": "util-linux"}
LAST_INTERFACE_1 = 8
ENVIRONMENT = {
    "HOME": "/tmp",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONHOME": "/usr",
    "PYTHONPATH": f"/{SITE_PACKAGES}",
}


@dataclass(frozen=True)
class UserSpace:
    """A Debian ARM64 root folder with Python and LiteRT, and what this machine needs to count in it."""

    root: Path
    functions: Functions
    versions: Mapping[str, str]

    def count(
        self, core: Core, core_name: str, model: bytes, inputs: Sequence[NDArray[Any]], boundaries: Sequence[int]
    ) -> Counts:
        """Run `model` on `inputs` twice on an emulated core and count the second time.

        `boundaries` are offsets in the kernels' library where an interval begins. Raises `MeasurementError`.
        """
        with tempfile.TemporaryDirectory(prefix="cost-") as scratch:
            folder = Path(scratch)
            plugin, counts, cpuinfo = folder / "plugin.so", folder / "counts.txt", folder / "cpuinfo"
            _compile(plugin)
            cpuinfo.write_text(_cpuinfo(core), encoding="ascii")
            inside = self.root / WORK
            self._prepare(inside, model, inputs, boundaries)
            levels = [f"l{level}={cache.bytes}:{cache.ways}" for level, cache in enumerate(core.caches, start=1)]
            plugin_argument = ",".join([str(plugin), f"out={counts}", *levels])
            command = ["qemu-aarch64", "-cpu", core_name, "-seed", "1", "-L", MOUNTED, "-plugin", plugin_argument]
            command += [item for name, value in ENVIRONMENT.items() for item in ("-E", f"{name}={value}")]
            command += [f"{MOUNTED}/usr/bin/python3.11", f"/{WORK}/guest.py", f"/{WORK}/request.json"]
            _run_mounted(self.root, cpuinfo, command)
            result = json.loads((inside / "result.json").read_text(encoding="utf-8"))
            return read_counts(counts, int(result["library_address"]))

    def _prepare(self, inside: Path, model: bytes, inputs: Sequence[NDArray[Any]], boundaries: Sequence[int]) -> None:
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir(parents=True)
        (inside / "guest.py").write_bytes(resources.files(__package__).joinpath("guest.py").read_bytes())
        (inside / "model.tflite").write_bytes(model)
        named: Any = {f"input{index}": array for index, array in enumerate(inputs)}
        np.savez(inside / "inputs.npz", **named)
        request = {
            "model": f"/{WORK}/model.tflite",
            "inputs": f"/{WORK}/inputs.npz",
            "library": LIBRARY,
            "boundaries": list(boundaries),
            "result": f"{MOUNTED}/{WORK}/result.json",  # the emulator looks up there only what exists
        }
        (inside / "request.json").write_text(json.dumps(request), encoding="utf-8")


def open_user_space(root: Path) -> UserSpace:
    """The user space at `root`. Raises `MeasurementError` that names what is missing and how to get it."""
    library = root / SITE_PACKAGES / "ai_edge_litert" / LIBRARY
    if not library.exists():
        raise MeasurementError(
            f"{root} is not an ARM64 user space with LiteRT; make it with: make arm64-userspace (as root)"
        )
    if missing := sorted({package for program, package in PACKAGES.items() if not shutil.which(program)}):
        raise MeasurementError(f"counting needs {', '.join(missing)}; run: apt-get install {' '.join(missing)}")
    qemu = _version(["qemu-aarch64", "--version"], r"version (\S+)")
    if int(qemu.split(".")[0]) > LAST_INTERFACE_1:
        raise MeasurementError(
            f"qemu-user {qemu} has a plugin interface that is not known here; install version 7 or 8 (Debian 12)"
        )
    (metadata,) = (root / SITE_PACKAGES).glob("ai_edge_litert-*.dist-info")
    return UserSpace(
        root,
        read_functions(library),
        {"qemu-user": qemu, "ai-edge-litert": metadata.name.split("-")[1].removesuffix(".dist")},
    )


def _compile(plugin: Path) -> None:
    with resources.as_file(resources.files(__package__)) as folder:
        command = ["gcc", *PLUGIN_FLAGS, "-o", str(plugin), str(folder / "plugin.c")]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise MeasurementError(f"the plugin does not compile: {result.stderr.strip().splitlines()[:1]}")


def _run_mounted(root: Path, cpuinfo: Path, command: Sequence[str]) -> None:
    """Run `command` where `root` is mounted and says that it has processors as in `cpuinfo`."""
    processors = root / "sys/devices/system/cpu"
    processors.mkdir(parents=True, exist_ok=True)
    for name in ("possible", "present", "online"):
        (processors / name).write_text(f"0-{PROCESSORS - 1}\n", encoding="ascii")
    shutil.copy(cpuinfo, root / "proc" / "cpuinfo")
    script = f'mount --bind "$0" {MOUNTED} && cd / && exec env -i PATH=/usr/bin:/bin "$@"'
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        result = subprocess.run(
            [*namespace, *DIES_WITH_US, "sh", "-c", script, str(root), *command],
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"the counted frame was not done after {TIME_LIMIT_S} s") from error
    if result.returncode:
        last = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise MeasurementError(f"the counted program failed: {last}")


def _cpuinfo(core: Core) -> str:
    lines = f"BogoMIPS\t: 108.00\nFeatures\t: {core.cpu_features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    lines += f"CPU variant\t: 0x0\nCPU part\t: {core.part}\nCPU revision\t: 3\n\n"
    return "".join(f"processor\t: {index}\n{lines}" for index in range(PROCESSORS))


def _version(command: Sequence[str], pattern: str) -> str:
    found = re.search(pattern, subprocess.run(command, capture_output=True, text=True).stdout)
    return found[1] if found else "0"
