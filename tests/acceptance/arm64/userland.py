"""A Debian arm64 user space on an x86 machine: debootstrap, qemu-user, and our wheel with its `tflite` extra.

    python tests/acceptance/arm64/userland.py [FOLDER]

Made once in a folder and kept; a stamp tells whether it is whole. Needs root (chroot, mounts) and a package mirror.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SUITE = "bookworm"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
TOOLS = {"debootstrap": "debootstrap", "qemu-aarch64-static": "qemu-user-static", "update-binfmts": "binfmt-support"}
PLATFORMS = ("manylinux_2_27_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64")
BINFMT = Path("/proc/sys/fs/binfmt_misc")

# LiteRT asks /proc/cpuinfo, not the CPU, which kernels it may use; without an ARM core in it XNNPACK stays off.
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
CORES = {
    "cortex-a72": ("0xd08", FEATURES),
    "cortex-a76": ("0xd0b", FEATURES + " atomics fphp asimdhp asimdrdm asimddp"),
}


class CannotRunError(Exception):
    """Something that the ARM64 test needs cannot be had here."""


def make(folder: Path, project: Path) -> Path:
    """The root of the user space in `folder`, with the package of `project` in /opt/venv. Gives its path."""
    if os.geteuid() != 0:
        raise CannotRunError("an ARM64 user space needs root (chroot and mounts); run as root")
    folder.mkdir(parents=True, exist_ok=True)
    _tools()
    _binfmt()
    root, stamp = folder / "root", folder / "root.stamp"
    if not stamp.exists():
        print("debootstrap: about three minutes", flush=True)
        shutil.rmtree(root, ignore_errors=True)
        packages = "python3,python3-venv,gcc,libc6-dev"
        command = [
            "debootstrap",
            "--arch=arm64",
            "--variant=minbase",
            f"--include={packages}",
            SUITE,
            str(root),
            MIRROR,
        ]
        _run(command, folder / "debootstrap.log")
        stamp.touch()
    _install(folder, root, project)
    return root


def run(root: Path, core: str, command: Sequence[str]) -> None:
    """Run `command` inside, on an emulated core of that name, with a /proc/cpuinfo that says so."""
    part, features = CORES[core]
    lines = f"BogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    lines += f"CPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n\n"
    (root / "opt" / "cpuinfo").write_text("".join(f"processor\t: {index}\n{lines}" for index in range(4)))
    # XNNPACK's CPU detection also reads the list of cores in /sys, and gives up without it.
    mounts = 'mount -t proc proc "$0/proc" && mount --bind "$0/opt/cpuinfo" "$0/proc/cpuinfo" && '
    script = mounts + 'mount --rbind /sys "$0/sys" && exec chroot "$0" "$@"'
    # A mount namespace of its own: whatever happens, no mount stays behind.
    inside = ["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", f"QEMU_CPU={core}", "HOME=/tmp", *command]
    subprocess.run(["unshare", "--mount", "sh", "-c", script, str(root), *inside], check=True)


def _tools() -> None:
    missing = [package for program, package in TOOLS.items() if not shutil.which(program)]
    if missing:
        print(f"installing {', '.join(missing)}", flush=True)
        try:
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CannotRunError(f"install these first: {', '.join(missing)} ({error})") from error


def _binfmt() -> None:
    """Let the kernel start ARM64 programs through qemu, also inside a chroot."""
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=False)
    if not (BINFMT / "qemu-aarch64").exists():
        subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=False)
    if not (BINFMT / "qemu-aarch64").exists():
        raise CannotRunError("the kernel does not start ARM64 programs: binfmt_misc cannot be mounted or enabled here")


def _install(folder: Path, root: Path, project: Path) -> None:
    """Our wheel, built now, with aarch64 wheels of what it needs, from the package index."""
    wheels = root / "opt" / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir(parents=True)
    log, pip = folder / "install.log", [sys.executable, "-m", "pip"]
    _run([*pip, "wheel", "-q", "--no-deps", "-w", str(wheels), str(project)], log)
    (ours,) = wheels.glob("retinaface_edge-*.whl")
    if not (root / "opt" / "venv" / "done").exists():
        platforms = [option for name in PLATFORMS for option in ("--platform", name)]
        constraints = project / "constraints.txt"
        command = [*pip, "download", "-q", "-d", str(wheels), *platforms, "--python-version", "3.11"]
        command += ["--only-binary=:all:", f"{ours}[tflite]", "-c", str(constraints)]
        _run(command, log)
        _run(["chroot", str(root), "python3", "-m", "venv", "--clear", "/opt/venv"], log)
        _run([*_pip(root), f"/opt/wheels/{ours.name}[tflite]"], log)
        (root / "opt" / "venv" / "done").touch()
    _run([*_pip(root), "--force-reinstall", "--no-deps", f"/opt/wheels/{ours.name}"], log)


def _pip(root: Path) -> list[str]:
    inside = ["/opt/venv/bin/pip", "install", "-q", "--no-compile", "--no-index", "--find-links", "/opt/wheels"]
    return ["chroot", str(root), "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "HOME=/tmp", *inside]


def _run(command: Sequence[str], log: Path) -> None:
    with log.open("ab") as file:
        result = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
    if result.returncode:
        tail = log.read_text(errors="replace").strip().splitlines()[-5:]
        raise CannotRunError(f"{command[0]} failed; the end of {log}:\n" + "\n".join(tail))


if __name__ == "__main__":
    project = Path(__file__).parents[3]
    try:
        print(make(Path(sys.argv[1]) if len(sys.argv) > 1 else project / "build" / "arm64", project))
    except CannotRunError as error:
        print(f"ARM64 user space: {error}", file=sys.stderr)
        sys.exit(2)
