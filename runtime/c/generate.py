"""C headers for one detector: pre- and postprocessing put together from parts, only what its contract needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..ops.box_centre_size import raw_limits
from ..ops.candidates import RAW_LIMIT
from ..spec import BoxCoding, Mesh, ScoreCoding, Spec

SOURCES = Path(__file__).parent
HEADER = "retinaface_edge.h"
EXAMPLE = "example.c"
MESH_HEADER = "retinaface_edge_mesh.h"
ALIGNED_LANDMARKS = 5
BLOCKS = frozenset({"landmarks", "no landmarks", "blend", "align"})
"""Names of the blocks, between comments, that only some headers have."""

_BOX_PARTS = {BoxCoding.CENTRE_SIZE: "box_centre_size.h", BoxCoding.DISTANCES: "box_distances.h"}
_SCORE_PARTS = {ScoreCoding.LOGIT: "score_logit.h", ScoreCoding.FACE_OBJECT: "score_face_object.h"}
_END = '#ifdef __cplusplus\n} /* extern "C" */\n#endif\n\n#endif\n'
_FIVE = "x then y: left eye, right eye, nose, left and right mouth corner"


def c_files(spec: Spec) -> dict[str, bytes]:
    """The files by name: the header for `spec`, the example program, the dense branch's header if there is one."""
    files = {HEADER: c_header(spec).encode(), EXAMPLE: _example(spec).encode()}
    return files if spec.mesh is None else {**files, MESH_HEADER: mesh_header(spec.mesh).encode()}


def c_header(spec: Spec) -> str:
    """The header with everything from a frame to its faces."""
    aligned = spec.landmarks == ALIGNED_LANDMARKS
    kept = _kept(spec)
    parts = [
        "letterbox.h",
        "anchors.h",
        _SCORE_PARTS[spec.score],
        _BOX_PARTS[spec.box_coding],
        *(["landmarks.h"] if spec.landmarks else []),
        "postprocess.h",
        *(["align.h"] if aligned else []),
    ]
    api = _without(_part("api.h"), BLOCKS - kept)
    api = _replaced(api, "/* <constants> */\n", _constants(spec))
    api = _replaced(api, "<heads>", ", ".join(head.name for head in spec.heads))
    if spec.landmarks:
        api = _replaced(api, "<order>", _FIVE if aligned else "x then y")
    bodies = [_without(_part(name), BLOCKS - kept) for name in parts]
    return "\n".join([api.rstrip() + "\n", *bodies, _END])


def mesh_header(mesh: Mesh) -> str:
    """The header of the dense branch, which includes the detector's."""
    constants = f"""\
#define RFE_MESH_CHANNELS {mesh.channels}
#define RFE_MESH_BATCH {mesh.batch}
#define RFE_MESH_VERTICES {mesh.vertices}
"""
    return _replaced(_part(MESH_HEADER), "/* <constants> */\n", constants)


def _example(spec: Spec) -> str:
    text = _without(_part(EXAMPLE), BLOCKS - _kept(spec))
    return _replaced(text, "<heads>", ", ".join(head.name for head in spec.heads))


def _kept(spec: Spec) -> frozenset[str]:
    """Blocks of the parts that a header for `spec` has."""
    needed = {
        "landmarks": spec.landmarks > 0,
        "no landmarks": spec.landmarks == 0,
        "blend": spec.landmarks > 0 and spec.blend_landmarks,
        "align": spec.landmarks == ALIGNED_LANDMARKS,
    }
    return frozenset(name for name, kept in needed.items() if kept)


def _constants(spec: Spec) -> str:
    most = max(len(sizes) for sizes in spec.anchor_sizes)
    padded = [_braced((*sizes, *(0,) * (most - len(sizes)))) for sizes in spec.anchor_sizes]
    lines = [
        f"#define RFE_INPUT_WIDTH {spec.width}",
        f"#define RFE_INPUT_HEIGHT {spec.height}",
        f"#define RFE_HEADS {len(spec.heads)}",
        f"#define RFE_LEVELS {len(spec.strides)}",
        f"#define RFE_ANCHORS {spec.level_bounds[-1]}",
        f"#define RFE_ORIGIN {float(spec.origin)!r}",
        *([f"#define RFE_LANDMARKS {spec.landmarks}"] if spec.landmarks else []),
        *([f"#define RFE_OBJECT_HEAD {len(spec.heads) - 1}"] if spec.score is ScoreCoding.FACE_OBJECT else []),
        f"static const uint8_t rfe_padding[3] = {_braced(spec.padding_colour)};",
        f"static const int32_t rfe_channels[RFE_HEADS] = {_braced(head.channels for head in spec.heads)};",
        f"static const int32_t rfe_strides[RFE_LEVELS] = {_braced(spec.strides)};",
        f"static const int32_t rfe_sizes[RFE_LEVELS] = {_braced(len(sizes) for sizes in spec.anchor_sizes)};",
        f"static const double rfe_variances[2] = {_braced(map(float, spec.variances))};",
    ]
    if spec.box_coding is BoxCoding.CENTRE_SIZE:
        lines += [
            f"#define RFE_SIDE_LIMIT {raw_limits(spec, RAW_LIMIT)[2]!r}",
            f"static const double rfe_anchor_sizes[RFE_LEVELS][{most}] = {{{', '.join(padded)}}};",
        ]
    return "\n".join(lines) + "\n"


def _braced(values: Iterable[float]) -> str:
    return "{" + ", ".join(repr(value) for value in values) + "}"


def _part(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def _without(text: str, blocks: frozenset[str]) -> str:
    """The text without the blocks of those names, and without the marks of the others."""
    for name in blocks:
        text = re.sub(rf" */\* <{name}> \*/\n.*?/\* </{name}> \*/\n", "", text, flags=re.S)
    return re.sub(rf" */\* </?({'|'.join(sorted(BLOCKS))})> \*/\n", "", text)


def _replaced(text: str, mark: str, by: str) -> str:
    assert text.count(mark) == 1, mark
    return text.replace(mark, by)
