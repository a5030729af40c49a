"""Where the benchmark files come from: their official addresses, or a folder of the user's, into one folder of data.

The folder is laid out as `lime-mlx evaluate --data` reads it: pope/, chair/, amber/, mme/, audio/, and images/ with the
pictures of POPE, CHAIR and AMBER by their official names.
"""

import hashlib
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lime_mlx.errors import DataError, MediaError
from lime_mlx.evaluate import audio, coco, sources
from lime_mlx.evaluate.download import Downloader
from lime_mlx.evaluate.sources import File, Sources
from lime_mlx.evaluate.store import Store
from lime_mlx.evaluate.tasks.pope import Pope
from lime_mlx.media.image import open_image

TASKS = ("pope", "chair", "amber", "mme", "audio")
MME_PARTS = ("existence", "count", "position", "color")
SHOWN = 3
PICTURES = "pictures"
SUFFIXES = (".jpg", ".jpeg", ".png")


def home() -> Path:
    """The folder of data: $LIME_MLX_DATA, else lime-mlx in the user's cache."""
    if chosen := os.environ.get("LIME_MLX_DATA"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lime-mlx"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lime-mlx"


@dataclass
class Data:
    """A folder of data, and how it is filled.

    source: a folder to copy from; nothing is downloaded then. progress: is told what is at work, how much of it is
    done and in all, in bytes but for pictures and tables, which are counted. patience: pictures that fail one after
    the other before the rest is not tried. counts: the files that were "fetched", "copied" and "kept", that is there
    already.
    """

    folder: Path
    source: Path | None = None
    sources: Sources = field(default_factory=Sources)
    downloader: Downloader = field(default_factory=Downloader)
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    patience: int = 16
    counts: Counter = field(default_factory=Counter)

    def get(self, task: str, sets: Sequence[str] = ("coco",), limit: int | None = None, seed: int = 0) -> None:
        """Bring the files of one of TASKS. What is there and right is kept; an interrupted call is taken up again.

        sets: those of POPE. limit: only the pictures that evaluate --limit and --seed ask about (POPE and CHAIR).

        Raises:
            DataError: something is missing in `source`, does not arrive or is not the official file; or it cannot be
                downloaded at all, with where it is to be had.
        """
        if self.source is not None and not self.source.is_dir():
            raise DataError(f"There is no folder {self.source} to take files from; check --from.")
        with Store(self.folder).locked():
            if task == "pope":
                self._pope(sets, limit, seed)
            elif task == "chair":
                self._chair(limit, seed)
            else:
                {"amber": self._amber, "mme": self._mme, "audio": self._audio}[task]()

    def state(self) -> Iterator[tuple[str, str, str]]:
        """Each task, with the files of it that are here, and the pictures or sounds; unread, by name and size."""
        pope = {f"pope:set={name}": files for name, files in self.sources.pope.items()}
        for task, files in {**pope, "chair": self.sources.chair, "amber": self.sources.amber}.items():
            there = [_sized(self.folder / file.path, file) for file in files]
            if task == "chair":
                there += [path.is_file() for path in coco.tables(self.folder / "chair").values()]
            names = self._amber_pictures() if task == "amber" else []
            with suppress(DataError):  # the questions are not there
                names = names or dict.fromkeys(self._asked(task.partition("=")[2] or "coco", "random"))
            here = sum((self.folder / "images" / name).is_file() for name in names)
            yield task, f"{sum(there)} of {len(there)}", f"{here} of {len(names)}" if names else "?"
        for task, kinds, media in (("mme", "*/*.txt", "*/*.[jp]*g"), ("audio", "*.tsv", "*.wav")):
            yield task, *(str(sum(1 for _ in (self.folder / task).glob(kind))) for kind in (kinds, media))

    def _pope(self, sets: Sequence[str], limit: int | None, seed: int) -> None:
        for name in sets:
            self._files(self.sources.pope[name])
        for name in sets:
            self._pictures(self._asked(name, "all", limit, seed), sources.GQA if name == "gqa" else None)

    def _asked(self, name: str, split: str, limit: int | None = None, seed: int = 0) -> list[str]:
        """The pictures of a set of POPE."""
        return [item.medium for item in Pope(set=name, split=split).items(self.folder, limit, seed)]

    def _chair(self, limit: int | None, seed: int) -> None:
        """On the pictures of POPE's COCO files, of which one split names all."""
        questions = [file for file in self.sources.pope["coco"] if "random" in file.path]
        self._files([*self.sources.chair, *questions])
        self._objects()
        self._pictures(self._asked("coco", "random", limit, seed))

    def _objects(self) -> None:
        """The tables of objects, made from the annotations, which are removed then."""
        made, archive = coco.tables(self.folder / "chair"), self.sources.annotations
        if all(coco.made_from(path) == archive.sha256 for path in made.values()):
            self.counts["kept"] += len(made)
            return
        found = [self._found(path.name, lambda path: coco.made_from(path) == archive.sha256) for path in made.values()]
        if all(found):
            for ready, path in zip(found, made.values(), strict=True):
                self._copy(ready, path)
            return
        path = self._found(archive.path, lambda path: _is(path, archive))
        if self.source is None:
            path = self.folder / archive.path
            self._files([archive])
        elif path is None:
            raise DataError(f"{Path(archive.path).name} is not in {self.source}, or is not the official file.")
        synonyms = self.folder / self.sources.chair[0].path
        coco.write_objects(
            path,
            archive.sha256,
            synonyms,
            self.folder / "chair",
            lambda done, total: self.progress("tables", done, total),
        )
        if self.source is None:
            path.unlink()

    def _amber(self) -> None:
        self._files(self.sources.amber)
        self._pictures(self._amber_pictures(), sources.AMBER)

    def _amber_pictures(self) -> list[str]:
        return [f"AMBER_{number}.jpg" for number in range(1, self.sources.amber_pictures + 1)]

    def _mme(self) -> None:
        if self.source is None:
            raise DataError(sources.MME)
        first = next(self.source.rglob(f"{MME_PARTS[0]}/*.txt"), None)
        if first is None:
            raise DataError(f"There is no {MME_PARTS[0]}/*.txt in {self.source}. {sources.MME}")
        pairs, lacking = [], []
        for part in MME_PARTS:
            pictures = {path.stem: path for path in (first.parents[1] / part).glob("*") if path.suffix in SUFFIXES}
            texts = sorted((first.parents[1] / part).glob("*.txt"))
            lacking += [] if texts else [f"{part}/*.txt"]
            for text in texts:
                pairs += [(path, part) for path in (text, pictures.get(text.stem)) if path]
                lacking += [] if text.stem in pictures else [f"{part}/{text.stem}.jpg"]
        self._lack(lacking, len(pairs) + len(lacking), "files")
        for path, part in pairs:
            self._copy(path, self.folder / "mme" / part / path.name, None if path.suffix == ".txt" else _whole)

    def _audio(self) -> None:
        if self.source is None:
            raise DataError(sources.AUDIO)
        tables = sorted(path for name, paths in self._index.items() if name.endswith(".tsv") for path in paths)
        if not tables:
            raise DataError(f"There is no TSV file in {self.source}. {sources.AUDIO}")
        names = {f"{question.audio.removesuffix('.wav')}.wav": 0 for path in tables for question in audio.read(path)}
        self._lack([name for name in names if name not in self._index], len(names), "sounds")
        for path in [*tables, *(self._index[name][0] for name in names)]:
            self._copy(path, self.folder / "audio" / path.name)

    def _files(self, files: Sequence[File]) -> None:
        lacking = []
        for file in files:
            path = self.folder / file.path
            if _is(path, file):
                self.counts["kept"] += 1
            elif self.source is None:
                self._fetch(file, path)
            elif found := self._found(file.path, lambda path, file=file: _is(path, file)):
                self._copy(found, path)
            elif path.name in self._index:
                raise DataError(f"{self._index[path.name][0]} is not the official file: its sha256 is another.")
            else:
                lacking.append(path.name)
        self._lack(lacking, len(files), "files")

    def _fetch(self, file: File, path: Path) -> None:
        url = f"{getattr(self.sources, file.host)}/{file.address}"

        def check(part: Path) -> None:
            if not _is(part, file):
                raise DataError(f"{url} sent another file than the official one (by its sha256): it was removed.")

        self.downloader.fetch(url, path, check, file.size, lambda done: self.progress(path.name, done, file.size))
        self.counts["fetched"] += 1

    def _pictures(self, names: Sequence[str], by_hand: str | None = None) -> None:
        """Those that are lacking or damaged, several at once. by_hand: where they are, if they are not fetched."""
        names = list(dict.fromkeys(names))
        wanted = [name for name in names if not self._has(name)]
        self.counts["kept"] += len(names) - len(wanted)
        if wanted and by_hand and self.source is None:
            count = f"{len(wanted)} of {len(names)} pictures"
            raise DataError(f"{count} are not there and cannot be fetched ({_first(wanted)}). {by_hand}")
        failed, arrived, in_a_row = {}, set(), 0
        with closing(self.downloader.each(self._picture, wanted)) as ended:
            for name, error in ended:
                if error is None:
                    arrived.add(name)
                elif isinstance(error, DataError):
                    failed[name] = error
                else:
                    raise error
                in_a_row = in_a_row + 1 if error and self.source is None else 0
                self.progress(PICTURES, len(names) - len(wanted) + len(arrived), len(names))
                if in_a_row == self.patience:
                    break
        self.counts["fetched" if self.source is None else "copied"] += len(arrived)
        lacking = [name for name in wanted if name not in arrived]
        if self.source is not None:
            self._lack(lacking, len(names), PICTURES)
        elif lacking:
            reason = failed[next(name for name in lacking if name in failed)]
            raise DataError(
                f"{len(lacking)} of {len(names)} pictures did not arrive ({_first(lacking)}). {reason} "
                "The same command tries them again."
            )

    def _has(self, name: str) -> bool:
        try:
            _whole(self.folder / "images" / name)
        except (DataError, FileNotFoundError):
            return False
        return True

    def _picture(self, name: str) -> None:
        path = self.folder / "images" / name
        if self.source is None:
            self.downloader.fetch(f"{self.sources.coco}/val2014/{name}", path, _whole)
        elif name in self._index:
            self._copy(self._index[name][0], path, _whole, count=False)
        else:
            raise DataError(f"{name} is not in {self.source}.")

    def _copy(self, found: Path, path: Path, check: Callable[[Path], None] | None = None, count: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = path.with_name(f"{path.name}.copy")
        try:
            shutil.copyfile(found, copy)
            if check is not None:
                check(copy)
            os.replace(copy, path)
        finally:
            copy.unlink(missing_ok=True)
        self.counts["copied"] += count

    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        """All files in `source`, at any depth, by name."""
        found: dict[str, list[Path]] = {}
        for place, _, names in os.walk(self.source) if self.source else ():
            for name in names:
                found.setdefault(name, []).append(Path(place) / name)
        return found

    def _found(self, name: str, right: Callable[[Path], bool]) -> Path | None:
        return next(filter(right, self._index.get(Path(name).name, [])), None)

    def _lack(self, lacking: Sequence[str], total: int, what: str) -> None:
        if lacking:
            count = f"{len(lacking)} of {total} {what}"
            raise DataError(f"{count} are not in {self.source}, or are damaged: {_first(lacking)}.")


def _sized(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _is(path: Path, file: File) -> bool:
    """Whether a file is the official one."""
    if not _sized(path, file):
        return False
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256


def _whole(path: Path) -> None:
    """Raises `DataError` for what is no picture or not all of it."""
    try:
        open_image(path.read_bytes())
    except MediaError as error:
        problem = str(error).partition(": ")[2]
        raise DataError(f"{path.name.removesuffix('.part').removesuffix('.copy')}: {problem}") from error


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
