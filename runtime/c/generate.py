"""The C twin of pre- and post-processing, written out for one spec: what a bundle carries in `c/`."""

from __future__ import annotations

import re
from pathlib import Path

from ..spec import Mesh, Spec

SOURCES = Path(__file__).parent
HEADER = "retinaface_edge.h"
EXAMPLE = "example.c"
MESH_HEADER = "retinaface_edge_mesh.h"

_CONSTANTS = re.compile(
    r"(?<=/\* <constants> of the detector that this header was written for \*/\n).*?(?=/\* </constants>)", re.S
)
_MESH_CONSTANTS = re.compile(
    r"(?<=/\* <constants> of the dense branch that this header was written for \*/\n).*?(?=/\* </constants>)", re.S
)


def c_files(spec: Spec) -> dict[str, bytes]:
    """The files by name: the header with the constants of `spec`, the example program, the dense branch's header."""
    files = {HEADER: c_header(spec).encode(), EXAMPLE: (SOURCES / EXAMPLE).read_bytes()}
    return files if spec.mesh is None else {**files, MESH_HEADER: mesh_header(spec.mesh).encode()}


def mesh_header(mesh: Mesh) -> str:
    """The C99 header of the dense branch; that of the default `Mesh` is the file in `runtime/c`."""
    constants = f"""\
#define RFE_MESH_CHANNELS {mesh.channels}
#define RFE_MESH_BATCH {mesh.batch}
#define RFE_MESH_VERTICES {mesh.vertices}
"""
    text, replaced = _MESH_CONSTANTS.subn(lambda match: constants, (SOURCES / MESH_HEADER).read_text(encoding="utf-8"))
    assert replaced == 1
    return text


def c_header(spec: Spec) -> str:
    """The C99 header with the constants of `spec`; that of the default spec is the file in `runtime/c`."""
    text, replaced = _CONSTANTS.subn(lambda match: _constants(spec), (SOURCES / HEADER).read_text(encoding="utf-8"))
    assert replaced == 1
    return text


def _constants(spec: Spec) -> str:
    most = max(len(sizes) for sizes in spec.anchor_sizes)
    padded = [_braced((*sizes, *(0,) * (most - len(sizes)))) for sizes in spec.anchor_sizes]
    return f"""\
#define RFE_INPUT_WIDTH {spec.width}
#define RFE_INPUT_HEIGHT {spec.height}
#define RFE_LEVELS {len(spec.strides)}
#define RFE_ANCHORS {len(spec.anchors)}
#define RFE_MAX_SIZES {most}
static const uint8_t rfe_mean[3] = {_braced(spec.mean)};
static const int32_t rfe_strides[RFE_LEVELS] = {_braced(spec.strides)};
static const int32_t rfe_sizes[RFE_LEVELS] = {_braced(tuple(len(sizes) for sizes in spec.anchor_sizes))};
static const double rfe_anchor_sizes[RFE_LEVELS][RFE_MAX_SIZES] = {{{", ".join(padded)}}};
static const double rfe_variances[2] = {_braced(spec.variances)};
"""


def _braced(values: tuple[float, ...]) -> str:
    return "{" + ", ".join(repr(value) for value in values) + "}"
