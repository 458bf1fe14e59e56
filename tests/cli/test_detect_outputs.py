"""What `detect` takes and writes: formats, folders and lists; crops, covered faces, CSV, clipped boxes, ids."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.io.anonymise import anonymise
from retinaface_edge.runtime.io.images import read_image

RGB = portrait()[:, :, ::-1]


@pytest.fixture
def astronaut(tmp_path: Path) -> Path:
    Image.fromarray(RGB).save(tmp_path / "astronaut.png")
    return tmp_path / "astronaut.png"


@pytest.mark.parametrize("ending", ["webp", "bmp", "tiff", "gif", "png", "jpg"])
def test_formats_are_told_by_content(ending: str, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / f"a.{ending}")
    (tmp_path / f"a.{ending}").rename(tmp_path / "a.dat")
    assert np.abs(read_image(tmp_path / "a.dat").astype(int) - portrait()).mean() < 8


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tiff"])
def test_of_an_animation_the_first_frame_is_taken(ending: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
    assert np.abs(read_image(tmp_path / f"a.{ending}").astype(int) - (0, 0, 255)).max() < 8


def test_a_folder_is_searched_by_content_and_what_is_skipped_is_said(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "0"  # a number, and still a folder
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(RGB).save(folder / "deep" / "a.webp")
    Image.fromarray(RGB).save(folder / "b.png")
    (folder / "b.png").rename(folder / "b")
    (folder / "notes.jpg").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    assert main(["detect", str(bundle.path), "0", "--json", "faces.jsonl"]) == 0
    records = [json.loads(line) for line in (tmp_path / "faces.jsonl").read_text().splitlines()]
    assert [record["image"] for record in records] == ["0/b", "0/deep/a.webp"]
    assert all(len(record["faces"]) == 1 for record in records)
    assert "skipped, not a picture: 0/notes.jpg" in capsys.readouterr().err


def test_a_text_file_lists_pictures_by_paths_beside_it(
    bundle: Bundle, astronaut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = astronaut.parent / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbf# ours\r\nastronaut.png\r\n\r\n")
    assert main(["detect", str(bundle.path), str(listed)]) == 0
    assert "1 face" in capsys.readouterr().out
    listed.write_text("astronaut.png\nnone.png\n")
    assert main(["detect", str(bundle.path), str(listed)]) == 2
    assert "list.txt, line 2: none.png does not exist" in capsys.readouterr().err


def test_crops_are_aligned(bundle: Bundle, astronaut: Path, tmp_path: Path) -> None:
    assert main(["detect", str(bundle.path), str(astronaut), "--crops", str(tmp_path / "crops")]) == 0
    crop = np.asarray(Image.open(tmp_path / "crops" / "astronaut-0.png"))
    assert crop.shape == (112, 112, 3)
    large = np.asarray(Image.fromarray(crop).resize((336, 336)))[:, :, ::-1]
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[72:408, 152:488] = large
    (face,) = Detector.load(bundle).detect(frame)
    left, right = np.array(face.landmarks[:2])
    assert abs(left[1] - right[1]) < 12, "eyes are level"


def test_a_covered_face_is_found_by_nobody_and_has_no_detail(bundle: Bundle, astronaut: Path, tmp_path: Path) -> None:
    assert main(["detect", str(bundle.path), str(astronaut), "--blur", str(tmp_path / "out")]) == 0
    covered = read_image(tmp_path / "out" / "astronaut.png")
    detector = Detector.load(bundle, "onnxruntime", "fp32")
    (face,) = detector.detect(portrait())
    assert len(detector.detect(covered, 0.1)) == 0
    for scale in (2, 3):
        larger = np.asarray(Image.fromarray(covered[:300, 80:380]).resize((300 * scale, 300 * scale)))
        assert len(detector.detect(larger)) == 0
    x1, y1, x2, y2 = (round(side) for side in face.box)
    inside = covered[y1:y2, x1:x2].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) <= 9
    outside = np.ones(covered.shape[:2], bool)
    outside[y1 - 40 : y2 + 40, x1 - 40 : x2 + 40] = False
    np.testing.assert_array_equal(covered[outside], portrait()[outside])


def test_faces_at_the_border_are_covered_too() -> None:
    from retinaface_edge.runtime import Faces

    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    boxes = np.array([[-20.0, -10, 15, 30], [70, 50, 200, 90], [300, 300, 400, 400]])
    covered = anonymise(frame, Faces(np.ones(3), boxes, np.full((3, 0, 2), 0.0)))
    for part in (covered[:30, :15], covered[50:, 70:]):
        assert len(np.unique(part.reshape(-1, 3), axis=0)) <= 9


def test_csv_has_one_row_per_face_with_the_figures_of_the_json(bundle: Bundle, astronaut: Path, tmp_path: Path) -> None:
    table, lines = tmp_path / "faces.csv", tmp_path / "faces.jsonl"
    arguments = ["detect", str(bundle.path), str(astronaut), "--csv", str(table), "--json", str(lines), "--clip"]
    assert main(arguments) == 0
    (row,) = csv.DictReader(table.open())
    (face,) = json.loads(lines.read_text())["faces"]
    assert row["image"] == str(astronaut) and row["id"] == ""
    assert [float(row[name]) for name in ("x1", "y1", "x2", "y2")] == face["box"]
    assert [float(row["landmark_3_x"]), float(row["landmark_3_y"])] == face["landmarks"][2]


def test_clipped_boxes_end_at_the_edges(bundle: Bundle, tmp_path: Path) -> None:
    Image.fromarray(RGB[70:, 190:]).save(tmp_path / "cut.png")
    for options, inside in (([], False), (["--clip"], True)):
        lines = tmp_path / "faces.jsonl"
        assert main(["detect", str(bundle.path), str(tmp_path / "cut.png"), "--json", str(lines), *options]) == 0
        (face,) = json.loads(lines.read_text())["faces"]
        assert (min(face["box"]) >= 0) is inside


def test_tiles_find_small_faces_of_a_large_picture(bundle: Bundle, tmp_path: Path) -> None:
    Image.fromarray(np.concatenate([RGB] * 6, axis=1)).save(tmp_path / "wide.png")
    lines = tmp_path / "faces.jsonl"
    assert main(["detect", str(bundle.path), str(tmp_path / "wide.png"), "--tiles", "--json", str(lines)]) == 0
    assert len(json.loads(lines.read_text())["faces"]) == 6


def test_quiet_prints_nothing(bundle: Bundle, astronaut: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(bundle.path), str(astronaut), "--backend", "tflite", "--quiet"]) == 0
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_video_has_times_sizes_ids_and_covered_faces(bundle: Bundle, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (512, 512))
    for _ in range(4):
        writer.write(portrait())
    writer.release()
    lines, table = tmp_path / "faces.jsonl", tmp_path / "faces.csv"
    options = ["--track", "--blur", str(tmp_path / "out"), "--csv", str(table), "--json", str(lines)]
    assert main(["detect", str(bundle.path), str(clip), *options]) == 0
    *records, _ = [json.loads(line) for line in lines.read_text().splitlines()]  # the last line sums up
    assert [record["time"] for record in records] == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=0.002)
    assert all((record["width"], record["height"]) == (512, 512) for record in records)
    assert [face["id"] for record in records for face in record["faces"]] == [1] * 4
    assert [row["id"] for row in csv.DictReader(table.open())] == ["1"] * 4
    covered = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4")).read()[1]
    assert len(Detector.load(bundle).detect(covered, 0.3)) == 0


def test_ids_are_refused_for_pictures(bundle: Bundle, astronaut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(bundle.path), str(astronaut), "--track"]) == 2
    assert "no order in time" in capsys.readouterr().err


def test_what_native_libraries_warn_of_is_still_said(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    from retinaface_edge.runtime.io.native_log import held_back, no_information

    with pytest.raises(ValueError), held_back(no_information):
        os.write(2, b"INFO: created a delegate\nERROR: it does not work\n")
        raise ValueError
    assert capfd.readouterr().err == "ERROR: it does not work\n"
