"""How many free answers to yes/no questions a method spoils: "Is there a dog in the picture?", up to 24 tokens.

Two random and two adversarial questions about each of the ordinary scenes from seed 100,000 on, to the picture demo. An
answer is spoilt where it does not hold the noun that was asked about, or says yes or no more than twice.

    python benchmarks/free_yes_no.py
    python benchmarks/free_yes_no.py --scenes 100 --method none --method m3id
    python benchmarks/free_yes_no.py --photographs FOLDER   # 30 photographs, which the demo never learned
"""

import argparse
import random
import re
from pathlib import Path

from PIL import Image

from lime_mlx import blas, generate, load
from lime_mlx.media.image import open_image
from lime_mlx.scenes import make_scene
from lime_mlx.scenes.language import Question, questions

FIRST, TOKENS = 100_000, 24
STRATEGIES = ("random", "adversarial")
NOUNS = ("dog", "cat", "bus", "car")


def spoilt(text: str, noun: str) -> bool:
    return noun not in text.lower() or len(re.findall(r"\b(?:yes|no)\b", text.lower())) > 2


def pictures_and_questions(scenes: int) -> list[tuple[Image.Image, Question]]:
    """The pictures of as many scenes, each with its four questions."""
    return [
        (scene.image, question)
        for scene in (make_scene(seed, "ordinary") for seed in range(FIRST, FIRST + scenes))
        for strategy in STRATEGIES
        for question in questions(scene, strategy, random.Random(f"{strategy}/{scene.seed}"))[:2]
    ]


def photographs_and_questions(folder: Path, count: int) -> list[tuple[Image.Image, Question]]:
    """The first JPEG files of a folder by name, each with four questions, to which nobody knows the answer."""
    return [
        (open_image(path), Question(f"Is there a {noun} in the picture?", noun, ""))
        for path in sorted(folder.rglob("*.jpg"))[:count]
        for noun in NOUNS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="ask about as many of these instead")
    parser.add_argument("--method", action="append", help="a spec; repeat it  [default: none and lime]")
    arguments = parser.parse_args()
    blas.load_blas()
    model, processor = load("demo")
    if arguments.photographs is None:
        questions_of = pictures_and_questions(arguments.scenes)
    else:
        questions_of = photographs_and_questions(arguments.photographs, arguments.scenes)
    for method in arguments.method or ("none", "lime"):
        pairs = []
        for image, question in questions_of:
            answer = generate(model, processor, question.text, image, method=method, max_tokens=TOKENS)
            pairs.append((question, answer.text))
        wrong = [(question.text, text) for question, text in pairs if spoilt(text, question.kind)]
        example = f", such as {wrong[0][0]!r} -> {wrong[0][1]!r}" if wrong else ""
        print(f"{method}: {len(wrong)} of {len(pairs)} answers spoilt{example}", flush=True)


if __name__ == "__main__":
    main()
