"""From the text of an answer to a verdict: our parser, and the parsers of the official scorers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

YES, NO, UNKNOWN = "yes", "no", "unknown"

_LEAD = re.compile(
    r"^[^a-z0-9]*(?:(?:answer|response|a)\s*[:\-]\s*)?[^a-z0-9]*"
    r"(?:the (?:correct )?answer is\s*[:\-]?\s*)?\W*"
)
_CANNOT = r"(?:can ?not|can't|could ?n[o']t|unable to|not able to) (?:\w+ ){0,2}?"
_PERCEIVE = r"(?:see|hear|find|spot|detect|identify|recogni[sz]e|observe|notice|locate|make out)"
_INPUT = r"(?:image|picture|photo(?:graph)?|scene|video|audio|clip|recording|sound(?! of))"
# Who sees nothing at all cannot say; who cannot see any dogs says no.
_UNSURE = re.compile(
    rf"\b(?:yes or no|(?:{_CANNOT}|(?:not possible|impossible|difficult|hard) to (?:\w+ ){{0,2}}?)"
    r"(?:tell|say|determine|know|answer|confirm|verify|be sure|provide|help|assist|access|view|process)"
    rf"|(?:impossible|difficult|hard) to (?:\w+ ){{0,2}}?{_PERCEIVE}"
    rf"|{_CANNOT}{_PERCEIVE}(?=\W*$| (?:whether|if|what|well|clearly|enough|properly|(?:\w+ )?{_INPUT}\b))"
    r"|not (?:sure|certain|clear)|unclear|unsure|do ?n[o']t know)\b"
)
_WORD = re.compile(r"\b(yes|yeah|yep|yup|no|nope|nah)\b(?! (?:doubt|matter|longer|one else)\b)")
_DENIED = re.compile(
    r"\b(?:(?:there|it|they|this|that|he|she|we|i|image|picture|photo|scene|audio|clip|sound|recording)\b[^.!?;]{0,60}?"
    r"\b(?:is|are|was|were|does|do|did|has|have|can|could)(?: not|n't)|there (?:is|are) no\b"
    rf"|{_CANNOT}{_PERCEIVE}\b|no \w+ (?:is|are|can be) (?:present|visible|seen|heard|shown)"
    r"|(?:contains?|shows?|has|have|see|hear|features?|depicts?|includes?) no\b"
    r"|not (?:present|visible|audible|true|correct)"
    r"|(?:absent|false|incorrect)\b|without (?:a|an|any)\b)"
)
_AFFIRMED = re.compile(
    r"\b(?:there (?:is|are|appears? to be|seems? to be)|(?:image|picture|photo|scene|audio|clip|sound|recording|it)"
    r" (?:contains?|shows?|has|includes?|features?|depicts?)|(?:is|are) (?:present|visible|audible|shown|seen|heard)"
    r"|i (?:can )?(?:see|hear)|it (?:is|does)|they (?:are|do)|(?:true|correct"
    r"|absolutely|definitely|certainly|indeed|of course)\b)"
)


def ours(text: str) -> str:
    """ "yes", "no" or "unknown": the verdict of a free answer in any case and punctuation.

    An opening "yes" or "no" decides. If there is none, the first sentence that decides counts. A sentence that says "I
    cannot tell" is unknown. Then the word yes or no decides; both words in one sentence are unknown. "There is no ..."
    or "there is a ..." decides in the first sentence only, because later sentences describe other things.
    """
    text = text.lower().replace("\u2019", "'")
    opening = _LEAD.sub("", text, count=1)
    if (word := _WORD.match(opening)) and not re.match(r"(?:yes|no)\W{1,3}(?:or\W|/)?\W?(?:yes|no)\b", opening):
        return _verdict(word.group(1))
    for number, sentence in enumerate(re.split(r"(?<=[.!?;])\s+|\n+", text.strip())):
        if _UNSURE.search(sentence):
            return UNKNOWN
        plain = re.sub(r"\b(?:is|are) no\b|\bno (?=[a-z])", " ", sentence)
        verdicts = {_verdict(word) for word in _WORD.findall(plain)}
        if verdicts:
            return verdicts.pop() if len(verdicts) == 1 else UNKNOWN
        if number == 0 and _DENIED.search(sentence):
            return NO
        if number == 0 and _AFFIRMED.search(sentence):
            return YES
    return UNKNOWN


def _verdict(word: str) -> str:
    return YES if word.startswith("y") else NO


def pope(text: str) -> str:
    """POPE's evaluate.py: before the first full stop, "no" where a token is exactly No, not or no; else "yes"."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return NO if any(word in ("No", "not", "no") for word in words) else YES


def contains(text: str, verdict: str) -> bool:
    """VCD's eval_pope.py: whether the lower-cased answer has "yes" (or "no") anywhere, inside other words too."""
    return verdict in text.lower().strip()


def amber(text: str) -> str:
    """AMBER's inference.py: exactly "Yes" or "No"; anything else is neither."""
    return {"Yes": YES, "No": NO}.get(text, UNKNOWN)


def interspeech2024(text: str) -> str:
    """The first scorer of the audio questions: "yes", "no", or "" (counted as not yes)."""
    if "Yes" in text or "yes" in text:
        return YES
    if "No" in text or any(phrase in text for phrase in ("there is no", "does not contain", "doesn't contain")):
        return NO
    if "contain" in text:
        return YES
    return NO if any(word in text for word in ("not", "unable", "can't")) else ""


def icassp2025(text: str) -> str:
    """The second scorer of the audio questions: as the first, but "unknown" stands apart."""
    return interspeech2024(text) or UNKNOWN


def vcd(text: str, label: str) -> str:
    """VCD's eval_pope.py: the label where it is anywhere in the answer, inside other words too, else the other one."""
    return label if contains(text, label) else NO if label == YES else YES


def mme(text: str) -> str:
    """MME's own program: "yes" or "no" in the first four characters."""
    start = text.lower()[:4]
    return YES if YES in start else NO if NO in start else UNKNOWN


def anywhere(text: str) -> str:
    """DASH-B's and RePOPE's eval_utils.py: yes anywhere in an answer in any case, else no anywhere, also in not."""
    return YES if contains(text, YES) else NO if contains(text, NO) else UNKNOWN


def first_word(text: str, choices: Sequence[str]) -> str:
    """NaturalBench's evaluation.py: the choice that comes first as a word, in any case; "unknown" without one."""
    places = {choice: re.search(rf"\b{re.escape(choice)}\b", text, re.IGNORECASE) for choice in choices}
    starts = {choice: match.start() for choice, match in places.items() if match}
    return min(starts, key=starts.__getitem__, default=UNKNOWN)


PARSERS: dict[str, Callable[[str], str]] = {
    "ours": ours,
    "pope": pope,
    "amber": amber,
    "mme": mme,
    "interspeech2024": interspeech2024,
    "icassp2025": icassp2025,
    "anywhere": anywhere,
}


def verdicts(texts: Sequence[str], labels: Sequence[str | None], parser: str = "ours") -> list[str]:
    """(n,) "yes", "no" or something else, by one of `PARSERS` or by "vcd", which needs the labels.

    Raises ValueError for an unknown parser, a label that is neither yes nor no, or lengths that differ.
    """
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} answers for {len(labels)} labels")
    pairs = []
    for text, label in zip(texts, labels, strict=True):
        if label not in (YES, NO):
            raise ValueError(f"label {label!r} is neither yes nor no")
        pairs.append((text, label))
    if parser == "vcd":
        return [vcd(text, label) for text, label in pairs]
    if parser not in PARSERS:
        raise ValueError(f"unknown parser {parser!r}: one of {', '.join([*PARSERS, 'vcd'])}")
    return [PARSERS[parser](text) for text, _ in pairs]
