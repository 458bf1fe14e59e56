"""The detector: frame in, faces out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import backends
from .artifact import ArtifactId
from .bundle.bundle import Bundle
from .errors import BackendError, RetinaFaceEdgeError
from .ops.faces import Faces
from .ops.letterbox import Letterbox, check_frame, letterbox, letterbox_for
from .ops.postprocess import Bounds, Selection, check_thresholds, faces_of
from .ops.quantization import QuantParams, RawOutput
from .spec import Spec

if TYPE_CHECKING:
    from .mesh.branch import DenseBranch

FRAME_SIZES_KEPT = 8
DEFAULT_BOUNDS = Bounds()


@dataclass(eq=False)
class Times:
    """Seconds spent on `frames` frames: before, in and after the network."""

    frames: int = 0
    pre: float = 0.0
    inference: float = 0.0
    post: float = 0.0


class Detector:
    """A loaded artifact with its pre- and post-processing.

    >>> with Detector.load("bundle", backend="openvino", precision="int8") as detector:
    ...     for face in detector.detect(frame):
    ...         print(face.score, face.box)
    """

    def __init__(
        self,
        spec: Spec,
        network: backends.Network,
        branch: Callable[[], tuple[backends.Network, backends.Network]] | None = None,
        artifact: ArtifactId | None = None,
    ) -> None:
        self.spec = spec
        self.backend = None if artifact is None else artifact.backend.value
        self.precision = None if artifact is None else artifact.precision.value
        self._network: backends.Network | None = network
        self._branch = branch
        self._featured: backends.Network | None = None
        self._dense: DenseBranch | None = None
        self._workspace = _Workspace(spec)
        self._lock = threading.RLock()
        self._busy = False

    @classmethod
    def load(
        cls, bundle: str | Path | Bundle, backend: str | None = None, precision: str | None = None, threads: int = 1
    ) -> Detector:
        """Load one artifact of a bundle, its digest checked, onto `threads` threads.

        Without `backend` and `precision`, those that `bench --pick --store` chose on this machine are used, or else
        what its target prefers. Raises `BundleError` when the bundle is damaged or lacks the artifact, `BackendError`
        when the backend is missing.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        if backend is None or precision is None:
            from .host.artifact_choice import default_artifact

            artifact = default_artifact(opened, backend, precision)
        else:
            artifact = opened.artifact(backend, precision)
        files = [opened.read(file) for file in artifact.files]

        def branch() -> tuple[backends.Network, backends.Network]:
            """The network with feature outputs, loaded only when meshes are wanted, and the dense branch."""
            dense = [opened.read(file) for file in opened.mesh(artifact.backend, artifact.precision).files]
            assert opened.spec.mesh is not None
            return (
                backends.load(artifact.backend, opened.spec.with_features, files, threads),
                backends.load(artifact.backend, opened.spec.mesh, dense, threads),
            )

        return cls(opened.spec, backends.load(artifact.backend, opened.spec, files, threads), branch, artifact.id)

    def __repr__(self) -> str:
        what = f"{self.backend} {self.precision}" if self.backend else type(self._network).__name__
        closed = ", closed" if self._network is None else ""
        return f"<Detector {what}, input {self.spec.width}x{self.spec.height}{closed}>"

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the network. Further calls raise `BackendError`; closing twice does nothing."""
        with self._lock:
            self._network = self._featured = self._dense = None

    def detect(
        self,
        frame: NDArray[np.uint8],
        score_threshold: float = 0.5,
        iou_threshold: float = 0.4,
        rgb: bool = False,
        mesh: bool = False,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> Faces:
        """The faces of one frame, in pixels of that frame; with `mesh`, the 468 vertices of each too.

        `frame` is uint8, shape (h, w, 3) in BGR (RGB if `rgb`) or (h, w) grey, of any size and strides. Safe to call
        from several threads: calls are serialised. The first call with `mesh` loads the dense branch and a second
        network, which gives the features that it reads; calls without stay as fast as they were. `bounds` limits the
        work of a frame: by default its best 5000 candidates and 750 faces. Raises `ImageError` for any other array,
        `ThresholdError` for a threshold outside 0…1 or a bound below 1, `BackendError` when the detector is closed,
        `BundleError` when `mesh` is asked of a bundle without a dense branch.
        """
        check_thresholds(score_threshold, iou_threshold, bounds)
        pixels = check_frame(frame)
        with self._turn():
            network, dense = self._open(mesh)
            outputs = network.run(self._workspace.borrow(pixels, rgb))
            selection = Selection(score_threshold, iou_threshold, bounds)
            return self._workspace.faces(outputs, network.quant_params, selection, dense)

    def detect_many(
        self,
        frames: Iterable[NDArray[np.uint8]],
        score_threshold: float = 0.5,
        iou_threshold: float = 0.4,
        rgb: bool = False,
        times: Times | None = None,
        mesh: bool = False,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> Iterator[Faces]:
        """The faces of each frame, in order, while the network already works on the next one.

        Frames are taken one ahead and only as results are asked for. Arguments and errors are those of `detect`; a
        message about a frame begins with its number, counted from 0. `times` accumulates the seconds of each
        part; pre- and post-processing run in parallel to the network.
        """
        check_thresholds(score_threshold, iou_threshold, bounds)
        with self._lock:
            self._open(mesh)
        selection = Selection(score_threshold, iou_threshold, bounds)
        return self._detect_many(frames, selection, rgb, Times() if times is None else times, mesh)

    def _detect_many(
        self,
        frames: Iterable[NDArray[np.uint8]],
        selection: Selection,
        rgb: bool,
        times: Times,
        mesh: bool,
    ) -> Iterator[Faces]:
        from concurrent.futures import Future, ThreadPoolExecutor

        workspaces = (_Workspace(self.spec), _Workspace(self.spec))
        in_flight: tuple[int, Future[float]] | None = None

        def finish(index: int, run: Future[float]) -> Faces:
            with _naming(index):
                times.inference += run.result()
                begin = time.perf_counter()
                workspace = workspaces[index % 2]
                network, dense = self._open(mesh)
                faces = workspace.faces(workspace.outputs, network.quant_params, selection, dense)
            times.post += time.perf_counter() - begin
            times.frames += 1
            return faces

        with ThreadPoolExecutor(1, "retinaface-edge") as network_thread:
            for index, frame in enumerate(frames):
                begin = time.perf_counter()
                workspace = workspaces[index % 2]
                with _naming(index):
                    workspace.prepare(check_frame(frame), rgb)
                times.pre += time.perf_counter() - begin
                previous, in_flight = in_flight, (index, network_thread.submit(self._run, workspace, mesh))
                if previous:
                    yield finish(*previous)
            if in_flight:
                yield finish(*in_flight)

    def _run(self, workspace: _Workspace, mesh: bool) -> float:
        """Run the network and keep its outputs, which another call may overwrite. Gives the seconds it took."""
        with self._turn():
            begin = time.perf_counter()
            workspace.keep(self._open(mesh)[0].run(workspace.image))
            return time.perf_counter() - begin

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One call at a time uses the network. A call from a signal handler that interrupted another is refused.

        The handler runs in the thread that it interrupts: waiting for the lock would be a deadlock.
        """
        with self._lock:
            if self._busy:
                raise BackendError("this detector is busy with a frame; a signal handler needs its own detector")
            try:
                self._busy = True
                yield
            finally:
                self._busy = False

    def _open(self, mesh: bool) -> tuple[backends.Network, DenseBranch | None]:
        """The network to run, and the dense branch if meshes are wanted."""
        if self._network is None:
            raise BackendError("this detector is closed; load it again")
        if not mesh:
            return self._network, None
        if self._featured is None or self._dense is None:
            if self._branch is None:
                raise BackendError("this detector was not loaded from a bundle, so it has no dense branch")
            from .mesh.branch import DenseBranch  # late: most programs ask for no mesh

            featured, branch = self._branch()
            self._dense = DenseBranch(self.spec, branch, featured.quant_params[len(self.spec.outputs) :])
            self._featured = featured
        return self._featured, self._dense


class _Workspace:
    """The memory of one frame on its way through: input, kept outputs, candidate mask, tables for recent sizes."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.image = np.empty(spec.input_shape, np.uint8)
        self.outputs: list[RawOutput] = []
        self._mask = np.empty(spec.level_bounds[-1], np.bool_)
        self._placement: Letterbox | None = None
        self._letterbox_for = lru_cache(FRAME_SIZES_KEPT)(lambda width, height: letterbox_for(spec, width, height))

    def prepare(self, pixels: NDArray[np.uint8], rgb: bool) -> None:
        """Write the frame into `image`."""
        self._placement = self._letterbox_for(pixels.shape[1], pixels.shape[0])
        letterbox(self.spec, self._placement, pixels, self.image, rgb)

    def borrow(self, pixels: NDArray[np.uint8], rgb: bool) -> NDArray[np.uint8]:
        """The input for the network while the caller waits: the frame's own memory if it has the input's form."""
        # OpenVINO takes only memory that it might write to, though it does not.
        if pixels.shape == self.image.shape[1:] and not rgb and pixels.flags.c_contiguous and pixels.flags.writeable:
            self._placement = self._letterbox_for(pixels.shape[1], pixels.shape[0])
            return pixels[np.newaxis]
        self.prepare(pixels, rgb)
        return self.image

    def keep(self, outputs: Sequence[RawOutput]) -> None:
        if len(self.outputs) != len(outputs):
            self.outputs = [np.empty_like(output) for output in outputs]
        for kept, output in zip(self.outputs, outputs, strict=True):
            np.copyto(kept, output)

    def faces(
        self,
        outputs: Sequence[RawOutput],
        quant_params: Sequence[QuantParams],
        selection: Selection,
        dense: DenseBranch | None,
    ) -> Faces:
        assert self._placement is not None
        faces = faces_of(self.spec, outputs, quant_params, self._placement, selection, self._mask)
        if dense is None:
            return faces
        return dense.add_meshes(faces, outputs[len(self.spec.outputs) :], self._placement)


@contextmanager
def _naming(index: int) -> Iterator[None]:
    """Errors raised inside name the frame."""
    try:
        yield
    except RetinaFaceEdgeError as error:
        raise type(error)(f"frame {index}: {error}") from error
    except Exception as error:  # whatever the backend's library raises
        raise BackendError(f"frame {index}: the network failed ({error})") from error
