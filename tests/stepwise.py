"""The small model in NumPy and double precision, token by token, with a say in what its attention and cache become."""

import mlx.core as mx
import numpy as np
from helpers import distance
from reference import Reference

from lime_mlx.decoding import decode


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(logits):
    logits = np.asarray(logits, dtype=np.float64)
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


PICTURE = np.arange(2, 6)  # of `helpers.small_prompt`


class Stepwise(Reference):
    """`edit` is called at every token and gives (layer, scores (H, T)) to weights; what is masked is -inf.

    past: every layer's keys and values (H, T, d) so far; rows: its attention weights of the newest token.
    """

    def __init__(self, model, edit=None):
        super().__init__(model)
        for name, module in model.language_model.named_modules():
            if "scales" in module:
                packed = (module.weight, module.scales, module.biases)
                whole = mx.dequantize(*packed, group_size=module.group_size, bits=module.bits)
                self.weights[f"{name}.weight"] = np.array(whole, dtype=np.float64)
        empty = np.zeros((self.config.key_heads, 0, self.config.dim))
        self.past = [(empty, empty)] * self.config.num_hidden_layers
        self.edit, self.reading = None, False
        self.begin = edit or (lambda: lambda index, scores: softmax(scores))

    def embed(self, token):
        return self.weights["model.embed_tokens.weight"][token]

    def read(self, ids):
        """Take in tokens, each as an ordinary one."""
        begin, self.begin, self.reading = self.begin, lambda: lambda index, scores: softmax(scores), True
        for token in ids:
            self.step(token)
        self.begin, self.reading = begin, False

    def step(self, token):
        """Logits (V,) after `token`, whose entries are kept."""
        logits = self.logits(self.embed(token), self.past)
        self.past = [
            tuple(np.concatenate(pair, axis=1) for pair in zip(old, new, strict=True))
            for old, new in zip(self.past, self.fresh, strict=True)
        ]
        return logits

    def logits(self, embed, past, deltas=None):
        self.edit, self.fresh, self.rows = self.begin(), [], []
        return super().logits(embed, past, deltas)

    def attention(self, x, index, keys, values, position, delta):
        config, prefix = self.config, f"model.layers.{index}.self_attn"
        q, k, v = (self.linear(x, index, f"self_attn.{p}_proj").reshape(-1, config.dim) for p in "qkv")
        q, k = (self.rotate(self.norm(x, f"{prefix}.{n}_norm"), position) for x, n in ((q, "q"), (k, "k")))
        keys, values = np.concatenate([keys, k[:, None]], axis=1), np.concatenate([values, v[:, None]], axis=1)
        self.fresh.append((k[:, None], v[:, None]))
        scores = np.stack([keys[head * len(k) // len(q)] @ q[head] for head in range(len(q))]) / np.sqrt(config.dim)
        if (window := config.windows[index]) is not None:
            scores[:, : max(0, position + 1 - window)] = -np.inf
        read = self.read_out(index, scores, np.repeat(values, len(q) // len(k), axis=0))
        return self.linear(read.reshape(-1), index, "self_attn.o_proj")

    def read_out(self, index, scores, values):
        """What each head reads (H, d), by scores (H, T) of values (H, T, d)."""
        self.rows.append(self.edit(index, scores))
        return np.einsum("ht,htd->hd", self.rows[-1], values)


def plain(model, ids, tokens, edit=None):
    """Logits (n + 1, V) after the prompt `ids` and after each of `tokens`."""
    slow = Stepwise(model, edit)
    slow.read(ids[:-1])
    return np.stack([slow.step(token) for token in (ids[-1], *tokens)])


def forced(model, prompt, method, tokens, **options):
    """The steps of a decode that says `tokens`, whatever the method would have picked."""
    said = iter([*tokens, 0])
    sampler = lambda _: mx.array([next(said)])  # noqa: E731
    return list(decode(model, prompt, method, len(tokens) + 1, sampler=sampler, **options))


def logits_of(model, prompt, method, tokens, reliance=False, **options):
    """Logits (n + 1, V) as `plain` has them."""
    return np.stack([step.logits for step in forced(model, prompt, method, tokens, reliance=reliance, **options)])


def furthest(ours, wanted):
    """The largest distance of one step's logits, among tokens that can be picked; the others must be the same."""
    assert ((ours > -1e38) == (wanted > -1e38)).all()
    return max(distance(a[b > -1e38], b[b > -1e38]) for a, b in zip(ours, wanted, strict=True))


def smoothed(
    model, ids, tokens, ref=0.7, window=15, clip=0.2, layers=None, smooth="kv", normalise=False, warmup=0, edit=None
):
    """KVSmooth in all layers but the last: logits (n + 1, V) as `plain` has them, every lam, and the decode itself."""
    slow = Stepwise(model, edit)
    layers = range(len(slow.past) - 1) if layers is None else layers
    slow.read(ids[:-1])
    logits, entropies, lams = [slow.step(ids[-1])], {index: [] for index in layers}, []
    for count, token in enumerate(tokens, start=1):
        logits.append(slow.step(token))
        for index in layers:
            z = np.mean([-sum(a * np.log(a) for a in row if a > 0) for row in slow.rows[index]])
            z = z / np.log(len(ids) + count) if normalise else z
            entropies[index].append(z)
            rank = sum(other < z for other in entropies[index][-window:]) / window
            lams.append(min(max(rank, ref - clip, 0), ref + clip, 1))
            if count > warmup:
                for entries, name in zip(slow.past[index], "kv", strict=True):
                    if name in smooth:
                        entries[:, -1] = (1 - lams[-1]) * entries[:, -1] + lams[-1] * entries[:, -2]
    return np.stack(logits), lams, slow


def led(gamma=0.9, layers=None, heads="below-mean", k=4, aggregate="mean", threshold="running-best", log=None):
    """What D-LEAF makes of one token's scores, layer by layer."""

    def begin():
        seen = []

        def edit(index, scores):
            rows = softmax(scores)
            if layers is not None and index not in layers:
                return rows
            focus = rows[:, PICTURE].sum(-1)
            joint = {"mean": np.mean, "max": np.max}[aggregate](rows[:, PICTURE], axis=0)
            if joint.sum() == 0:
                return rows
            share = [p / joint.sum() for p in joint]
            entropy = -sum(p * np.log(p) for p in share if p > 0) / np.log(len(PICTURE))
            past = {"mean": np.mean, "running-best": np.min}[threshold](seen) if seen else np.inf
            seen.append(entropy)
            if log is not None:
                log.append((index, entropy > past))
            if entropy <= past:
                return rows
            weak = focus < focus.mean() if heads == "below-mean" else np.isin(range(len(rows)), np.argsort(focus)[:k])
            best = rows[focus.argmax()]
            return np.where(weak[:, None], gamma * best + (1 - gamma) * rows, rows)

        return edit

    return begin


def boosted(alpha=0.2, strength=None, layers=None):
    """PAI's attention, or that of Heads where it has a strength."""

    def edit(index, scores):
        if layers is None or index in layers:
            scores = scores.copy()
            there = PICTURE[np.isfinite(scores[0, PICTURE])]
            size = np.abs(scores[:, there])
            scores[:, there] += alpha * size if strength is None else strength * size.mean(axis=0)
        return softmax(scores)

    return lambda: edit
