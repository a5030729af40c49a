"""lime-mlx data: the files of the benchmarks, from a server that misbehaves and from a folder."""

import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import platformdirs
import pytest
from click.testing import CliRunner
from PIL import Image
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from lime_mlx.cli import main
from lime_mlx.errors import DataError
from lime_mlx.evaluate.data import coco, layout
from lime_mlx.evaluate.data import folder as filling
from lime_mlx.evaluate.data.download import Downloader
from lime_mlx.evaluate.data.folder import DataFolder
from lime_mlx.evaluate.data.sources import LICENCES, File, Sources
from lime_mlx.evaluate.store import Store
from lime_mlx.evaluate.tasks.mme import Mme
from lime_mlx.evaluate.tasks.pope import Pope

SHARED = Path(__file__).parents[2] / "shared" / "data"
BODY = bytes(range(256)) * 1000
COUNT = 12
quick = partial(Downloader, timeout=0.3, attempts=4, pause=0.01, rate=1e6)


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files` with ETag and Range; `server.moods` of a path come first, one per request."""

    def do_GET(self):
        server, name = self.server, self.path.lstrip("/")
        with server.lock:
            server.seen.append((name, self.headers.get("Range")))
            server.agents.add(self.headers["User-Agent"])
            moods = server.moods.get(name, [])
            mood = moods.pop(0) if moods else {}
        try:
            time.sleep(server.delay)
            self.answer(server.files.get(name), **mood)
        except OSError:  # the client left first
            self.close_connection = True

    def answer(self, found, status=None, etag='"1"', cut=None, length=None, ranges=True, at=None, drip=0.0, **headers):
        if "silent" in headers:
            self.server.stop.wait(1)
            return
        body = headers.pop("body", found)
        if body is None or (status or 200) >= 400:
            return self.send(status or 404, b"<html>no</html>", headers)
        start = 0
        if ranges and etag and self.headers.get("Range") and self.headers.get("If-Range") == etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            headers["Content-Range"] = f"bytes {start if at is None else at}-{len(body) - 1}/{len(body)}"
        body = body[start:]
        if etag:
            headers["ETag"] = etag
        announced = len(body) if length is None else max(len(body) + length, 0)
        self.send(206 if start else 200, body[:cut], headers, announced, drip)

    def send(self, status, body, headers, announced=None, drip=0.0):
        self.send_response(status)
        headers["Content-Length"] = str(len(body) if announced is None else announced)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        step = 1000 if drip else len(body) or 1
        for place in range(0, len(body), step):
            self.wfile.write(body[place : place + step])
            time.sleep(drip)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None
    server.lock, server.stop = threading.Lock(), threading.Event()
    server.files, server.moods, server.seen, server.agents = {}, {}, [], set()
    server.delay = 0.0
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        yield server


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 20 + number).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def picture(number: int) -> str:
    return f"COCO_val2014_{number:012d}.jpg"


def pin(path: str, host: str, body: bytes) -> File:
    return File(path, host, f"v1/{path}", len(body), hashlib.sha256(body).hexdigest())


def archive() -> bytes:
    """Annotations of all pictures: each has a dog; the first caption of picture 0 names a bus, which singulars lose."""
    instances = {
        "images": [{"id": n} for n in range(COUNT)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 9, "name": "bus"}],
        "annotations": [{"image_id": n, "category_id": 7, "segmentation": [[1, 2]]} for n in range(COUNT)],
    }
    captions = {"annotations": [{"image_id": 0, "caption": "A bus."}, {"image_id": 1, "caption": "Two puppies."}]}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as files:
        files.writestr(coco.INSTANCES, json.dumps(instances))
        files.writestr(coco.CAPTIONS, json.dumps(captions))
    return buffer.getvalue()


def official() -> tuple[dict[str, bytes], dict[int, bytes], Sources]:
    """Question files in the official layout, the pictures that they name, and the pins."""
    files = {}
    for split in layout.POPE_SPLITS:
        rows = [
            {"question_id": number, "image": picture(number // 2), "text": f"{split}?", "label": "yes"}
            for number in range(2 * COUNT)
        ]
        files[f"pope/coco/coco_pope_{split}.json"] = "\n".join(map(json.dumps, rows)).encode()
    files["chair/synonyms.txt"] = b"dog, puppy\nbus, coach\n"
    files["amber/relation.json"] = b"{}"
    annotations = archive()
    pope = tuple(pin(path, "github", body) for path, body in files.items() if path.startswith("pope"))
    chair, amber = ((pin(path, "github", files[path]),) for path in ("chair/synonyms.txt", "amber/relation.json"))
    zipped = pin("chair/annotations_trainval2014.zip", "coco", annotations)
    pictures = {number: jpeg(number) for number in range(COUNT)}
    return (
        {**files, zipped.path: annotations},
        pictures,
        Sources("", "", {"coco": pope}, chair, zipped, amber, tagger=()),
    )


@pytest.fixture(scope="module")
def published():
    return official()


@pytest.fixture
def benchmark(site, published):
    """The server with all files, and the pins."""
    files, pictures, pins = published
    site.files = {f"github/v1/{path}": body for path, body in files.items() if not path.endswith("zip")}
    site.files |= {f"coco/v1/{path}": body for path, body in files.items() if path.endswith("zip")}
    site.files |= {f"coco/val2014/{picture(number)}": body for number, body in pictures.items()}
    return site, replace(pins, github=f"{site.url}/github", coco=f"{site.url}/coco")


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


def checked(part: Path) -> None:
    if part.read_bytes() != BODY:
        raise DataError("another file.")


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.suffix in (".part", ".etag", ".copy", ".zip"))


HALF = len(BODY) // 2
REST = f"bytes={HALF}-"


@pytest.mark.parametrize(
    ("moods", "ranges"),
    [
        ([], [None]),
        ([{"cut": HALF}], [None, REST]),
        ([{"cut": HALF}, {"status": 503}, {"cut": 1000}], [None, REST, REST, f"bytes={HALF + 1000}-"]),
        ([{"status": 429, "Retry-After": "0"}, {"status": 500}], [None] * 3),
        ([{"silent": 1}], [None, None]),
        ([{"length": 100}], [None]),
        ([{"length": -HALF}], [None, REST]),
        ([{"cut": HALF}, {"ranges": False}], [None, REST]),
        ([{"cut": HALF, "body": bytes(len(BODY)), "etag": '"0"'}], [None, REST]),
        ([{"cut": HALF, "etag": None}], [None, None]),
        ([{"cut": HALF, "etag": 'W/"1"'}], [None, None]),
        ([{"cut": HALF}, {"status": 416}], [None, REST, None]),
        ([{"cut": HALF}, {"at": 0, "body": bytes(HALF) + BODY}], [None, REST]),
        ([{"cut": 0}], [None, None]),
    ],
)
def test_a_server_that_stumbles(site, tmp_path, moods, ranges):
    site.files["file"], site.moods["file"] = BODY, moods
    steps = []
    quick().fetch(f"{site.url}/file", tmp_path / "a" / "file", checked, len(BODY), steps.append)
    assert (tmp_path / "a" / "file").read_bytes() == BODY
    assert [asked for _, asked in site.seen] == ranges
    assert steps[-1] == len(BODY)
    assert leftovers(tmp_path) == []
    assert {agent.partition("/")[0] for agent in site.agents} == {"lime-mlx"}


@pytest.mark.parametrize(
    ("moods", "message", "requests", "kept"),
    [
        ([{"status": 404}], "404", 1, []),
        ([{"status": 503}] * 9, "503", 2, []),
        ([{"cut": 9}, *[{"status": 503}] * 9], "503", 2, ["file.part", "file.part.etag"]),
        ([{"body": BODY[::-1]}], "another file", 1, []),
        ([{"body": BODY + b"!"}], f"more than the {len(BODY)} bytes", 1, []),
        ([{"drip": 0.2}] * 9, "too slow", 2, ["file.part", "file.part.etag"]),
        ([{"silent": 1}] * 9, "too slow", 2, []),
    ],
)
def test_a_server_that_fails(site, tmp_path, moods, message, requests, kept):
    loader = quick(slowest=1e9, attempts=2)
    site.files["file"], site.moods["file"] = BODY, moods
    with pytest.raises(DataError, match=message):
        loader.fetch(f"{site.url}/file", tmp_path / "file", checked, len(BODY))
    assert len(site.seen) == requests
    assert not (tmp_path / "file").exists()
    assert leftovers(tmp_path) == kept
    site.moods["file"] = []
    loader.fetch(f"{site.url}/file", tmp_path / "file", checked, len(BODY))
    assert (site.seen[-1][1] is not None) == bool(kept)


def test_nobody_there(tmp_path):
    with pytest.raises(DataError, match="cannot be reached"):
        quick(attempts=2).fetch("http://127.0.0.1:9/file", tmp_path / "file", checked)


def test_politely(site, tmp_path):
    site.files = {str(number): BODY for number in range(9)}
    loader, busy, most = quick(connections=3), [], []

    def work(name):
        busy.append(name)
        most.append(len(busy))
        loader.fetch(f"{site.url}/{name}", tmp_path / name, checked)
        time.sleep(0.03)
        busy.remove(name)

    assert sorted(loader.each(work, site.files)) == sorted((name, None) for name in site.files)
    assert max(most) == 3
    slow, began = quick(rate=50), time.monotonic()
    site.seen.clear()
    for name, error in slow.each(lambda name: slow.fetch(f"{site.url}/{name}", tmp_path / name, checked), site.files):
        assert error is None, name
    assert time.monotonic() - began > (len(site.files) - 1) / 50


def test_who_stops_listening_stops_the_work():
    started, gate = [], threading.Event()

    def work(job):
        started.append(job)
        assert job == 0 or gate.wait(5)

    ended = quick(connections=1).each(work, range(50))
    assert next(ended) == (0, None)
    ended.close()
    gate.set()
    time.sleep(0.1)
    assert started in ([0], [0, 1])


def test_pope(benchmark, tmp_path):
    site, sources = benchmark
    steps = []
    data = DataFolder(tmp_path, None, sources, quick(), lambda *step: steps.append(step))
    data.get("pope")
    assert data.counts == {"fetched": 3 + COUNT, "kept": 0}
    assert {item.medium for item in Pope().items(tmp_path)} == {path.name for path in (tmp_path / "images").iterdir()}
    assert (filling.PICTURES, COUNT, COUNT) in steps
    assert leftovers(tmp_path) == []

    site.seen.clear()
    (tmp_path / "images" / picture(3)).write_bytes(b"")
    (tmp_path / "images" / picture(4)).write_bytes(jpeg(4)[:900])
    (tmp_path / "pope/coco/coco_pope_popular.json").write_bytes(b"{}")
    DataFolder(tmp_path, None, sources, quick()).get("pope")
    assert {name.rpartition("/")[2] for name, _ in site.seen} == {"coco_pope_popular.json", picture(3), picture(4)}
    state = {task: rest for task, *rest in DataFolder(tmp_path, None, sources).state()}
    assert state["pope:set=coco"] == ["3 of 3", f"{COUNT} of {COUNT}"]
    assert state["chair"] == ["0 of 4", f"{COUNT} of {COUNT}"]


def test_only_the_pictures_that_evaluate_asks_about(benchmark, tmp_path):
    site, sources = benchmark
    DataFolder(tmp_path, None, sources, quick()).get("pope", limit=4, seed=5)
    wanted = {item.medium for item in Pope().items(tmp_path, limit=4, seed=5)}
    assert {path.name for path in (tmp_path / "images").iterdir()} == wanted
    assert len(wanted) == 4
    assert {item.medium for item in Pope(split="adversarial").items(tmp_path, limit=4, seed=5)} == wanted


def test_some_pictures_do_not_arrive(benchmark, tmp_path):
    site, sources = benchmark
    bad = {1: {"status": 404}, 2: {"body": b""}, 5: {"body": b"<!DOCTYPE html><p>Busy"}, 7: {"body": jpeg(7)[:700]}}
    for number, mood in bad.items():
        site.moods[f"coco/val2014/{picture(number)}"] = [mood]
    site.moods[f"coco/val2014/{picture(8)}"] = [{"status": 503}, {"cut": 500}]
    with pytest.raises(DataError) as caught:
        DataFolder(tmp_path, None, sources, quick()).get("pope")
    message = str(caught.value)
    names = ", ".join(map(picture, (1, 2, 5)))
    assert message.startswith(f"4 of {COUNT} pictures did not arrive ({names} and 1 more). Cannot read ")
    assert "404" in message and "\n" not in message
    assert {path.name for path in (tmp_path / "images").iterdir()} == {picture(n) for n in range(COUNT) if n not in bad}
    site.seen.clear()
    DataFolder(tmp_path, None, sources, quick()).get("pope")
    assert {name for name, _ in site.seen} == {f"coco/val2014/{picture(number)}" for number in bad}


@pytest.mark.parametrize(("body", "why"), [(b"", "empty"), (b"<html>", "page"), (jpeg(0)[:700], "damaged")])
def test_what_is_no_picture(benchmark, tmp_path, body, why):
    site, sources = benchmark
    site.files[f"coco/val2014/{picture(0)}"] = body
    with pytest.raises(DataError, match=rf"1 of {COUNT} pictures did not arrive \(\S+0.jpg\). \S+0.jpg: .*{why}"):
        DataFolder(tmp_path, None, sources, quick()).get("pope")
    assert leftovers(tmp_path) == []


def test_the_network_goes_away(benchmark, tmp_path):
    site, sources = benchmark
    site.delay = 0.02
    site.files = {name: body for name, body in site.files.items() if not name.endswith(".jpg")}
    with pytest.raises(DataError, match=f"{COUNT} of {COUNT} pictures did not arrive"):
        DataFolder(tmp_path, None, sources, quick(connections=1), patience=3).get("pope")
    assert len([name for name, _ in site.seen if name.endswith(".jpg")]) < COUNT


def test_another_file_than_the_official_one(benchmark, tmp_path):
    site, sources = benchmark
    name = "github/v1/pope/coco/coco_pope_popular.json"
    site.files[name] = site.files[name][::-1]
    with pytest.raises(DataError, match="popular.json sent another file than the official one"):
        DataFolder(tmp_path, None, sources, quick()).get("pope")
    assert not (tmp_path / "pope/coco/coco_pope_popular.json").exists()
    assert leftovers(tmp_path) == []


SCRIPT = """
import signal, sys
# A shell that starts the tests in the background ignores Ctrl-C, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_data import official
from lime_mlx.evaluate.data.folder import DataFolder
from lime_mlx.evaluate.data.download import Downloader
_, _, pins = official()
DataFolder(Path(sys.argv[3]), None, type(pins)(f"{sys.argv[2]}/github", f"{sys.argv[2]}/coco", pins.pope),
     Downloader(rate=1e6)).get("pope")
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_interrupted(benchmark, tmp_path, signum):
    site, sources = benchmark
    slow = picture(2)
    site.moods[f"coco/val2014/{slow}"] = [{"drip": 30.0}]
    folder = tmp_path / "data"
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), site.url, str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    part = folder / "images" / f"{slow}.part"
    while not (part.exists() and len(list(folder.glob("images/*.jpg"))) == COUNT - 1):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signum)
    assert process.wait(timeout=5) != 0
    assert not (folder / "images" / slow).exists()
    done = part.stat().st_size
    site.seen.clear()
    DataFolder(folder, None, sources, quick()).get("pope")
    assert site.seen == [(f"coco/val2014/{slow}", f"bytes={done}-" if done else None)]
    assert (folder / "images" / slow).read_bytes() == site.files[f"coco/val2014/{slow}"]
    assert leftovers(folder) == []


def test_one_at_a_time(benchmark, tmp_path):
    _, sources = benchmark
    with Store(tmp_path).locked(), pytest.raises(DataError, match="at work in"):
        DataFolder(tmp_path, None, sources, quick()).get("pope")


def test_chair(benchmark, published, tmp_path):
    site, sources = benchmark
    steps = []
    DataFolder(tmp_path / "a", None, sources, quick(), lambda *step: steps.append(step)).get("chair")
    read = {mode: json.loads(path.read_text()) for mode, path in layout.object_tables(tmp_path / "a" / "chair").items()}
    assert read["pattern"]["objects"] == ["bus", "dog"]
    assert read["pattern"]["images"] == {str(number): [1] for number in range(COUNT)}
    assert read["ours"]["images"] == read["wordnet"]["images"] == {"0": [0, 1]}
    assert ("tables", 3 * COUNT, 3 * COUNT) in steps
    assert len(list((tmp_path / "a" / "images").iterdir())) == COUNT
    assert leftovers(tmp_path) == []

    site.seen.clear()
    DataFolder(tmp_path / "a", None, sources, quick()).get("chair")
    assert site.seen == []
    DataFolder(tmp_path / "b", tmp_path / "a", sources).get("chair")
    assert all(path.is_file() for path in layout.object_tables(tmp_path / "b" / "chair").values())
    for path in layout.object_tables(tmp_path / "a" / "chair").values():
        path.unlink()
    with pytest.raises(DataError, match="annotations_trainval2014.zip is not in"):
        DataFolder(tmp_path / "c", tmp_path / "a", sources).get("chair")
    put(tmp_path / "a", {"annotations_trainval2014.zip": published[0][sources.annotations.path]})
    DataFolder(tmp_path / "c", tmp_path / "a", sources).get("chair")
    assert json.loads(layout.object_tables(tmp_path / "c" / "chair")["pattern"].read_text()) == read["pattern"]
    assert (tmp_path / "a" / "annotations_trainval2014.zip").is_file()


def test_an_archive_that_is_none(tmp_path):
    put(tmp_path, {"a.zip": b"no zip", "synonyms.txt": b"dog, puppy\n"})
    with pytest.raises(DataError, match="cannot be read as COCO's annotations"):
        coco.write_objects(tmp_path / "a.zip", "", tmp_path / "synonyms.txt", tmp_path, lambda done, total: None)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data with COCO's annotations")
def test_tables_against_the_reference(tmp_path):
    mini = SHARED / "images" / "coco_mini_annotations"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as files:
        for kind, name in (("instances", coco.INSTANCES), ("captions", coco.CAPTIONS)):
            parts = [json.loads((mini / f"{kind}_{part}2017.json").read_text()) for part in ("train", "val")]
            joined = {key: parts[0][key] + parts[1][key] for key in ("images", "annotations")}
            files.writestr(name, json.dumps({**parts[0], **joined}))
    coco.write_objects(tmp_path / "a.zip", "x", SHARED / "chair" / "synonyms.txt", tmp_path, lambda done, total: None)
    made = {mode: json.loads(path.read_text()) for mode, path in layout.object_tables(tmp_path).items()}
    reference = json.loads((SHARED / "chair" / "coco2014_gt_objects.pattern.json").read_text())
    others = json.loads((SHARED / "chair" / "coco2014_gt_objects.wordnet_overrides.json").read_text())["images"]
    images = made["pattern"]["images"]
    assert made["pattern"]["objects"] == reference["objects"]
    assert len(images) == 159
    assert images == {name: reference["images"][name] for name in images}
    ours = images | made["wordnet"]["images"]
    assert sum(ours[name] != (reference["images"] | others)[name] for name in images) == 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data with the official files")
def test_the_pins_are_those_of_the_files():
    sources = Sources()
    files = [*sources.pope["coco"], *sources.pope["aokvqa"], *sources.chair, *sources.amber]
    assert [file.path for file in files if not filling._is_official(SHARED / file.path, file)] == []
    files = [*sources.pope["repope"], *sources.others["dash-b"], *sources.others["hallusion-bench"]]
    places = [SHARED / Path(file.path).parent.name.replace("-", "_") / Path(file.path).name for file in files]
    assert all(filling._is_official(place, file) for place, file in zip(places, files, strict=True))
    assert len({file.sha256 for files in sources.pope.values() for file in files}) == 12


def test_from_a_folder(benchmark, published, tmp_path):
    site, sources = benchmark
    files, pictures, _ = published
    source = put(tmp_path / "from", {Path(path).name: body for path, body in files.items()})
    put(source / "val2014", {picture(number): body for number, body in pictures.items() if number not in (1, 3, 6, 9)})
    put(source / "val2014", {picture(9): b"", "unasked.jpg": jpeg(0)})
    with pytest.raises(DataError) as caught:
        DataFolder(tmp_path / "data", source, sources).get("pope")
    names = ", ".join(map(picture, (1, 3, 6)))
    assert str(caught.value) == f"4 of {COUNT} pictures are not in {source}, or are damaged: {names} and 1 more."
    put(source, {picture(number): pictures[number] for number in (1, 3, 6)})
    (source / "val2014" / picture(9)).write_bytes(pictures[9])
    data = DataFolder(tmp_path / "data", source, sources)
    data.get("pope")
    assert data.counts == {"kept": 3 + COUNT - 4, "copied": 4}
    assert {path.name for path in (tmp_path / "data" / "images").iterdir()} == set(map(picture, range(COUNT)))
    assert site.seen == [] and leftovers(tmp_path / "data") == []


def test_from_a_folder_without_the_files(published, tmp_path):
    files, _, sources = published
    source = put(tmp_path / "from", {"coco_pope_random.json": files["pope/coco/coco_pope_random.json"]})
    with pytest.raises(
        DataError, match=r"2 of 3 files are not in .*: coco_pope_popular.json, coco_pope_adversarial.json"
    ):
        DataFolder(tmp_path / "data", source, sources).get("pope")
    put(source, {"coco_pope_popular.json": b"{}"})
    with pytest.raises(DataError, match="coco_pope_popular.json is not the official file"):
        DataFolder(tmp_path / "data", source, sources).get("pope")
    with pytest.raises(DataError, match="There is no folder"):
        DataFolder(tmp_path / "data", tmp_path / "nowhere", sources).get("pope")


def test_amber_by_hand(benchmark, tmp_path):
    _, sources = benchmark
    sources = replace(sources, amber_pictures=2)
    with pytest.raises(DataError, match=r"2 of 2 pictures are not there and cannot be fetched .*--from FOLDER"):
        DataFolder(tmp_path / "data", None, sources, quick()).get("amber")
    put(tmp_path / "zip" / "image", {f"AMBER_{number}.jpg": jpeg(number) for number in (1, 2)})
    put(tmp_path / "zip", {"relation.json": b"{}"})
    DataFolder(tmp_path / "data", tmp_path / "zip", sources).get("amber")
    DataFolder(tmp_path / "data", None, sources, quick()).get("amber")
    assert len(list((tmp_path / "data" / "images").iterdir())) == 2


def test_the_tagger_is_fetched_and_may_be_missing_in_a_folder(benchmark, tmp_path):
    site, sources = benchmark
    site.files["github/v1/tagger/averaged_perceptron_tagger_eng.zip"] = b"weights"
    sources = replace(sources, tagger=(pin(layout.TAGGER, "github", b"weights"),))
    DataFolder(tmp_path / "a", None, sources, quick()).get("chair")
    assert layout.tagger_path(tmp_path / "a").read_bytes() == b"weights"
    states = {task: files for task, files, _ in DataFolder(tmp_path / "a", None, sources).state()}
    assert (states["chair"], states["amber"]) == ("5 of 5", "1 of 2")
    layout.tagger_path(tmp_path / "a").rename(tmp_path / "a" / layout.TAGGER.rpartition("/")[2])
    DataFolder(tmp_path / "b", tmp_path / "a", sources).get("chair")
    assert layout.tagger_path(tmp_path / "b").read_bytes() == b"weights"
    (tmp_path / "a" / layout.TAGGER.rpartition("/")[2]).unlink()
    DataFolder(tmp_path / "c", tmp_path / "a", sources).get("chair")
    assert layout.tagger_path(tmp_path / "c") is None


HEADER = "entry_id\taudio_index\tprompt_text\tobject\tattribute\tlabel\tsampling\n"


def run(*arguments: object):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


@pytest.mark.parametrize(
    ("task", "lacking", "missing"),
    [("mme", "color/b.jpg", "1 of 8 files"), ("audio", "Yb.wav", "1 of 2 sounds")],
)
def test_mme_and_audio_by_hand(tmp_path, task, lacking, missing):
    files = {f"{part}/{name}.txt": b"Is it?\tYes\n" for part, name in zip(layout.MME_PARTS, "aaab", strict=True)}
    files |= {f"{part}/{name}.jpg": jpeg(1) for part, name in zip(layout.MME_PARTS, "aaab", strict=True)}
    if task == "audio":
        rows = "".join(f"{n}\tY{name}\tIs it?\tdog\tpositive\tYes\trandom\n" for n, name in enumerate("aab"))
        files = {"random.tsv": (HEADER + rows).encode(), "Ya.wav": b"1", "Yb.wav": b"2"}
    source, folder = put(tmp_path / "from" / "deep", files), tmp_path / "data"
    (source / lacking).unlink()
    assert run("get", task, "--dir", folder).stderr.startswith("Error: ")
    done = run("get", task, "--dir", folder, "--from", tmp_path / "from")
    assert done.exit_code == 1
    assert f"{missing} are not in" in done.stderr and lacking in done.stderr and done.stderr.count("\n") == 1
    if task == "mme":
        put(source, {lacking: b"<html>"})
        done = run("get", task, "--dir", folder, "--from", tmp_path / "from")
        assert done.stderr.startswith("Error: b.jpg: ") and not (folder / task / lacking).exists()
    put(source, {lacking: files[lacking]})
    done = run("get", task, "--dir", folder, "--from", tmp_path / "from")
    assert (done.exit_code, done.output) == (0, f"{task} is in {folder} ({len(files)} copied files).\n")
    assert {str(path.relative_to(folder / task)) for path in (folder / task).rglob("*.*")} == files.keys()
    shown = run("list", "--dir", folder).stdout
    assert all(name in shown for name in LICENCES)


def test_the_ending_of_a_picture_of_mme_may_be_in_capitals(tmp_path):
    endings = dict(zip(layout.MME_PARTS, ("JPG", "Jpeg", "PNG", "jpg"), strict=True))
    files = {f"{part}/a.txt": b"Is it?\tYes\nIs it not?\tNo\n" for part in endings}
    pictures = {f"{part}/a.{ending}": jpeg(1) for part, ending in endings.items()}
    put(tmp_path / "from", files | pictures)
    done = run("get", "mme", "--dir", tmp_path / "data", "--from", tmp_path / "from")
    assert done.output == f"mme is in {tmp_path / 'data'} (8 copied files).\n"
    assert ("mme", "4", "4") in DataFolder(tmp_path / "data").state()
    items = Mme().items(tmp_path / "data")
    assert {item.medium for item in items} == pictures.keys()
    assert all(Mme().source(tmp_path / "data", item.medium).is_file() for item in items)


@pytest.mark.parametrize("arguments", [["mme", "--set", "coco"], ["amber", "--limit", "3"], ["coco"], []])
def test_wrong_usage(arguments):
    assert run("get", *arguments).exit_code == 2


@pytest.mark.parametrize(
    ("platform", "environment", "there", "folder"),
    [
        (Unix, {"LIME_MLX_DATA": "~/x"}, False, "~/x"),
        (Unix, {}, False, "~/.cache/lime-mlx"),
        (Unix, {"XDG_CACHE_HOME": "/c"}, False, "/c/lime-mlx"),
        (MacOS, {}, False, "~/Library/Caches/lime-mlx"),
        (MacOS, {"XDG_CACHE_HOME": "/c"}, True, "~/Library/Caches/lime-mlx"),
    ],
)
def test_where(monkeypatch, tmp_path, platform, environment, there, folder):
    monkeypatch.setattr(platformdirs, "PlatformDirs", platform)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("LIME_MLX_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if there:  # 0.1.0 kept its data there, whatever XDG_CACHE_HOME says
        Path(folder).expanduser().mkdir(parents=True)
    assert run("where").output == f"{Path(folder).expanduser()}\n"
