"""Make tests/fixtures/agreement: what the scorers are compared with where the benchmarks' files are not at hand.

    python benchmarks/agreement_fixtures.py ../shared/data/reference ../shared/data/amber

The first folder has answers with the verdicts and figures of the official programs. No text of a benchmark or of a
model is written: answers keep only the letters that a parser looks for, words of AMBER become numbers, and captions
become counts.
"""

import argparse
import json
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "agreement"
# What the official parsers look for; all other letters are masked.
KEPT = re.compile(r"yes|not|no|doesn't|contain|unable|can't|\b(?:there|is|does)\b", re.IGNORECASE)
VERDICTS = (
    "pope_evaluate",
    "vcd_contains_yes",
    "vcd_contains_no",
    "mme_prefix4",
    "audio_interspeech2024",
    "audio_icassp2025",
)


def masked(answer: str) -> str:
    """The answer with an x for each letter and a 0 for each digit that no parser looks for."""
    parts, end = [], 0
    for match in KEPT.finditer(answer):
        parts += [_hidden(answer[end : match.start()]), match.group()]
        end = match.end()
    return "".join([*parts, _hidden(answer[end:])])


def _hidden(text: str) -> str:
    return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "0", text))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def yes_no(reference: Path) -> list[dict]:
    """The masked answers, with the verdict of each official parser."""
    return [
        {"id": sha256(case["text"].encode()).hexdigest()[:12], "answer": masked(case["text"])}
        | {name: case[name] for name in VERDICTS}
        for case in lines(reference / "yesno" / "cases.jsonl")
    ]


def pope(reference: Path) -> dict:
    """How often each masked answer was given to questions of each label, with the figures of both programs."""
    cells: dict[str, Counter] = {}
    for case in lines(reference / "pope" / "cases.jsonl"):
        cell = cells.setdefault(f"{case['model']}/{case['category']}", Counter())
        cell[case["label"], masked(case["answer"])] += 1
    official = json.loads((reference / "pope" / "overall.json").read_text())
    return {
        name: {"answers": sorted([*key, count] for key, count in cell.items()), **official[name]}
        for name, cell in cells.items()
    }


def chair(reference: Path) -> dict:
    """How often each tuple of counts (mentioned, hallucinated, covered, present) occurs, with the official figures."""
    sets: dict[str, dict[str, Counter]] = {}
    for case in lines(reference / "chair" / "cases.jsonl"):
        for mode in ("pattern", "wordnet"):
            verdict = case["pattern"] if mode == "pattern" or case["wordnet"].get("same") else case["wordnet"]
            truth, named = set(case["gt"][mode]), {name for _, name, _ in verdict["objects"]}
            counts = len(verdict["objects"]), len(verdict["hallucinated"]), len(named & truth), len(truth)
            sets.setdefault(case["set"], {}).setdefault(mode, Counter())[counts] += 1
    official = json.loads((reference / "chair" / "overall.json").read_text())
    return {
        name: {
            mode: {"counts": sorted([*key, count] for key, count in counter.items()), "official": official[name][mode]}
            for mode, counter in modes.items()
        }
        for name, modes in sets.items()
    }


def amber(reference: Path, benchmark: Path) -> dict:
    """The nouns, truths and counts of the official program; each word is a number."""
    stored = json.loads((reference / "amber" / "generative_exact.json").read_text())
    relation = json.loads((benchmark / "relation.json").read_text())
    safe = (benchmark / "safe_words.txt").read_text().split()
    numbers: dict[str, str] = {}

    def hidden(words: list[str]) -> list[str]:
        return [numbers.setdefault(word, f"w{len(numbers)}") for word in words]

    counts = ("chair_score", "chair_num", "cover_score", "cover_num", "cog_score", "cog_num", "non_hallu")
    cases = [
        {key: hidden(case[key]) for key in ("nouns_in_vocab", "truth", "hallu")} | {key: case[key] for key in counts}
        for case in stored["cases"]
    ]
    used = {
        numbers[word]: [numbers[other] for other in others if other in numbers]
        for word, others in relation.items()
        if word in numbers
    }
    return {
        "overall": stored["overall"],
        "relation": used,
        "safe": [numbers[word] for word in safe if word in numbers],
        "cases": cases,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("amber", type=Path)
    arguments = parser.parse_args()
    FIXTURES.mkdir(parents=True, exist_ok=True)
    made = {
        "yes_no": yes_no(arguments.reference),
        "pope": pope(arguments.reference),
        "chair": chair(arguments.reference),
        "amber": amber(arguments.reference, arguments.amber),
    }
    for name, content in made.items():
        text = json.dumps(content, separators=(",", ":"))
        (FIXTURES / f"{name}.json").write_text(re.sub(r"(?<=[}\]]),(?=[{\[\"])", ",\n", text) + "\n")


if __name__ == "__main__":
    main()
