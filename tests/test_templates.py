"""Chat templates of checkpoints: the text of good ones, and the end of bad ones."""

# ruff: noqa: E501

import contextlib
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from lime_mlx.errors import PromptError
from lime_mlx.models.base import bundled_template
from lime_mlx.templates import ChatTemplate

ROOT = Path(__file__).parent.parent
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
FOLDER = ROOT / "lime_mlx/models/templates"
REAL = {
    **{path.stem: path.read_text() for path in sorted(FOLDER.glob("*.jinja"))},
    **{path.parent.name: path.read_text() for path in sorted(ROOT.glob("lime_mlx/demo/*/chat_template.jinja"))},
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ m.role ~ ns.n }}"
    "{% endfor %}",
    "macro": "{% macro said(m) %}[{{ m['role'] | upper }}] {{ m.content | trim }}{% endmacro %}"
    "{% for m in messages %}{{ said(m) }}{% if not loop.last %}\n{% endif %}{% endfor %}",
    "loops": "{% for m in messages if m.role != 'system' %}{% if loop.index0 == 9 %}{% break %}{% endif %}{{ loop.index }}"
    "/{{ loop.length }} {{ loop.cycle('a', 'b') }} {{ m.content.split(' ') | join('_') }}{% continue %}{% endfor %}",
    "json": "{{ messages | tojson(indent=2) }}{{ {'a': [1, 2.5, true, none]} | tojson }}{{ messages | map(attribute='role')"
    " | list }}",
    "methods": "{% for m in messages %}{{ m.content.strip().replace('a', 'AA').title() }}{{ m.content[:3] }}"
    "{{ '%s-%05d' % (m.role, 3) }}{{ '{:>8}|{}'.format(m.role, 1) }}{{ m.items() | list | length }}"
    "{% if 'dog' in m.content and m.content.startswith('Is') %}!{% endif %}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "tokens": "{{ bos_token }}{% if add_generation_prompt %}{{ eos_token or 'x' }}{% endif %}{{ tools is none }}"
    "{{ missing is defined }}{{ messages[-1].role == 'user' }}{{ messages | selectattr('role', 'equalto', 'user') | list }}",
    "recursion": "{% for n in [[1, [2]], [3, []]] recursive %}{{ n }}{% if n is iterable and n is not string %}"
    "({{ loop(n) }}){% endif %}{% endfor %}",
    "arithmetic": "{{ 7 // 2 + 2 ** 10 - 3 * 4 % 5 / 2 }}{{ '-' * 20 }}{{ [1, 2] + [3] }}{{ (1, 2) }}{{ 'a' ~ 1 ~ [2] }}",
    "blocks": "{% set text %}x{{ messages | length }}{% endset %}{{ text }}{% filter upper %}abc{% endfilter %}"
    "{% block b %}q{% endblock %}{{ self.b() }}{% raw %}{{ }}{% endraw %}{# no #}",
}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Is there a dog? 'type' {{ x }} "},
    {"role": "assistant", "content": "Yes\nno"},
    {"role": "user", "content": "And a cät?"},
]
PARTS = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a dog?"}]},
]


@pytest.mark.parametrize("messages", [MESSAGES, PARTS], ids=["texts", "parts"])
@pytest.mark.parametrize("name", REAL)
def test_the_text_is_that_of_transformers(name, messages):
    try:
        (theirs,), _ = render_jinja_template(
            [messages], chat_template=REAL[name], add_generation_prompt=True, tools=None, documents=None, **TOKENS
        )
    except Exception:
        with pytest.raises(PromptError, match="chat template of this model cannot be used"):
            ChatTemplate(REAL[name], TOKENS)(messages)
        return
    assert ChatTemplate(REAL[name], TOKENS)(messages) == theirs


def test_bundled_templates_are_among_them():
    assert bundled_template("qwen3_vl") in REAL.values()


BOMBS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops with text": "{% for a in range(9999) %}{% for b in range(9999) %}" + 100 * "x" + "{% endfor %}{% endfor %}",
    "a loop in a macro": "{% macro m() %}{% for a in range(99999) %}"
    + 9999 * "x"
    + "{% endfor %}{% endmacro %}{{ m() }}",
    "a wide format": "{{ '%1000000000s' % 'x' }}",
    "a star format": "{{ '%*s' % (1000000000, 'x') }}",
    "a format method": "{{ '{:>1000000000}'.format(1) }}",
    "a nested format": "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "a format filter": "{{ '%1000000000s' | format('x') }}",
    "indented json": "{{ [[1]] | tojson(indent=10**9) }}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "repetition": "{{ 'x' * 10**10 }}",
    "repetition of a list": "{{ [0] * 10**10 }}",
    "a power": "{{ 10 ** (10 ** 10) }}",
    "a power in a constant": "{% if 9 ** 999999999 %}{% endif %}",
    "a long power": "{% set ns = namespace(x=3) %}{% for i in range(90000) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "doubling": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by +": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling lists": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
    "{{ ns.x }}",
    "equal lists": "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
    "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
    "doubling dicts": "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}"
    "{% endfor %}{{ ns.x }}",
    "doubling dict calls": "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}"
    "{% endfor %}{{ ns.x }}",
    "namespaces": "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = namespace(a=ns.x, b=ns.x) %}"
    "{% endfor %}{{ ns.x }}",
    "a namespace in itself": "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
    "replace": "{% set x = 'a' * 90000 %}{{ x.replace('a', x) }}",
    "replace filter": "{% set x = 'a' * 90000 %}{{ x | replace('a', x) }}",
    "join": "{% set x = 'a' * 90000 %}{{ x.join(range(90000) | map('string') | list) }}",
    "join filter": "{% set x = 'a' * 90000 %}{{ range(90000) | join(x) }}",
    "map of a wide one": "{{ ['a', 'b'] | map('center', 10**9) | list }}",
    "center": "{{ 'x'.center(10**9) }}",
    "center filter": "{{ 'x' | center(10**9) }}",
    "center of a constant": "{% set y = 'x' | center(1000000000) %}",
    "zfill": "{{ 'x'.zfill(10**9) }}",
    "tabs": "{{ '\t'.expandtabs(10**9) }}",
    "translate": "{{ ('a' * 90000).translate({97: 'b' * 90000}) }}",
    "indent": "{{ ('\n' * 90000) | indent('x' * 90000) }}",
    "batch": "{{ [1] | batch(10**9, 'x') | list }}",
    "recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "branching macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}",
    "a block in itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "recursive loop": "{% for a in range(999) recursive %}{{ loop(range(999)) }}{% endfor %}",
    "silent recursive loop": "{% for a in range(999) recursive %}{% set x = loop(range(999)) %}{% endfor %}",
    "a date": "{{ strftime_now('%1000000000Y') }}",
    "resetting the count": "{% for i in range(99999)|_counted(-99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "deep brackets": "{{ " + 5000 * "(" + "1" + 5000 * ")" + " }}",
    "deep ifs": 3000 * "{% if 1 %}" + 3000 * "{% endif %}",
    "deep fors": 60 * "{% for a in [1, 2] %}" + 60 * "{% endfor %}",
    "many operators": "{{ " + "+".join(["1"] * 40000) + " }}",
    "a long template": "x" * 10**6,
    "a long number": "{{ " + "9" * 5000 + " }}",
    "a missing name": "{{ messages.foo.bar }}",
    "an undefined call": "{{ foo() }}",
    "an attribute of None": "{{ none.strip() }}",
    "import": "{% import 'x' as y %}",
    "include": "{% include 'x' %}",
    "extends": "{% extends 'x' %}",
    "no Python name": "{% macro None() %}{% endmacro %}{% set True = 1 %}",
    "a name twice": "{% macro m(a, a) %}{% endmacro %}",
    "escape": "{{ ''.__class__.__mro__ }}",
    "its own message": "{{ raise_exception('no systems here') }}",
    "a spread": "{{ dict(**{'a': 1}, **{'a': 2}) }}",
    "not closed": "{% if %}",
}


def refused(template):
    began = time.monotonic()
    with pytest.raises(PromptError) as caught:
        ChatTemplate(template, TOKENS)(MESSAGES)
    assert time.monotonic() - began < 5
    message = str(caught.value)
    assert message.startswith("The chat template of this model cannot be used: ") and "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("name", BOMBS)
def test_a_bad_template_ends_soon_with_a_sentence(name):
    refused(BOMBS[name])


def test_a_loop_ends_in_a_worker_thread_too():
    messages = []
    worker = threading.Thread(target=lambda: messages.append(refused(BOMBS["nested loops"])))
    worker.start()
    worker.join(10)
    assert not worker.is_alive() and "limit of steps of a chat template" in messages[0]


def test_memory_stays_low():
    tracemalloc.start()
    try:
        for name in ("doubling", "replace", "join filter", "loops with text", "a loop in a macro"):
            refused(BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] < 500 << 20
    finally:
        tracemalloc.stop()


def test_white_space_does_not_slow_the_reader_down():
    for template in (100_000 * " " + "{{ 1 }}", 100_000 * "\n" + "{%- if 1 %}{% endif %}", 60_000 * "{# #} "):
        began = time.monotonic()
        with contextlib.suppress(PromptError):
            ChatTemplate(template, TOKENS)(MESSAGES)
        assert time.monotonic() - began < 5


def test_the_limit_of_text_can_be_raised(monkeypatch):
    template = "{% for i in range(9999) %}" + 2000 * "x" + "{% endfor %}"
    assert "LIME_MLX_MAX_TEMPLATE_TEXT raises it" in refused(template)
    monkeypatch.setenv("LIME_MLX_MAX_TEMPLATE_TEXT", "100000000")
    assert len(ChatTemplate(template, TOKENS)(MESSAGES)) == 9999 * 2000
