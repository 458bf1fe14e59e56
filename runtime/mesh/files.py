"""Meshes as files that MeshLab and Blender open: OBJ with a texture taken from the picture, PLY with colours, JSON.

Files have y up and z to the viewer, as those programs do; x and y are otherwise pixels of the frame.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .branch import head_pose
from .topology import topology

FORMATS = ("obj", "ply", "json")
TEXTURE = 256


def mesh_files(
    kind: str, name: str, vertices: NDArray[np.float64], frame: NDArray[np.uint8], rgb: bool = False
) -> dict[str, bytes]:
    """The files of one face by name: `name`.obj with its .mtl and .png, `name`.ply or `name`.json.

    `vertices` (468, 3) in pixels of `frame`, uint8 (h, w, 3) in BGR (RGB if `rgb`) or (h, w).
    """
    pixels = np.repeat(frame[:, :, np.newaxis], 3, axis=2) if frame.ndim == 2 else frame[:, :, :: 1 if rgb else -1]
    if kind == "obj":
        return _obj(name, vertices, pixels)
    if kind == "ply":
        return {f"{name}.ply": _ply(vertices, pixels)}
    return {f"{name}.json": (json.dumps(mesh_json(vertices)) + "\n").encode()}


def mesh_json(vertices: NDArray[np.float64]) -> dict[str, Any]:
    """`vertices` as lists, in pixels of the frame with y down as everywhere else, with pose, triangles and uv."""
    pose: Mapping[str, float] = head_pose(vertices)._asdict()
    return {
        "vertices": [[round(value, 3) for value in vertex] for vertex in vertices.tolist()],
        "pose": {name: round(value, 2) for name, value in pose.items()},
        "triangles": topology().triangles.tolist(),
        "uv": topology().uv.tolist(),
    }


def sample_texture(vertices: NDArray[np.float64], pixels: NDArray[np.uint8], side: int = TEXTURE) -> NDArray[np.uint8]:
    """The face unrolled: uint8 (side, side, 3), by each triangle's uv, bilinear in the picture, black off the face."""
    texture = np.zeros((side, side, 3), np.uint8)
    y, x = np.mgrid[:side, :side]
    uv = topology().uv * side - 0.5
    for triangle in topology().triangles:
        corners = uv[triangle]
        low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, side)
        block = np.s_[low[1] : high[1], low[0] : high[0]]
        weights = barycentric(corners, np.stack([x[block], y[block]], axis=-1).astype(np.float64))
        inside = np.all(weights >= -1e-9, axis=-1)
        texture[block][inside] = _bilinear(pixels, weights[inside] @ vertices[triangle, :2])
    return texture


def barycentric(corners: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (…, 3) of the triangle `corners` (3, 2) at `points` (…, 2); all are −1 where it has no area."""
    a, b = corners[1] - corners[0], corners[2] - corners[0]
    area = a[0] * b[1] - a[1] * b[0]
    if area == 0.0:
        return np.full((*points.shape[:-1], 3), -1.0)
    offset = points - corners[0]
    second = (offset[..., 0] * b[1] - offset[..., 1] * b[0]) / area
    third = (a[0] * offset[..., 1] - a[1] * offset[..., 0]) / area
    return np.stack([1.0 - second - third, second, third], axis=-1)


def _obj(name: str, vertices: NDArray[np.float64], pixels: NDArray[np.uint8]) -> dict[str, bytes]:
    from PIL import Image

    lines = [f"mtllib {name}.mtl", f"o {name}"]
    lines += [f"v {x:.3f} {-y:.3f} {-z:.3f}" for x, y, z in vertices.tolist()]
    lines += [f"vt {u:.6f} {1.0 - v:.6f}" for u, v in topology().uv.tolist()]
    lines.append("usemtl face")
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in (topology().triangles + 1).tolist()]
    picture = io.BytesIO()
    Image.fromarray(sample_texture(vertices, pixels)).save(picture, "PNG")
    return {
        f"{name}.obj": ("\n".join(lines) + "\n").encode(),
        f"{name}.mtl": f"newmtl face\nKd 1 1 1\nmap_Kd {name}.png\n".encode(),
        f"{name}.png": picture.getvalue(),
    }


def _ply(vertices: NDArray[np.float64], pixels: NDArray[np.uint8]) -> bytes:
    triangles = topology().triangles
    head = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    head += [f"property float {axis}" for axis in "xyz"] + ["property float s", "property float t"]
    head += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    head += [f"element face {len(triangles)}", "property list uchar int vertex_indices", "end_header"]
    colours = _bilinear(pixels, vertices[:, :2]).tolist()
    rows = [
        f"{x:.3f} {-y:.3f} {-z:.3f} {u:.6f} {1.0 - v:.6f} {red} {green} {blue}"
        for (x, y, z), (u, v), (red, green, blue) in zip(
            vertices.tolist(), topology().uv.tolist(), colours, strict=True
        )
    ]
    faces = [f"3 {a} {b} {c}" for a, b, c in triangles.tolist()]
    return ("\n".join([*head, *rows, *faces]) + "\n").encode()


def _bilinear(pixels: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours (n, 3) at `points` (n, 2), (0, 0) being the corner of the first pixel; the edge repeated outside."""
    height, width = pixels.shape[:2]
    x, y = np.clip(points[:, 0] - 0.5, 0, width - 1), np.clip(points[:, 1] - 0.5, 0, height - 1)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[:, np.newaxis], (y - top)[:, np.newaxis]
    upper = pixels[top, left] * (1 - across) + pixels[top, right] * across
    lower = pixels[bottom, left] * (1 - across) + pixels[bottom, right] * across
    return np.asarray(np.rint(upper * (1 - down) + lower * down), np.uint8)
