"""A slow reference of `choose`: no cache is reused, nothing is batched, and going back starts from the prompt."""

import math

import mlx.core as mx
import numpy as np

from lime_mlx.decoding import start
from lime_mlx.session import Session
from lime_mlx.support.detector import Detector
from lime_mlx.support.statistics import from_logits, from_relevance, log_softmax


def reference(model, prompt, ends, max_tokens, k=8, weight=12.0, repeat=6.0, back=6, ask="flagged"):
    """The greedy answer as tokens, and how often it went back. The model must be calibrated with questions."""
    language, detector = prompt.language, Detector.from_config(model.config)
    stored = model.config["lime"].get("methods", {}).get("choose", {})
    threshold = stored.get("threshold", detector.threshold)
    banned: dict[int, set[int]] = {}
    backs, tokens = 0, []
    while len(tokens) < max_tokens:
        logp = log_softmax(_logits(model, prompt, tokens))
        if len(tokens) in banned:
            logp = log_softmax(np.where(_turns(language, logp, banned[len(tokens)], tokens), logp, -1e30))
        place = language.noun_place(language.text(tokens))

        def candidate(token, tokens=tokens, logp=logp, place=place):
            judged = place is not None and _begins(language, tokens, token)
            p = _p_unsupported(model, prompt, detector, tokens, token, place, ask) if judged else 0.0
            listed = judged and not place.definite and not place.opening
            again = listed and _name(model, prompt, tokens, token) in _said(language, tokens)
            return token, p, again, logp[token] + weight * math.log(max(1 - p, 1e-6)) - repeat * again

        best = candidate(int(logp.argmax()))
        if best[1] >= threshold or best[2]:
            likely = [int(token) for token in np.argsort(-logp)[:k] if logp[token] >= math.log(1e-3)]
            likely = [token for token in likely if not language.content[token] or _fits(language, tokens, token)]
            best = max((candidate(token) for token in dict.fromkeys([best[0], *likely])), key=lambda each: each[3])
        if (best[1] >= threshold or best[2]) and backs < back:
            position = _turning_point(model, prompt, language, tokens, banned)
            if position is not None:
                banned = {at: out for at, out in banned.items() if at <= position}
                banned.setdefault(position, set()).add(tokens[position])
                tokens, backs = tokens[:position], backs + 1
                continue
        if best[0] in ends:
            break
        tokens.append(best[0])
    return tokens, backs


def _session(model, prompt, tokens):
    session = start(model, prompt)
    for token in tokens:
        session.append(token)
    return session


def _logits(model, prompt, tokens):
    return np.array(_session(model, prompt, tokens).extend())


def _begins(language, tokens, token):
    before = language.text(tokens)
    piece = language.text([*tokens, token])[len(before) :]
    return bool(language.content[token] and not language.prompted[token]) and (
        not before[-1:].isalnum() or piece[:1].isspace()
    )


def _fits(language, tokens, token):
    before = language.text(tokens)
    piece = language.text([*tokens, token])[len(before) :]
    article = before.split()[-1:]
    vowel = piece.strip()[:1].lower() in "aeiou"  # The worlds name nothing that sounds otherwise.
    return _begins(language, tokens, token) and (article not in (["a"], ["an"]) or vowel == (article == ["an"]))


def _name(model, prompt, tokens, token):
    word = [token]
    while len(word) < 8:
        following = int(_logits(model, prompt, [*tokens, *word]).argmax())
        if not prompt.language.content[following]:
            break
        word.append(following)
    return prompt.language.noun_phrase(prompt.language.text(word)).casefold()


def _p_unsupported(model, prompt, detector, tokens, token, place, ask):
    session = _session(model, prompt, tokens)
    result = session.relevance(target=mx.array(token))
    statistics = from_relevance(np.array(result.relevance), session.modality)
    p = detector.p_unsupported(statistics | from_logits(np.array(result.logits), token))
    if ask == "never" or (ask == "flagged" and p < detector.asking.lowest):
        return p
    question = prompt.language.question(place.noun(_name(model, prompt, tokens, token)))
    asked = np.array(Session.open(model, question.prompt).extend())
    margin = asked[question.yes_no.yes].max() - asked[question.yes_no.no].max()
    both = detector.asking
    score = both.relevance * math.log(p / (1 - p)) + both.margin * margin + both.intercept
    return 1 / (1 + math.exp(-score))


def _said(language, tokens):
    """The names in the sentence so far."""
    names, name = set(), []
    for token in [*tokens, None]:
        if token is not None and language.content[token]:
            name.append(token)
            continue
        names.add(language.noun_phrase(language.text(name)).casefold())
        name = []
        if token is not None and set(language.text([token])) & set(".!?\n"):
            names = set()
    return names - {""}


def _turns(language, logp, banned, before):
    likely = (logp >= math.log(1e-3)) & ~language.content
    stops = set(language.tokens("."))
    text = language.text(before)
    sentence = text[max(text.rfind(end) for end in ".!?\n") + 1 :].split()
    if not sentence:
        likely[list(language.ends)] = True
    if not sentence or stops & set(banned):
        likely[list(stops)] = False
    elif any(language.noun_phrase(word) for word in sentence):
        likely[list(stops)] = True
    likely[list(banned)] = False
    return likely


def _turning_point(model, prompt, language, tokens, banned):
    first = len(tokens)
    while first > 0 and not language.content[tokens[first - 1]]:
        first -= 1
    for position in range(max(1, first), len(tokens)):
        logp = log_softmax(_logits(model, prompt, tokens[:position]))
        if position in banned:
            logp = log_softmax(np.where(_turns(language, logp, banned[position], tokens[:position]), logp, -1e30))
        if _turns(language, logp, banned.get(position, set()) | {tokens[position]}, tokens[:position]).any():
            return position
    return None
