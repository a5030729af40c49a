"""ACG, IAT, LocoRE, FLB and ONLY in NumPy and double precision, from their papers' equations, token by token."""

import numpy as np
from stepwise import PICTURE, Stepwise, log_softmax, plain, softmax

NEVER = np.finfo(np.float32).min


def probabilities(logits):
    return np.exp(log_softmax(logits))


def kept(scores, logits, beta):
    """The scores, but for tokens with less than beta times the largest probability."""
    p = probabilities(logits)
    return scores if beta == 0 else np.where(p >= beta * p.max() * (1 - 1e-9), scores, NEVER)


def followed(slow, ids, tokens):
    """Logits (n + 1, V) of a stepwise model after the prompt and after each of `tokens`."""
    slow.read(ids[:-1])
    return np.stack([slow.step(token) for token in (ids[-1], *tokens)])


class Guided(Stepwise):
    """ACG: every head's output is moved along what the picture changes in it, across what the text says.

    frozen: the share along the text that each head has lost at the first call is that of all later calls.
    """

    def __init__(self, model, gamma, layers, frozen=False):
        super().__init__(model)
        self.gamma, self.layers, self.frozen, self.along = gamma, layers, frozen, {}

    def read_out(self, index, scores, values):
        full = super().read_out(index, scores, values)
        if self.reading or index not in self.layers:
            return full
        blind = scores.copy()
        blind[:, PICTURE] = -np.inf
        guided = []
        for head, (seen, row) in enumerate(zip(full, softmax(blind), strict=True)):
            unseen = row @ values[head]
            unit = unseen / (np.linalg.norm(unseen) + 1e-6)
            share = (seen - unseen) @ unit / (np.linalg.norm(unseen) + 1e-6)
            if self.frozen:
                share = self.along.setdefault((index, head), share)
            guided.append(seen + self.gamma * ((seen - unseen) - share * unseen))
        return np.stack(guided)


def acg(model, ids, tokens, gamma, layers):
    return followed(Guided(model, gamma, layers), ids, tokens)


def own_text(prompt_length, layers, alpha=None, beta=None, window=None):
    """IAT with alpha, LocoRE with beta: what the newest query makes of the scores of generated tokens."""

    def begin():
        def edit(index, scores):
            newest = scores.shape[1] - 1
            rows, scores = softmax(scores), scores.copy()
            for j in range(prompt_length, newest + 1) if index in layers else ():
                if alpha is not None:
                    seen = np.isfinite(scores[:, j])
                    scores[seen, j] += alpha * np.abs(scores[seen, j])
                elif newest - j <= window:
                    rows[:, j] *= 1 + beta
            rows = rows if alpha is None else softmax(scores)
            return rows / rows.sum(axis=1, keepdims=True)

        return edit

    return begin


def ada(prompt_length, supported, unsupported, layers, alpha=6.0, beta=0.5, log=None):
    """AdaIAT: the weights of generated tokens grow where a layer attends to them as before unsupported words."""

    def begin():
        def edit(index, scores):
            rows = softmax(scores)
            own = rows[:, prompt_length:]
            if index not in layers or own.shape[1] == 0:
                return rows
            low, high = unsupported[index].sum(), supported[index].sum()
            raised = own.mean(axis=1).sum() < low + beta * (high - low)
            if log is not None:
                log.append(raised)
            for head, row in enumerate(rows if raised else ()):
                r, h = supported[index][head], unsupported[index][head]
                row[prompt_length:] *= max(1 + alpha * (r / h - 1), 0) if h else 1
            return rows / rows.sum(axis=1, keepdims=True)

        return edit

    return begin


def flb(logits, gamma=0.3, rate=0.05, beta=0.1):
    weights = [gamma * (1 - np.exp(-rate * t)) for t in range(len(logits))]
    return np.stack([kept(now + w * logits[0], now, beta) for now, w in zip(logits, weights, strict=True)])


class Doubtful(Stepwise):
    """ONLY: `others` are the logits of the second opinion at each step, `modes` whether they agreed."""

    def __init__(self, model, layer, edit=None):
        super().__init__(model, edit)
        self.layer, self.others, self.last = layer, [], self.config.num_hidden_layers - 1

    def read_out(self, index, scores, values):
        read = super().read_out(index, scores, values)
        if index == self.layer and not self.reading:
            rows = without_picture_heads(self.rows[-1])
            self.text = self.linear(np.einsum("ht,htd->hd", rows, values).reshape(-1), index, "self_attn.o_proj")
        return read

    def norm(self, x, name):
        """The inputs of norms tell the states between the layers."""
        if name == f"model.layers.{self.last}.input_layernorm":
            self.before_last = x
        out = super().norm(x, name)
        if name == "model.norm":
            self.end = out
        return out

    def logits(self, embed, past, deltas=None):
        logits, prefix = super().logits(embed, past, deltas), f"model.layers.{self.last}"
        if self.reading:
            return logits
        before, end = self.before_last, self.end
        h = 0.2 * before + self.norm(self.text, f"{prefix}.input_layernorm")
        x = self.norm(h, f"{prefix}.post_attention_layernorm")
        gate, up = self.linear(x, self.last, "mlp.gate_proj"), self.linear(x, self.last, "mlp.up_proj")
        h = h + self.linear(gate / (1 + np.exp(-gate)) * up, self.last, "mlp.down_proj")
        self.others.append(self.weights["lm_head.weight"] @ (self.norm(h, "model.norm") + 0.5 * end))
        return logits


def without_picture_heads(rows):
    """Attention (H, T) without outliers, and without the heads of a small ratio of entropies."""
    rows, ratios = rows.copy(), []
    text = [j for j in range(1, rows.shape[1]) if j not in PICTURE]
    for row in rows:
        entropy = {}
        for kind, part in (("text", text), ("picture", list(PICTURE))):
            values = row[part]
            row[part] = np.where(values > values.mean() + values.std(ddof=1), 0, values)
            total = row[part].sum()
            p = row[part] / total if total else np.full(len(part), np.nan)
            entropy[kind] = -(p * np.log(p + 1e-6)).sum()
        of_text = 0 if np.isnan(entropy["text"]) else entropy["text"]
        of_picture = np.inf if np.isnan(entropy["picture"]) else entropy["picture"]
        ratios.append(of_text / of_picture)
    rows[np.array(ratios) < np.mean(ratios)] = 0
    return rows


def only(model, ids, tokens, agree=3.0, differ=1.0, gamma=0.25, layer=0, beta=0.1, edit=None):
    """Scores (n + 1, V), and how far both opinions were apart at each step."""
    slow = Doubtful(model, layer, edit)
    logits = followed(slow, ids, tokens)
    scores, distances = [], []
    for own, other in zip(logits, slow.others, strict=True):
        distances.append(np.abs(probabilities(own) - probabilities(other)).sum())
        mixed = own + agree * other if distances[-1] < gamma else (1 + differ) * own - differ * other
        scores.append(kept(mixed, own, beta))
    return np.stack(scores), distances


__all__ = ["NEVER", "Guided", "acg", "ada", "flb", "kept", "only", "own_text", "plain"]
