"""Video in, faces and a drawn video out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import BackendError, Bundle, Detector, Faces, ImageError
from retinaface_edge.runtime.video import DetectionOptions, Drawing, FrameFaces, Report, detect_video, is_video

cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")
FRAMES = 7


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portrait, moving to the right by 16 pixels a frame."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (640, 512))
    for index in range(FRAMES):
        frame = np.zeros((512, 640, 3), np.uint8)
        frame[:, 16 * index : 16 * index + 512] = portrait()
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture(scope="module")
def detector(bundle: Bundle) -> Detector:
    return Detector.load(bundle, "openvino", "int8")


def test_a_video_file_gives_faces_frame_by_frame_and_a_drawn_video(
    detector: Detector, clip: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, Faces]] = []
    output = tmp_path / "drawn.avi"
    report = detect_video(detector, str(clip), lambda frame: seen.append((frame.index, frame.faces)), Drawing(output))
    assert [index for index, _ in seen] == list(range(FRAMES))
    assert (report.frames, report.faces) == (FRAMES, sum(len(faces) for _, faces in seen))
    moved = np.diff([faces.boxes[0, 0] for _, faces in seen])
    assert np.abs(moved - 16).max() < 4  # the face moves as the picture does: frames are in order

    before, after = cv2.VideoCapture(str(clip)), cv2.VideoCapture(str(output))
    for _, faces in seen:
        (_, frame), (whole, drawn) = before.read(), after.read()
        assert whole
        assert drawn.shape == frame.shape
        changed = np.abs(drawn.astype(int) - frame).max(axis=2) > 60
        ys, xs = np.nonzero(changed)
        x1, _, x2, y2 = faces.boxes[0]
        assert abs(xs.max() - x2) < 8
        assert abs(xs.min() - x1) < 8
        assert abs(ys.max() - y2) < 8
    assert not after.read()[0]


def test_the_report_names_rate_and_shares(detector: Detector, clip: Path) -> None:
    report = detect_video(detector, str(clip), max_frames=3)
    assert report.frames == 3
    assert min(report.pre, report.inference, report.post) > 0
    text = str(report)
    assert text.startswith(f"3 frames, {report.faces} faces, ")
    total = report.pre + report.inference + report.post
    assert f"inference {report.inference / total:.1%}" in text
    assert f" {3 / report.seconds:.1f} frames/s" in text
    assert total < 10 * report.seconds  # parts are times, and two of them overlap


@pytest.mark.parametrize(("told", "played"), [(12.0, 12.0), (0.0, 25.0), (-1.0, 25.0), (90000.0, 25.0), (np.nan, 25.0)])
def test_a_source_that_tells_no_rate_is_written_at_25_frames_a_second(
    detector: Detector, clip: Path, told: float, played: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many cameras tell 0, and some streams the ticks of their clock."""
    get = cv2.VideoCapture.get
    monkeypatch.setattr(
        cv2.VideoCapture, "get", lambda self, what: told if what == cv2.CAP_PROP_FPS else get(self, what)
    )
    detect_video(detector, str(clip), drawing=Drawing(tmp_path / "drawn.avi"), max_frames=1)
    monkeypatch.undo()
    assert cv2.VideoCapture(str(tmp_path / "drawn.avi")).get(cv2.CAP_PROP_FPS) == pytest.approx(played)


def test_meshes_are_drawn_as_wires_over_the_face(mesh_bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    seen: list[Faces] = []
    with Detector.load(mesh_bundle, "openvino", "int8") as dense:
        output = tmp_path / "drawn.avi"
        detect_video(
            dense, str(clip), lambda frame: seen.append(frame.faces), Drawing(output), DetectionOptions(mesh=True), 1
        )
    ((_, before), (_, after)) = (cv2.VideoCapture(str(path)).read() for path in (clip, output))
    changed = np.abs(after.astype(int) - before).max(axis=2) > 40
    assert seen[0].vertices is not None
    x, y, _ = np.rint(seen[0].vertices[0]).astype(int).T
    empty = np.ones_like(changed)
    empty[y, x] = False
    apart = ndimage.distance_transform_edt(empty)  # pixels to the nearest vertex
    x1, y1, x2, y2 = seen[0].boxes[0].round().astype(int)
    inside = np.zeros_like(changed)
    inside[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8] = True
    assert changed[inside & (apart < 2)].mean() > 0.5
    assert changed[inside & (apart > 14)].mean() < 0.1


def test_what_cannot_be_read_or_written_is_said(detector: Detector, clip: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for source, words in ((str(tmp_path / "none.mp4"), "does not exist"), (str(text), "cannot be opened|no frame")):
        with pytest.raises(ImageError, match=words):
            detect_video(detector, source)
    with pytest.raises(ImageError, match="camera 97 cannot be opened"):
        detect_video(detector, "97")
    with pytest.raises(ImageError, match="choose one of these suffixes"):
        detect_video(detector, str(clip), drawing=Drawing(tmp_path / "drawn.gif"))
    with pytest.raises(ImageError, match="cannot be written"):
        detect_video(detector, str(clip), drawing=Drawing(tmp_path / "none" / "drawn.avi"))


def test_a_missing_opencv_is_named_with_its_extra(
    detector: Detector, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(BackendError, match=r"retinaface-edge\[video\]"):
        detect_video(detector, str(clip))


@pytest.mark.parametrize(
    ("source", "video"),
    [("0", True), ("a.mp4", True), ("B.MKV", True), ("rtsp://x/y", True), ("a.jpg", False), ("folder", False)],
)
def test_a_source_is_told_from_a_picture_by_its_form(source: str, video: bool) -> None:
    assert is_video(source) is video


def test_the_command_line_takes_a_video(
    bundle: Bundle, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = tmp_path / "faces.jsonl"
    arguments = ["detect", str(bundle.path), str(clip), "--frames", "3", "--json", str(faces), "--draw", str(tmp_path)]
    assert main(arguments) == 0
    records = [json.loads(line) for line in faces.read_text().splitlines()]
    assert [record["frame"] for record in records] == [0, 1, 2]
    assert all(len(record["faces"]) == 1 for record in records)
    assert "3 frames, 3 faces, " in capsys.readouterr().out
    assert cv2.VideoCapture(str(tmp_path / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.parametrize("sources", [["none.mp4"], ["97"], ["a.mp4", "b.png"]])
def test_a_bad_video_is_one_line_and_exit_code_2(
    bundle: Bundle, sources: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", str(bundle.path), *sources]) == 2
    assert capsys.readouterr().err.count("error:") == 1


def test_a_window_shows_every_frame_until_q_is_pressed(
    detector: Detector, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No window opens on a machine without a screen: OpenCV's two calls are stood in for."""
    shown: list[np.ndarray] = []
    monkeypatch.setattr(cv2, "imshow", lambda name, frame: shown.append(frame.copy()))
    monkeypatch.setattr(cv2, "waitKey", lambda milliseconds: ord("q") if len(shown) == 3 else -1)
    report = detect_video(detector, str(clip), drawing=Drawing(show=True))
    assert len(shown) == report.frames == 3
    assert all(frame.shape == (512, 640, 3) for frame in shown)


def test_json_on_standard_output_comes_frame_by_frame(
    bundle: Bundle, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[int] = []

    def seen(detector: Detector, source: str, each: Callable[[FrameFaces], None], *_: object) -> Report:
        for index in range(2):
            each(FrameFaces(index, 0.0, portrait(), detector.detect(portrait())))
            lines.append(len(capsys.readouterr().out.splitlines()))
        return Report(2, 2, 1.0, 0.1, 0.1, 0.1)

    monkeypatch.setattr("retinaface_edge.runtime.video.detect_video", seen)
    assert main(["detect", str(bundle.path), str(clip), "--json", "-"]) == 0
    assert lines == [1, 1]


def test_an_interrupted_camera_leaves_what_it_saw(
    bundle: Bundle, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C is how a camera is stopped: its frames so far are in the file, and the drawn video can be played."""
    whole = Detector.detect_many

    def interrupted(*arguments: object, **options: object) -> Iterator[Faces]:
        yield from islice(whole(*arguments, **options), 3)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Detector, "detect_many", interrupted)
    target = tmp_path / "faces.jsonl"
    command = ["detect", str(bundle.path), str(clip), "--json", str(target), "--draw", str(tmp_path / "drawn")]
    assert main(command) == 130
    assert capsys.readouterr().err.splitlines() == ["retinaface-edge: interrupted; nothing was left half-written"]
    records = [json.loads(line) for line in target.read_text().splitlines()]
    assert [record["frame"] for record in records] == [0, 1, 2]
    assert all(len(record["faces"]) == 1 for record in records)
    drawn = cv2.VideoCapture(str(tmp_path / "drawn" / "clip.mp4"))
    assert [drawn.read()[0] for _ in range(4)] == [True, True, True, False]
