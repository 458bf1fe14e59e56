"""Contracts of published detectors, on a small input, for tests of what must hold for each."""

from __future__ import annotations

from retinaface_edge.runtime.spec import BoxCoding, Colour, ScoreCoding, Spec

RETINAFACE = Spec(96, 64)
SLIM = Spec(
    96,
    64,
    strides=(8, 16, 32, 64),
    anchor_sizes=((10, 16, 24), (32, 48), (64, 96), (128, 192, 256)),
)
SCRFD = Spec(
    96,
    64,
    mean=(127.5, 127.5, 127.5),
    std=(128, 128, 128),
    colour=Colour.RGB,
    padding=(0, 0, 0),
    variances=(1.0, 1.0),
    origin=0.0,
    box_coding=BoxCoding.DISTANCES,
    blend_landmarks=False,
)
SCRFD_BOXES = Spec(96, 64, variances=(1.0, 1.0), origin=0.0, box_coding=BoxCoding.DISTANCES, landmarks=0)
YUNET = Spec(
    96,
    64,
    mean=(0, 0, 0),
    anchor_sizes=((8,), (16,), (32,)),
    variances=(1.0, 1.0),
    origin=0.0,
    score=ScoreCoding.FACE_OBJECT,
)
DENSE_LANDMARKS = Spec(96, 64, anchor_sizes=((16,), (64, 100, 128), (256,)), landmarks=68)
DISTANCES_WITH_OBJECT = Spec(
    64,
    96,
    variances=(1.0, 1.0),
    box_coding=BoxCoding.DISTANCES,
    score=ScoreCoding.FACE_OBJECT,
    landmarks=0,
)
SPECS = {
    "retinaface": RETINAFACE,
    "slim": SLIM,
    "scrfd": SCRFD,
    "scrfd-boxes": SCRFD_BOXES,
    "yunet": YUNET,
    "68-landmarks": DENSE_LANDMARKS,
    "distances-object": DISTANCES_WITH_OBJECT,
}
