"""CHAIR caption by caption: lmms-eval's own reading, the official program's, and ours.

    python benchmarks/lmms_agreement.py ../shared/data lmms-eval/lmms_eval/tasks/coco_cap_chair/utils.py --tagger FILE

The second argument is lmms-eval's file, which is run as it is. It asks NLTK for tokens, tags and lemmas; it gets those
that NLTK gave for the stored captions, so that no NLTK data is needed. Compared are the objects of a caption that are
not in its picture.
"""

import argparse
import gzip
import json
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from agreement import lines

from lime_mlx.evaluate.scorers import tagger
from lime_mlx.evaluate.scorers.chair import ObjectFinder, read_synonyms

Reading = Callable[[str, Sequence[tuple[str, str]]], list[str]]


def their_reading(program: Path, lemmas: dict[str, str]) -> Reading:
    """lmms-eval's objects of a caption with these tokens and tags."""
    tagged: list[tuple[str, str]] = []
    waiting: Iterator[tuple[str, str]] = iter(())

    class Lemmatizer:
        def lemmatize(self, word: str, pos: str) -> str:
            _, tag = next(waiting)
            return lemmas.get(f"{word}|{tag}", word)

    nltk, corpus, stem = (ModuleType(name) for name in ("nltk", "nltk.corpus", "nltk.stem"))
    wordnet = ModuleType("wordnet")
    vars(wordnet).update(ADJ="a", VERB="v", NOUN="n", ADV="r")
    vars(nltk).update(word_tokenize=lambda _: [word for word, _ in tagged], pos_tag=lambda _: list(tagged))
    vars(corpus).update(wordnet=wordnet)
    vars(stem).update(WordNetLemmatizer=Lemmatizer)
    sys.modules.update({module.__name__: module for module in (nltk, corpus, stem)})
    caption_to_words = runpy.run_path(str(program))["caption_to_words"]

    def read(caption: str, tokens: Sequence[tuple[str, str]]) -> list[str]:
        nonlocal waiting
        tagged[:], waiting = tokens, iter(tokens)
        _, objects, _, _ = caption_to_words(caption)
        return list(objects)

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("program", type=Path)
    parser.add_argument("--tagger", type=Path)
    options = parser.parse_args()
    folder = options.data / "reference/chair"
    theirs = their_reading(options.program, json.loads((folder / "token_lemmas.json").read_text())["wordnet"])
    tags = tagger.of_material(tagger.material_of(options.tagger)) if options.tagger else None
    finder = ObjectFinder(read_synonyms(options.data / "chair/synonyms.txt"), "wordnet", tags)
    cases = {(case["set"], case["image_id"]): case for case in lines(folder / "cases.jsonl")}
    count = official_is_theirs = ours_is_theirs = 0
    with gzip.open(folder / "tokens_tags.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            name, image, tokens = json.loads(line)
            case = cases[name, image]
            truth = set(case["gt"]["wordnet"])
            wrong = {kind for kind in theirs(case["caption"], tokens) if kind not in truth}
            official = case["pattern"] if case["wordnet"].get("same") else case["wordnet"]
            ours = {mention.name for mention in finder.find(case["caption"]).hallucinated(truth)}
            count += 1
            official_is_theirs += wrong == {kind for _, kind, _ in official["hallucinated"]}
            ours_is_theirs += wrong == ours
    print(f"{count} captions: lmms-eval equals the official program in {official_is_theirs}, ours in {ours_is_theirs}")


if __name__ == "__main__":
    main()
