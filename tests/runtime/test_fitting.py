"""Which input size of a bundle a frame goes to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retinaface_edge.runtime.fitting import fitting_size

sides = st.integers(64, 2000)
size_lists = st.lists(st.tuples(sides, sides), min_size=1, max_size=5, unique=True)


def kept(size: tuple[int, int], width: int, height: int) -> float:
    return min(size[0] / width, size[1] / height, 1.0)


@given(size_lists, st.integers(1, 4000), st.integers(1, 4000))
def test_no_other_size_keeps_more_of_the_frame_nor_as_much_with_fewer_pixels(
    sizes: list[tuple[int, int]], width: int, height: int
) -> None:
    chosen = fitting_size(sizes, width, height)
    for size in sizes:
        assert kept(size, width, height) <= kept(chosen, width, height)
        if kept(size, width, height) == kept(chosen, width, height):
            assert size[0] * size[1] >= chosen[0] * chosen[1]


def test_frames_go_to_the_size_of_their_shape() -> None:
    sizes = [(640, 480), (320, 256), (480, 640)]
    assert fitting_size(sizes, 320, 240) == (320, 256)
    assert fitting_size(sizes, 1920, 1080) == (640, 480)
    assert fitting_size(sizes, 1080, 1920) == (480, 640)
