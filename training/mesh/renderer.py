"""A small differentiable renderer for the pixel loss: camera, illumination and a rasteriser.

Which triangle each pixel shows is found with a depth buffer and is a constant; where in the triangle the pixel lies,
and so its colour, is differentiable by vertices, colours, camera and light. The paper's loss is the mean absolute
difference to the picture over the pixels that show the face (RetinaFace, arXiv 1905.00641, equation 3).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from retinaface_edge.runtime.mesh.topology import topology

Array = TypeVar("Array", Tensor, NDArray[np.float64])


def look(vertices: Tensor, camera: Tensor) -> Tensor:
    """Vertices (v, 3) as a camera (7,) sees them: place (3), turn about x, y and z in radians (3), log focal length.

    Weak perspective: after rotation and shift, x and y are multiplied by the focal length; depth stays.
    """
    place, (a, b, c), focal = camera[:3], camera[3:6], camera[6].exp()
    one, zero = torch.ones_like(a), torch.zeros_like(a)
    about_x = torch.stack([one, zero, zero, zero, a.cos(), -a.sin(), zero, a.sin(), a.cos()]).reshape(3, 3)
    about_y = torch.stack([b.cos(), zero, b.sin(), zero, one, zero, -b.sin(), zero, b.cos()]).reshape(3, 3)
    about_z = torch.stack([c.cos(), -c.sin(), zero, c.sin(), c.cos(), zero, zero, zero, one]).reshape(3, 3)
    seen = vertices @ (about_z @ about_x @ about_y).T - place
    return torch.cat([seen[:, :2] * focal, seen[:, 2:]], dim=1)


def shade(vertices: Tensor, colours: Tensor, illumination: Tensor) -> Tensor:
    """Colours (v, 3) under a point light: its place (3), its colour (3), and the ambient colour (3).

    Lambert's law with the normals of vertices, which are the area-weighted means of their triangles'.
    """
    place, light, ambient = illumination[:3], illumination[3:6], illumination[6:]
    triangles = torch.from_numpy(topology().triangles)
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    normal = torch.linalg.cross(b - a, c - a)
    summed = torch.zeros_like(vertices)
    for corner in range(3):
        summed = summed.index_add(0, triangles[:, corner], normal)
    # In pictures y is down and z away, which is a half turn about x: the winding still has normals pointing outside.
    towards = functional.normalize(place - vertices, dim=1)
    facing = (functional.normalize(summed, dim=1) * towards).sum(dim=1, keepdim=True).clamp_min(0.0)
    return colours * (ambient + light * facing)


def rasterise(vertices: Tensor, colours: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The picture (side, side, 3) of coloured `vertices` (468, 3) in pixels, and which pixels show the face.

    The nearer triangle hides the farther; triangles that face away hide nothing less.
    """
    which = visible(vertices.detach().cpu().numpy().astype(np.float64), side)
    shown = torch.from_numpy(which >= 0)
    rows, columns = torch.nonzero(shown, as_tuple=True)
    corners = torch.from_numpy(topology().triangles)[torch.from_numpy(which[which >= 0])]
    points = torch.stack([columns, rows], dim=1).to(vertices.dtype) + 0.5
    a, b, c = (vertices[corners[:, corner], :2] for corner in range(3))
    area = _cross(b - a, c - a)
    weights = torch.stack([_cross(b - points, c - points), _cross(c - points, a - points)], dim=1) / area[:, None]
    weights = torch.cat([weights, 1.0 - weights.sum(dim=1, keepdim=True)], dim=1)
    picture = torch.zeros(side, side, 3, dtype=vertices.dtype)
    picture = picture.index_put((rows, columns), (weights[..., None] * colours[corners]).sum(dim=1))
    return picture, shown


def visible(vertices: NDArray[np.float64], side: int) -> NDArray[np.int64]:
    """Which triangle each pixel (side, side) shows, by depth at pixel centres; −1 for none.

    All triangles at once: each looks at a square of pixels that is as large as the largest triangle's.
    """
    corners = vertices[topology().triangles]
    a, b, c = (corners[:, corner, :2] for corner in range(3))
    area = _cross(b - a, c - a)
    low = np.clip(np.floor(corners[..., :2].min(axis=1)).astype(np.int64), 0, side)
    high = np.clip(np.ceil(corners[..., :2].max(axis=1)).astype(np.int64) + 1, 0, side)
    reach = np.arange(max(int((high - low).max()), 0))
    x, y = np.broadcast_arrays(low[:, :1, None] + reach, low[:, 1:, None] + reach[:, np.newaxis])
    index = np.broadcast_to(np.arange(len(corners))[:, None, None], x.shape)
    near = (x < high[:, :1, None]) & (y < high[:, 1:, None]) & (area != 0.0)[:, None, None]
    x, y, index = x[near], y[near], index[near]
    points = np.stack([x, y], axis=1) + 0.5
    a, b, c = a[index], b[index], c[index]
    weights = np.stack([_cross(b - points, c - points), _cross(c - points, a - points)], axis=1) / area[index, None]
    weights = np.concatenate([weights, 1.0 - weights.sum(axis=1, keepdims=True)], axis=1)
    inside = np.all(weights >= 0.0, axis=1)
    x, y, index = x[inside], y[inside], index[inside]
    depth = (weights[inside] * corners[index, :, 2]).sum(axis=1)
    shown = np.full((side, side), -1, np.int64)
    nearest_last = np.lexsort((-index, -depth))  # of values assigned to one pixel, the last stays
    shown[y[nearest_last], x[nearest_last]] = index[nearest_last]
    return shown


def pixel_loss(vertices: Tensor, colours: Tensor, camera: Tensor, illumination: Tensor, picture: Tensor) -> Tensor:
    """Mean absolute difference between the rendered face and `picture` (side, side, 3), both 0…1, where there is one.

    `vertices` (468, 3) are in units of the picture's side from its centre; 0 when no pixel shows the face.
    """
    side = picture.shape[0]
    seen = look(vertices, camera)
    placed = torch.cat([(seen[:, :2] + 0.5) * side, seen[:, 2:] * side], dim=1)
    rendered, shown = rasterise(placed, shade(seen, colours, illumination), side)
    count = int(shown.sum())
    return (rendered - picture).abs().mean(dim=2)[shown].sum() / max(count, 1)


def _cross(a: Array, b: Array) -> Array:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
