"""Kill commands at random instants by TERM, INT and KILL, and look at what is left.

    python tests/robustness/trust/kills.py --verb detect --kills 200 [--seed 0]

Whatever the instant: the command ends with a documented exit code and says no traceback, no process of it is left two
seconds later, every output is the earlier one or a new one, whole, and what was found until then is kept. `--verb all`
takes one verb after another. A signal of the terminal (INT) goes to the command and all that it started. With `--room
DIR` the inputs that are prepared for a run are kept there for the next one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

from kill_verbs import VERBS, Room, Verb, prepared

ROOT = Path(__file__).parents[3]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
CODES = {
    signal.SIGTERM: (143, -signal.SIGTERM),
    signal.SIGINT: (130, -signal.SIGINT),
    signal.SIGKILL: (-signal.SIGKILL,),
}
"""A signal before Python has begun to run us ends it by the signal itself, which a shell shows as the same number."""
SECONDS_TO_END, SECONDS_LEFT = 60.0, 2.0
SLOWER, RUNS = 1.01, 5
"""How instants follow the machine's pace: by the longest of so many runs that ended by themselves, and slowly up."""
PROGRESS = 50
"""Kills after which it is told how many there were."""
SCRATCH = "."
"""What begins so in the folder of outputs is a scratch file, which only a SIGKILL may leave."""


@dataclass
class Outcome:
    """How many commands were killed by which signal, how many ended before, and how the outputs were afterwards."""

    killed: Counter[str] = field(default_factory=Counter)
    too_late: int = 0
    outputs: Counter[str] = field(default_factory=Counter)


def kill(verb: Verb, kills: int, seed: int, room: Room) -> Outcome:
    """Kill that many runs. Raises `AssertionError` at the first that leaves something else."""
    chance, outcome = random.Random(f"{verb.name} {seed}"), Outcome()
    seconds = whole_run(verb, room)
    whole = deque([seconds], RUNS)
    for turn in range(100 * kills):
        if sum(outcome.killed.values()) == kills:
            break
        number = SIGNALS[turn % len(SIGNALS)]
        room.turn = turn
        verb.before(room, chance)
        before, begin = room.contents(), time.monotonic()
        process = started(verb, room)
        try:
            process.wait(chance.uniform(0.0, seconds))
            whole.append(time.monotonic() - begin)
            seconds = max(whole)  # the machine may have become quicker,
        except subprocess.TimeoutExpired:
            seconds *= SLOWER  # or slower
        found = verb.found(room)
        send(process, number)
        code, said = ended(process)
        left = in_session(process.pid, SECONDS_LEFT)
        assert not left, f"{number.name}: {left} is left after {SECONDS_LEFT:g} s"
        if code in CODES[number] or "Fatal Python error: init" in said:  # Ctrl-C as Python itself begins
            outcome.killed[number.name] += 1
        else:
            assert code == 0, f"{number.name}: exit code {code}: {said[-2000:]}"
            outcome.too_late += 1
        ours = "cli/main.py" in said  # before the command line is there, Python says how far it was
        quiet = ("Traceback" not in said or not ours) and "resource_tracker" not in said
        quiet |= number == signal.SIGKILL  # what Python's own workers say of a parent that is gone
        assert quiet, f"{number.name}, exit code {code}: {said[-3000:]}"
        for name, content in room.contents().items():
            old = before.get(name)
            part, scratch = ".part." in name, Path(name).name.startswith(SCRATCH)
            if part or scratch:
                assert number == signal.SIGKILL, f"{number.name} left {name}"
                continue
            if content != old:
                verb.whole(room, room.out / name)
            outcome.outputs["as before" if content == old else "new"] += 1
        gone = [name for name in before if not (room.out / name).exists()]
        assert not gone or code == 0, f"{number.name}: {gone} is gone"
        verb.kept(room, found, number)
        room.clear_scratch()
        if (count := sum(outcome.killed.values())) % PROGRESS == 0 and code != 0:
            print(f"  {count} killed, {outcome.too_late} ended before", flush=True)
    return outcome


def copied(kept: Path | None, folder: Path) -> Room:
    """A room with all inputs in `folder`, from those that are `kept` if there are any."""
    if kept is None:
        return prepared(folder)
    if not kept.exists():
        kept.mkdir(parents=True)
        prepared(kept)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return Room(folder)


def whole_run(verb: Verb, room: Room) -> float:
    """One run to its end, which leaves outputs; gives the seconds of a second one."""
    for turn in range(2):
        room.turn = turn
        verb.before(room, random.Random(0))
        begin = time.monotonic()
        process = started(verb, room)
        code, said = ended(process, 10 * SECONDS_TO_END)
        assert code == 0, said
    for name in room.contents():
        verb.whole(room, room.out / name)
    return verb.seconds or time.monotonic() - begin


def started(verb: Verb, room: Room) -> subprocess.Popen[bytes]:
    """The command, in a session of its own, so that all that it starts can be found."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "RETINAFACE_EDGE_STATE": str(room.folder / "state"),
        "TMPDIR": str(room.scratch),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "retinaface_edge", *verb.command(room)],
        cwd=room.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_hear_interrupts,
    )


def _hear_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT; what a person starts does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """As each is sent: Ctrl-C to the whole group, the others to the command alone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)


def ended(process: subprocess.Popen[bytes], seconds: float = SECONDS_TO_END) -> tuple[int, str]:
    """The exit code and standard error. Raises `AssertionError` if it goes on."""
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"it has not ended after {seconds:g} s") from None
    return process.returncode, errors.decode(errors="replace")


def in_session(session: int, seconds: float) -> list[str]:
    """The processes of a session that are alive, once there are none or the time is over."""
    until = time.monotonic() + seconds
    while True:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200])
            except OSError:
                continue
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verb", choices=("all", *VERBS), default="all")
    parser.add_argument("--kills", type=int, default=200, help="per verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", type=Path)
    options = parser.parse_args()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    faults = 0
    for name in VERBS if options.verb == "all" else (options.verb,):
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            verb, room = VERBS[name], copied(options.room, Path(folder))
            if missing := verb.missing():
                print(f"{name:11} is left out: {missing}", flush=True)
                continue
            try:
                outcome = kill(verb, options.kills, options.seed, room)
            except AssertionError as error:
                faults += 1
                print(f"{name:11} FAULT in turn {room.turn}: {error}", flush=True)
                continue
            count = sum(outcome.killed.values())
            print(
                f"{name:11} {count} of {options.kills} kills survived: {dict(outcome.killed)}, "
                f"{outcome.too_late} ended before; outputs {dict(outcome.outputs)}",
                flush=True,
            )
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
