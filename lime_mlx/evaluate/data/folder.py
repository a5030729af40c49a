"""A folder of data, and how the files of a benchmark get into it: downloaded, or copied from a folder of the user.

Downloads come from the official addresses. The folder is laid out as `lime-mlx evaluate --data` reads it (`layout`).
"""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from lime_mlx.errors import DataError, MediaError
from lime_mlx.evaluate.data import coco, sources
from lime_mlx.evaluate.data.download import Downloader
from lime_mlx.evaluate.data.layout import (
    AMBER,
    AUDIO,
    CHAIR,
    IMAGES,
    MME,
    MME_PARTS,
    POPE,
    WITH_FILES,
    object_tables,
)
from lime_mlx.evaluate.data.sources import File, Sources
from lime_mlx.evaluate.store import Store
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.evaluate.tasks.audio import read_questions
from lime_mlx.evaluate.tasks.mme import pictures_of
from lime_mlx.evaluate.tasks.pope import Pope
from lime_mlx.media.formats import is_picture_name
from lime_mlx.media.image import open_image

# How many names an error lists.
SHOWN = 3
PICTURES, TABLES = "pictures", "tables"


@dataclass
class DataFolder:
    """A folder of data, and how it is filled.

    source: a folder to copy from; nothing is downloaded then. progress: called with the name of what is at work, how
    much of it is done, and how much there is: bytes of a file, numbers of pictures and of tables. patience: after this
    many pictures that fail one after the other, the others are not tried. counts: files that were "fetched", "copied",
    and "kept" because they were complete.
    """

    folder: Path
    source: Path | None = None
    sources: Sources = field(default_factory=Sources)
    downloader: Downloader = field(default_factory=Downloader)
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    patience: int = 16
    counts: Counter[str] = field(default_factory=Counter)

    def get(self, task: str, sets: Sequence[str] = ("coco",), limit: int | None = None, seed: int = 0) -> None:
        """Get the files of one of `WITH_FILES`. Complete files are kept; an interrupted call can be repeated.

        sets: of POPE. limit: get only the pictures that evaluate --limit and --seed ask about (POPE and CHAIR).

        Raises:
            DataError: files are missing in `source`, do not arrive or are not the official ones, or they cannot be
                downloaded. The error says where to get them.
        """
        getters: dict[str, Callable[[], None]] = {
            POPE: partial(self._pope, sets, limit, seed),
            CHAIR: partial(self._chair, limit, seed),
            AMBER: self._amber,
            MME: self._mme,
            AUDIO: self._audio,
            **{name: partial(self._other, name) for name in self.sources.others},
        }
        if task not in getters:
            raise DataError(f"The task {task!r} has no files; choose one of {', '.join(WITH_FILES)}.")
        if self.source is not None and not self.source.is_dir():
            raise DataError(f"There is no folder {self.source} to take files from; check --from.")
        with Store(self.folder).locked():
            getters[task]()

    def state(self) -> Iterator[tuple[str, str, str]]:
        """Each task, its files and its pictures or sounds that are in the folder, judged by name and size."""
        pope = {f"pope:set={name}": files for name, files in self.sources.pope.items()}
        tagged = {CHAIR: self.sources.chair, AMBER: self.sources.amber}
        for task, files in {**pope, **{task: (*files, *self.sources.tagger) for task, files in tagged.items()}}.items():
            complete = [_has_size(self.folder / file.path, file) for file in files]
            if task == CHAIR:
                complete += [path.is_file() for path in object_tables(self.folder / CHAIR).values()]
            yield task, f"{sum(complete)} of {len(complete)}", self._pictures_of(task)
        mme, audio = self.folder / MME, self.folder / AUDIO
        yield MME, _count(mme.glob("*/*.txt")), _count(filter(is_picture_name, mme.glob("*/*")))
        yield AUDIO, _count(audio.glob("*.tsv")), _count(audio.glob("*.wav"))
        for task, files in self.sources.others.items():
            complete = [_has_size(self.folder / file.path, file) for file in files]
            paths = self._other_pictures(task).values() if all(complete) else []
            pictures = f"{sum(path.is_file() for path in paths)} of {len(paths)}" if paths else "?"
            yield task, f"{sum(complete)} of {len(files)}", pictures

    def _pictures_of(self, task: str) -> str:
        """How many pictures of a task are in the folder; "?" where its questions are not."""
        names = self._amber_pictures() if task == AMBER else []
        with suppress(DataError):
            names = names or list(dict.fromkeys(self._question_pictures(task.partition("=")[2] or "coco", "random")))
        complete = sum((self.folder / IMAGES / name).is_file() for name in names)
        return f"{complete} of {len(names)}" if names else "?"

    def _pope(self, sets: Sequence[str], limit: int | None, seed: int) -> None:
        for name in sets:
            self._files(self.sources.pope[name])
        for name in sets:
            pictures = self._question_pictures(name, "all", limit, seed)
            self._pictures(pictures, sources.GQA if name == "gqa" else None)

    def _question_pictures(self, name: str, split: str, limit: int | None = None, seed: int = 0) -> list[str]:
        """The pictures that the questions of a set of POPE are about."""
        return [item.medium for item in Pope(set=name, split=split).items(self.folder, limit, seed)]

    def _chair(self, limit: int | None, seed: int) -> None:
        """For the pictures of POPE's COCO files; one split names all of these."""
        questions = [file for file in self.sources.pope["coco"] if "random" in file.path]
        self._files([*self.sources.chair, *questions])
        self._tagger()
        self._objects()
        self._pictures(self._question_pictures("coco", "random", limit, seed))

    def _objects(self) -> None:
        """The tables of objects: made from the annotations, which are removed afterwards."""
        paths, archive = list(object_tables(self.folder / CHAIR).values()), self.sources.annotations
        if all(coco.made_from(path) == archive.sha256 for path in paths):
            self.counts["kept"] += len(paths)
            return
        ready = [self._search(path.name, lambda file: coco.made_from(file) == archive.sha256) for path in paths]
        copies = [(file, path) for file, path in zip(ready, paths, strict=True) if file is not None]
        if len(copies) == len(paths):
            for file, path in copies:
                self._copy(file, path)
            return
        annotations = self._annotations(archive)
        coco.write_objects(
            annotations,
            archive.sha256,
            self.folder / self.sources.chair[0].path,
            self.folder / CHAIR,
            lambda done, total: self.progress(TABLES, done, total),
        )
        if self.source is None:
            annotations.unlink()

    def _annotations(self, archive: File) -> Path:
        if self.source is None:
            self._files([archive])
            return self.folder / archive.path
        path = self._search(archive.path, lambda file: _is_official(file, archive))
        if path is None:
            raise DataError(f"{Path(archive.path).name} is not in {self.source}, or is not the official file.")
        return path

    def _amber(self) -> None:
        self._files(self.sources.amber)
        self._tagger()
        self._pictures(self._amber_pictures(), sources.AMBER)

    def _amber_pictures(self) -> list[str]:
        return [f"AMBER_{number}.jpg" for number in range(1, self.sources.amber_pictures + 1)]

    def _mme(self) -> None:
        if self.source is None:
            raise DataError(sources.MME)
        first = next(self.source.rglob(f"{MME_PARTS[0]}/*.txt"), None)
        if first is None:
            raise DataError(f"There is no {MME_PARTS[0]}/*.txt in {self.source}. {sources.MME}")
        files, lacking = [], []
        for part in MME_PARTS:
            complete, missing = _mme_part(first.parents[1] / part)
            files += complete
            lacking += missing
        self._require(lacking, len(files) + len(lacking), "files")
        for path in files:
            check = None if path.suffix == ".txt" else _check_picture
            self._copy(path, self.folder / MME / path.parent.name / path.name, check)

    def _audio(self) -> None:
        if self.source is None:
            raise DataError(sources.AUDIO)
        question_files = sorted(path for name, paths in self._index.items() if name.endswith(".tsv") for path in paths)
        if not question_files:
            raise DataError(f"There is no TSV file in {self.source}. {sources.AUDIO}")
        questions = (question for path in question_files for question in read_questions(path))
        names = list(dict.fromkeys(question.file for question in questions))
        self._require([name for name in names if name not in self._index], len(names), "sounds")
        for path in [*question_files, *(self._index[name][0] for name in names)]:
            self._copy(path, self.folder / AUDIO / path.name)

    def _other(self, task: str) -> None:
        """The question files of a task, and its pictures, which only a folder of the user can have."""
        self._files(self.sources.others[task])
        pictures = self._other_pictures(task)
        wanted = {name: path for name, path in pictures.items() if not _is_picture(path)}
        self.counts["kept"] += len(pictures) - len(wanted)
        if wanted and self.source is None:
            count = f"{len(wanted)} of {len(pictures)} pictures"
            raise DataError(
                f"{count} are not there and cannot be fetched ({_first(list(wanted))}). {sources.PICTURES[task]}"
            )
        lacking = []
        for done, (name, path) in enumerate(wanted.items(), start=1):
            # Names repeat in several folders: the end of the path tells.
            files = [file for file in self._index.get(path.name, []) if file.as_posix().endswith(f"/{name}")]
            if files:
                self._copy(files[0], path, _check_picture)
            else:
                lacking.append(name)
            self.progress(PICTURES, done, len(wanted))
        self._require(lacking, len(pictures), PICTURES)

    def _other_pictures(self, task: str) -> dict[str, Path]:
        """The place of each picture that the questions of a task are about."""
        benchmark = parse_task(task)
        media = dict.fromkeys(item.medium for item in benchmark.items(self.folder))
        places = {name: benchmark.source(self.folder, name) for name in media}
        return {name: path for name, path in places.items() if isinstance(path, Path)}

    def _files(self, files: Sequence[File]) -> None:
        lacking = []
        for file in files:
            path = self.folder / file.path
            if _is_official(path, file):
                self.counts["kept"] += 1
            elif self.source is None:
                self._fetch(file, path)
            elif official := self._search(file.path, partial(_is_official, file=file)):
                self._copy(official, path)
            elif path.name in self._index:
                raise DataError(f"{self._index[path.name][0]} is not the official file: its sha256 is another.")
            else:
                lacking.append(path.name)
        self._require(lacking, len(files), "files")

    def _tagger(self) -> None:
        """Get the weights of the tagger; a folder of the user may lack them, then parts of speech are guessed."""
        self._files(
            [file for file in self.sources.tagger if self.source is None or Path(file.path).name in self._index]
        )

    def _fetch(self, file: File, path: Path) -> None:
        url = f"{getattr(self.sources, file.host)}/{file.address}"

        def check(part: Path) -> None:
            if not _is_official(part, file):
                raise DataError(f"{url} sent another file than the official one (by its sha256): it was removed.")

        self.downloader.fetch(url, path, check, file.size, lambda done: self.progress(path.name, done, file.size))
        self.counts["fetched"] += 1

    def _pictures(self, names: Sequence[str], by_hand: str | None = None) -> None:
        """Get the pictures that are missing or damaged, several at once.

        by_hand: where the user finds them, if they cannot be fetched.
        """
        names = list(dict.fromkeys(names))
        wanted = [name for name in names if not self._has(name)]
        self.counts["kept"] += len(names) - len(wanted)
        if wanted and by_hand and self.source is None:
            count = f"{len(wanted)} of {len(names)} pictures"
            raise DataError(f"{count} are not there and cannot be fetched ({_first(wanted)}). {by_hand}")
        arrived, failed = self._get_pictures(wanted, len(names))
        self.counts["fetched" if self.source is None else "copied"] += len(arrived)
        lacking = [name for name in wanted if name not in arrived]
        if self.source is not None:
            self._require(lacking, len(names), PICTURES)
        elif lacking:
            reason = failed[next(name for name in lacking if name in failed)]
            raise DataError(
                f"{len(lacking)} of {len(names)} pictures did not arrive ({_first(lacking)}). {reason} "
                "The same command tries them again."
            )

    def _get_pictures(self, wanted: Sequence[str], total: int) -> tuple[set[str], dict[str, DataError]]:
        """The names that arrived, and the errors of others. Ends after `patience` failures in a row."""
        arrived: set[str] = set()
        failed: dict[str, DataError] = {}
        in_a_row = 0
        with closing(self.downloader.each(self._picture, wanted)) as ended:
            for name, error in ended:
                if error is None:
                    arrived.add(name)
                elif isinstance(error, DataError):
                    failed[name] = error
                else:
                    raise error
                in_a_row = in_a_row + 1 if error and self.source is None else 0
                self.progress(PICTURES, total - len(wanted) + len(arrived), total)
                if in_a_row == self.patience:
                    break
        return arrived, failed

    def _has(self, name: str) -> bool:
        return _is_picture(self.folder / IMAGES / name)

    def _picture(self, name: str) -> None:
        path = self.folder / IMAGES / name
        if self.source is None:
            self.downloader.fetch(f"{self.sources.coco}/val2014/{name}", path, _check_picture)
        elif name in self._index:
            self._copy(self._index[name][0], path, _check_picture, count=False)
        else:
            raise DataError(f"{name} is not in {self.source}.")

    def _copy(self, file: Path, path: Path, check: Callable[[Path], None] | None = None, count: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = path.with_name(f"{path.name}.copy")
        try:
            shutil.copyfile(file, copy)
            if check is not None:
                check(copy)
            os.replace(copy, path)
        finally:
            copy.unlink(missing_ok=True)
        self.counts["copied"] += count

    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        """All files in `source`, at any depth, by name."""
        index: dict[str, list[Path]] = {}
        for folder, _, names in os.walk(self.source) if self.source else ():
            for name in names:
                index.setdefault(name, []).append(Path(folder) / name)
        return index

    def _search(self, name: str, accepts: Callable[[Path], bool]) -> Path | None:
        """A file of that name in `source` that `accepts`."""
        return next(filter(accepts, self._index.get(Path(name).name, [])), None)

    def _require(self, lacking: Sequence[str], total: int, what: str) -> None:
        """Raise `DataError` where something is lacking in `source`."""
        if lacking:
            count = f"{len(lacking)} of {total} {what}"
            raise DataError(f"{count} are not in {self.source}, or are damaged: {_first(lacking)}.")


def _mme_part(folder: Path) -> tuple[list[Path], list[str]]:
    """The text files and pictures of one part of MME, and the names of those that are missing."""
    pictures = pictures_of(folder)
    texts = sorted(folder.glob("*.txt"))
    if not texts:
        return [], [f"{folder.name}/*.txt"]
    files = [path for text in texts for path in (text, pictures.get(text.stem)) if path]
    return files, [f"{folder.name}/{text.stem}.jpg" for text in texts if text.stem not in pictures]


def _count(files: Iterable[Path]) -> str:
    return str(sum(1 for _ in files))


def _has_size(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _is_official(path: Path, file: File) -> bool:
    """Whether a file has the size and the sha256 of the official one."""
    if not _has_size(path, file):
        return False
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256


def _check_picture(path: Path) -> None:
    """Raises `DataError` for a file that is no picture, or is incomplete."""
    try:
        open_image(path.read_bytes())
    except MediaError as error:
        problem = str(error).partition(": ")[2]
        raise DataError(f"{path.name.removesuffix('.part').removesuffix('.copy')}: {problem}") from error


def _is_picture(path: Path) -> bool:
    try:
        _check_picture(path)
    except (DataError, FileNotFoundError):
        return False
    return True


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
