"""How near our scorers come to the official programs: the table in docs/evaluate.md.

    python benchmarks/agreement.py ../shared/data --tagger ~/.cache/lime-mlx/tagger/averaged_perceptron_tagger_eng.zip

The folder has the captions and answers with the verdicts and figures of the official programs. The sets of captions are
printed in two halves, the odd and the even ones in alphabetical order: rules may be chosen on the first only.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lime_mlx.evaluate.records import Record
from lime_mlx.evaluate.scorers import amber, tagger
from lime_mlx.evaluate.scorers.chair import ObjectFinder, read_synonyms
from lime_mlx.evaluate.scorers.metrics import captions

FIGURES = {"CHAIR_S": "CHAIRs", "CHAIR_I": "CHAIRi", "recall": "Recall"}
LARGE, NEAR = 200, 0.3


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def differences(finder: ObjectFinder, cases: Sequence[dict], against: str, overall: dict) -> Iterator[tuple]:
    """Of each set: its name, its captions, those with the official hallucinated set, and the differences in points."""
    for name in dict.fromkeys(case["set"] for case in cases):
        part = [case for case in cases if case["set"] == name]
        rows, same = [], 0
        for case in part:
            official = case["pattern"] if against == "pattern" or case["wordnet"].get("same") else case["wordnet"]
            truth, objects = set(case["gt"][against]), finder.find(case["caption"])
            wrong = {mention.name for mention in objects.hallucinated(truth)}
            same += wrong == {kind for _, kind, _ in official["hallucinated"]}
            rows.append(objects.counts(truth))
        records: list[Record] = [{"id": str(n), "medium": str(n)} for n in range(len(rows))]
        values = {metric.name: metric.value for metric in captions(records, "all", rows, [0] * len(rows))}
        points = {ours: 100 * abs(values[ours] - overall[name][against][theirs]) for ours, theirs in FIGURES.items()}
        yield name, len(part), same, points


def chair(data: Path, tags: tagger.Tagger | None) -> None:
    cases = lines(data / "reference/chair/cases.jsonl")
    overall = json.loads((data / "reference/chair/overall.json").read_text())
    names = sorted({case["set"] for case in cases})
    synonyms = read_synonyms(data / "chair/synonyms.txt")
    pairs: list[tuple[str, tagger.Tagger | None, str]] = [("pattern", None, "pattern"), ("wordnet", None, "wordnet")]
    pairs += [("wordnet", tags, "wordnet")] if tags else []
    for mode, given, against in [*pairs, ("ours", None, "pattern"), ("ours", None, "wordnet")]:
        finder = ObjectFinder(synonyms, mode, given)
        for half, kept in (("first half", names[::2]), ("other half", names[1::2]), ("all", names)):
            rows = list(differences(finder, [case for case in cases if case["set"] in kept], against, overall))
            total, same = sum(row[1] for row in rows), sum(row[2] for row in rows)
            largest = {name: round(max(row[3][name] for row in rows), 2) for name in FIGURES}
            far = sum(points > NEAR for _, count, _, all_ in rows if count >= LARGE for points in all_.values())
            label = f"{mode}{' with the tagger' if given else ''} against {against}, {half}"
            print(f"{label}: {same / total:.2%} of {total} hallucinated sets; largest {largest}; {far} far in large")


def emphasis(data: Path) -> None:
    """Recall where every third object word is in bold."""
    cases = lines(data / "reference/chair/cases.jsonl")
    synonyms = read_synonyms(data / "chair/synonyms.txt")
    words = sorted((word for line in synonyms for word in line), key=len, reverse=True)
    spelled = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})(?:e?s)?\b", re.IGNORECASE)
    for mode in ("ours", "pattern", "wordnet"):
        finder = ObjectFinder(synonyms, mode)
        for every in (0, 3):
            rows = [
                finder.find(_bold(spelled, case["caption"], every)).counts(set(case["gt"]["pattern"])) for case in cases
            ]
            recall = sum(row[2] for row in rows) / sum(row[3] for row in rows)
            print(f"{mode}, {'one object word of three in bold' if every else 'plain'}: recall {recall:.2%}")


def _bold(spelled: re.Pattern[str], text: str, every: int) -> str:
    """The text with one of `every` words in bold; as it is with 0."""
    parts, words = spelled.split(text), spelled.findall(text)
    marked = [f"**{word}**" if every and number % every == 0 else word for number, word in enumerate(words)]
    return "".join(part for pair in zip(parts, [*marked, ""], strict=True) for part in pair)


def nouns(data: Path, tags: tagger.Tagger | None) -> None:
    reference = json.loads((data / "reference/amber/generative_exact.json").read_text())
    relation = json.loads((data / "amber/relation.json").read_text())
    safe = (data / "amber/safe_words.txt").read_text().split()
    for name, given in (("guessed", None), *((("by the tagger", tags),) if tags else ())):
        rows = [
            amber.describe(case["response"], case["truth"], case["hallu"], relation, safe, given)._asdict()
            for case in reference["cases"]
        ]
        cases = zip(rows, reference["cases"], strict=True)
        same = sum(all(row[key] == case[key] for key in row) for row, case in cases)
        wrong = sum(not row["non_hallu"] for row in rows) / len(rows)
        share = sum(row["chair_score"] for row in rows) / sum(row["chair_num"] for row in rows)
        official = {key: reference["overall"][key] for key in ("CHAIR", "Hal")}
        print(f"AMBER, nouns {name}: {same} of {len(rows)} equal; CHAIR {share:.1%}, Hal {wrong:.1%}; {official}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tagger", type=Path)
    options = parser.parse_args()
    tags = tagger.of_material(tagger.material_of(options.tagger))
    nouns(options.data, tags)
    emphasis(options.data)
    chair(options.data, tags)


if __name__ == "__main__":
    main()
