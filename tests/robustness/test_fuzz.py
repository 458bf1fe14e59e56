"""A short turn of every fuzz target; `tests/robustness/fuzz/drive.py` is the long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from drive import SHARES, SLOW, mutate, one
from edits import edited
from targets import SMALL, TARGETS

from retinaface_edge.runtime import Spec, SpecError

FAULTS = {
    "manifest": ["00f2ff97"],
    "spec": ["2e032e2e3a0a"],
    "teacher": ["9292929292929250"],
    "report": ["ccbb2806616263"],
    "gate": ["30fd4a4ab52fca2b3d", "463d00515124515151515151515151515151515151515151463d51513d00"],
}
"""Inputs that were faults once."""


@pytest.mark.parametrize("target", SHARES)
def test_any_input_is_read_or_refused_in_one_line(target: str) -> None:
    mutate(target, 40 if target in SLOW else 400, seed=1)


def test_every_target_has_a_share_and_a_seed() -> None:
    assert set(SHARES) == set(TARGETS)
    assert all(seeds for _, seeds in TARGETS.values())


@pytest.mark.parametrize("target", FAULTS)
def test_faults_stay_mended(target: str) -> None:
    for data in FAULTS[target]:
        one(target, bytes.fromhex(data))


@given(st.binary(max_size=30))
def test_a_spec_that_is_accepted_can_be_decoded_by(data: bytes) -> None:
    try:
        spec = Spec.from_json(edited(SMALL.to_json(), data))
    except SpecError:
        return
    assert len(spec.anchors) == spec.level_bounds[-1]
    assert all(min(output.shape) >= 1 for output in spec.outputs)
