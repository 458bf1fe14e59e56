"""Label files as people have them: every form says the same, and what is wrong is named by its line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinaface_edge.cli.main import main
from retinaface_edge.training.errors import TrainingError
from retinaface_edge.training.finetune import MIRROR
from retinaface_edge.training.label_files import read_labels, summary
from retinaface_edge.training.losses import Targets, multi_task

BOX = [10, 20, 30, 40]
POINTS = [[15, 25], [35, 26], [25, 35], [17, 50], [33, 51]]
FLAT = " ".join(f"{x} {y}" for x, y in POINTS)
FLAGGED = " ".join(f"{x} {y} {flag}" for (x, y), flag in zip(POINTS, (0, 1, 0, 1, 0), strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one of them in a folder with a space in its name."""
    (tmp_path / "my set").mkdir()
    for name in ("a.png", "my set/b c.png"):
        Image.new("RGB", (96, 96)).save(tmp_path / name)
    return tmp_path


def written(folder: Path, content: str | bytes, name: str = "label.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("face", "known"),
    [
        ("10 20 30 40", False),
        ("10 20 30 40 0.9", False),
        ("10 20 30 40 1 0 0 0 2 1", False),
        (f"10 20 30 40 {FLAT}", True),
        (f"10 20 30 40 {FLAT} 0.8", True),
        (f"10 20 30 40 {FLAGGED}", True),
        (f"10 20 30 40 {FLAGGED} 0.5", True),
        (f"10.0, 20.0, 30, 40, {FLAT.replace(' ', ',')}", True),
        ("10\t20  30 40 ", False),
    ],
)
@pytest.mark.parametrize("header", ["# {path}", "#{path}  ", "{path}\n1"])
@pytest.mark.parametrize("path", ["my set/b c.png", "my set\\b c.png"])
@pytest.mark.parametrize(("mark", "end"), [("", "\n"), ("\ufeff", "\r\n"), ("", "\r")])
def test_every_form_gives_the_same_face(
    folder: Path, face: str, known: bool, header: str, path: str, mark: str, end: str
) -> None:
    text = f"{mark}{header.format(path=path)}\n{face}\n\n".replace("\n", end)
    (picture,) = read_labels(written(folder, text))
    assert picture.path == folder / "my set" / "b c.png"
    np.testing.assert_array_equal(picture.boxes, [[10, 20, 40, 60]])
    np.testing.assert_array_equal(picture.visible, [[known] * 5])
    np.testing.assert_array_equal(picture.landmarks, [POINTS if known else np.zeros((5, 2))])


def test_the_official_form_of_wider_face_is_read(folder: Path) -> None:
    zeros = "0 0 0 0 0 0 0 0 0 0"
    first = "a.png\n2\n10 20 30 40 0 0 0 0 0 0\n1 2 3 4 0 0 0 1 0 0\n"
    text = f"{first}my set/b c.png\n0\n{zeros}\na.png\n1\n5 5 9 9 {zeros[8:]}\n"
    pictures = read_labels(written(folder, text))
    assert [picture.boxes.tolist() for picture in pictures] == [[[10, 20, 40, 60]], [], [[5, 5, 14, 14]]]
    assert [picture.left_out for picture in pictures] == [1, 0, 0]
    assert summary(pictures) == (
        "pictures: 3, faces: 2, with landmarks: 0 (0 points), left out: 1 (without area or marked as invalid)"
    )


def test_pictures_may_be_in_another_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = written(tmp_path_factory.mktemp("elsewhere"), "# a.png\n1 2 3 4\n")
    with pytest.raises(TrainingError, match=r"a\.png, which is not in"):
        read_labels(file)
    assert read_labels(file, folder)[0].path == folder / "a.png"


@pytest.mark.parametrize(
    ("line", "face"),
    [
        ("flat", f"10 20 30 40 {FLAT.replace('35 26', '35 -2')}"),
        ("flagged", f"10 20 30 40 {FLAGGED.replace('35 26 1', '35 26 -1')}"),
        ("both", f"10 20 30 40 {FLAGGED.replace('35 26 1', '-1 -1 -1')}"),
    ],
)
def test_a_negative_coordinate_drops_one_point_and_not_five(folder: Path, line: str, face: str) -> None:
    (picture,) = read_labels(written(folder, f"# a.png\n{face}\n"))
    np.testing.assert_array_equal(picture.visible, [[True, False, True, True, True]])
    assert summary([picture]) == "pictures: 1, faces: 1, with landmarks: 1 (4 points)"
    box = BOX[0], BOX[1], BOX[0] + BOX[2], BOX[1] + BOX[3]
    points = [value for point in POINTS for value in point]
    points[3] = -2
    content = [{"file": "a.png", "faces": [{"box_xyxy": box, "landmarks_xy": points}, {"box_xyxy": box}]}]
    (picture,) = read_labels(written(folder, "\ufeff" + json.dumps(content), "label.JSON"))
    np.testing.assert_array_equal(picture.visible, [[True, False, True, True, True], [False] * 5])


def test_an_unknown_point_is_no_part_of_the_loss_and_the_others_are() -> None:
    def landmark_loss(given: torch.Tensor, visible: list[bool]) -> float:
        label = torch.tensor([1, 0])
        shown = torch.tensor([visible, [False] * 5])
        targets = Targets(label, torch.zeros(2, 4), torch.zeros(2, 10), shown)
        return float(multi_task(torch.zeros(2, 2), torch.zeros(2, 4), given, targets).landmark)

    landmarks = torch.zeros(2, 10)
    landmarks[0, 2] = 100.0  # x of the second point
    assert landmark_loss(landmarks, [True, False, True, True, True]) == 0.0
    assert landmark_loss(landmarks, [True] * 5) == pytest.approx(99.5)
    # The loss of a face is as large with four points of equal error as with five.
    even = torch.full((2, 10), 3.0)
    assert landmark_loss(even, [True] * 5) == pytest.approx(landmark_loss(even, [True, True, False, True, True]))


def test_mirrored_landmarks_change_sides() -> None:
    assert [MIRROR[index] for index in MIRROR] == list(range(5))
    assert MIRROR[2] == 2 and MIRROR[0] == 1 and MIRROR[3] == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# a.png\n1 2 3 4\n1 2 3\n", "line 3: 3 numbers; a face has one of 4, 5, 10, 14, 15, 19, 20"),
        ("# a.png\r\n\r\n1 2 x 4\r\n", "line 3: '1 2 x 4' is not a face"),
        ("# a.png\n1 2 3 nan\n", "line 2: '1 2 3 nan' is not a face"),
        ("#\n1 2 3 4\n", "line 1: there is no path"),
        ("1 2 3 4\n", "line 1: '1 2 3 4' is a face without a picture"),
        ("a.png\n2\n1 2 3 4\n", "line 2: 2 faces, but the file ends after 1"),
        ("a.png\n1 2 3 4\n", "line 1: 'a.png' is neither a face nor a path"),
        ("a.png\n1\n1 2 3 4\n5 6 7 8\n", "line 4: '5 6 7 8' is a face without a picture"),
        ("a.png\n999999999999\n", "line 1"),
        ("a.png", "line 1"),
        ("", "has no face"),
        ("# a.png\n0 0 0 0\n", "has no face"),
        (b"\xff\xfe\x00", "is not a label file"),
    ],
)
def test_a_bad_line_is_named_by_its_number(folder: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(TrainingError) as raised:
        read_labels(written(folder, content))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_the_counts_are_printed_before_anything_is_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(folder, f"# a.png\n10 20 30 40 {FLAT}\n1 1 9 9\n")
    arguments = ["train", "--labels", str(file), "--output", str(folder / "m.pth"), "--size", "96x64", "--steps", "1"]
    assert main([*arguments, "--batch", "1", "--threads", "1"]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "pictures: 1, faces: 2, with landmarks: 1 (5 points)"
