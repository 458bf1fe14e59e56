"""The same work on a Dask cluster, with one of its two workers killed half-way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retinaface_edge.benchmarks.drift.run import drift
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.inference.measurement import Execution, read_set
from retinaface_edge.benchmarks.inference.network_under_test import networks_of
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.runtime import Bundle

distributed = pytest.importorskip("distributed")

PICTURES = 24
KILL_AT = 6


def test_a_killed_worker_changes_no_figure(bundle: Bundle, tmp_path: Path) -> None:
    for index, frame in enumerate(scenes(PICTURES, seed=5)):
        Image.fromarray(frame[:, :, ::-1]).save(tmp_path / f"{index:02}.png")
    networks = networks_of(bundle, ["onnxruntime fp32", "openvino int8", "tflite int8"])
    files = read_set(tmp_path)
    alone = drift(networks, files, Execution())
    killed: list[int] = []
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):

        def killing(results: Iterable[Any], total: int) -> Iterator[Any]:
            for number, result in enumerate(results):
                if number == KILL_AT:
                    pid = next(iter(client.run(os.getpid).values()))
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                yield result

        together = drift(networks, files, Execution(dask=cluster.scheduler_address, progress=killing))
    assert len(killed) == 1
    assert together == alone


def test_a_missing_cluster_is_a_plain_error(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    Image.fromarray(scenes(1)[0]).save(tmp_path / "0.png")
    networks = networks_of(bundle, ["* fp32"])
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(MeasurementError, match="no Dask scheduler answers at tcp"),
    ):
        drift(networks, read_set(tmp_path), Execution(dask="tcp://127.0.0.1:9"))
