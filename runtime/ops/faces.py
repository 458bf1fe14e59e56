"""The faces of one frame, as arrays and one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError

if TYPE_CHECKING:
    import pandas
    import supervision

HTML_ROWS = 50
"""Faces that a notebook shows."""


@dataclass(frozen=True)
class Face:
    """One face, in pixels of the frame; (0, 0) is the frame's top left corner. The box may reach outside the frame.

    Five `landmarks` are the left eye, right eye, nose, left and right mouth corner, left and right as seen in the
    picture; a detector may have another number of them, or none.
    """

    score: float
    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    vertices: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    """(468, 3) where meshes were asked for: in pixels of the frame, depth away from the viewer."""


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of one frame, best first: `scores` (n,), `boxes` (n, 4) as x1, y1, x2, y2, `landmarks` (n, k, 2).

    All float64; coordinates in pixels of the frame. `k` is the detector's number of landmarks, five for most.
    `vertices` (n, 468, 3) only where meshes were asked for. Iterating or indexing gives `Face`.
    """

    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    vertices: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int) -> Face:
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return Face(
            score=float(self.scores[index]),
            box=(x1, y1, x2, y2),
            landmarks=tuple((x, y) for x, y in self.landmarks[index].tolist()),
            vertices=None if self.vertices is None else self.vertices[index],
        )

    def __iter__(self) -> Iterator[Face]:
        return (self[index] for index in range(len(self)))

    def clipped(self, width: float, height: float) -> Faces:
        """The same faces with boxes that end at the edges of a frame of that size. Landmarks stay where they are."""
        boxes = np.clip(self.boxes, 0.0, np.array([width, height, width, height], np.float64))
        return Faces(self.scores, boxes, self.landmarks, self.vertices)

    def to_dict(self) -> list[dict[str, Any]]:
        """One dictionary per face, of plain numbers and lists: `score`, `box`, `landmarks`, and `vertices` if any."""
        records: list[dict[str, Any]] = [
            {"score": score, "box": box, "landmarks": landmarks}
            for score, box, landmarks in zip(
                self.scores.tolist(), self.boxes.tolist(), self.landmarks.tolist(), strict=True
            )
        ]
        if self.vertices is not None:
            for record, vertices in zip(records, self.vertices.tolist(), strict=True):
                record["vertices"] = vertices
        return records

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per face: score, x1, y1, x2, y2, then landmark_1_x, landmark_1_y and so on.

        Needs pandas. Raises `ImportError` where it is not installed.
        """
        import pandas

        return pandas.DataFrame(self.table(), columns=column_names(self.landmarks.shape[1]))

    def to_supervision(self, ids: NDArray[np.int64] | None = None) -> supervision.Detections:
        """The faces for the package supervision, which annotates, counts and tracks detections.

        All are of class 0, named `face`. `ids` (n,), as a `Tracker` gives them, become `tracker_id`. `data` has the
        landmarks, float64 (n, k, 2), and the vertices if any. Raises `BackendError` where supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise BackendError("faces for supervision need that package; run: pip install supervision") from error
        data: dict[str, NDArray[Any] | list[Any]] = {
            "class_name": np.full(len(self), "face"),
            "landmarks": self.landmarks,
        }
        if self.vertices is not None:
            data["vertices"] = self.vertices
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32),
            confidence=self.scores.astype(np.float32),
            class_id=np.zeros(len(self), int),
            tracker_id=ids,
            data=data,
        )

    def table(self) -> NDArray[np.float64]:
        """(n, 5 + 2 k), in the order of `column_names`."""
        return np.column_stack(
            [self.scores, self.boxes, self.landmarks.reshape(len(self), 2 * self.landmarks.shape[1])]
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: one row per face."""
        import html

        rows = "".join(
            f"<tr><td>{index}</td><td>{face.score:.3f}</td>"
            f"<td>{html.escape(', '.join(f'{side:.0f}' for side in face.box))}</td></tr>"
            for index, face in zip(range(HTML_ROWS), self, strict=False)
        )
        more = f"<p>and {len(self) - HTML_ROWS} more</p>" if len(self) > HTML_ROWS else ""
        head = "<tr><th></th><th>score</th><th>x1, y1, x2, y2</th></tr>"
        return f"<p>{len(self)} face{'' if len(self) == 1 else 's'}</p><table>{head}{rows}</table>{more}"


def column_names(landmarks: int) -> list[str]:
    """The columns of a table of faces with that number of landmarks."""
    points = [f"landmark_{number}_{axis}" for number in range(1, landmarks + 1) for axis in "xy"]
    return ["score", "x1", "y1", "x2", "y2", *points]
