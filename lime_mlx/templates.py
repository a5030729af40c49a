"""A checkpoint's chat template, rendered so that it ends: its steps, its text and its time have limits.

The template runs in Jinja's sandbox. Every loop, call, filter and operator counts what it does and what it makes before
it does so, so that the limits hold in any thread, and with no child process.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import wraps
from types import CodeType
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

from lime_mlx import limits
from lime_mlx.errors import PromptError

FILTERS = """abs attr batch capitalize center count d default dictsort e escape first float forceescape format groupby
indent int items join last length list lower map max min reject rejectattr replace reverse round safe select selectattr
slice sort string sum title tojson trim truncate unique upper wordcount xmlattr""".split()
# What Jinja itself hands to filters.
OWN = (Context, jinja2.Environment, nodes.EvalContext)
# Methods of text that templates do not need, and whose results can be far longer than what goes in.
REFUSED = frozenset(["encode", "expandtabs", "format_map", "maketrans", "translate", "to_bytes", "from_bytes"])
WIDTHS = re.compile(r"\d{6}")
# Names of filters that no template can write.
COUNTED, JOINED, BOUNDED = "counted loop", "joined text", "bounded literal"
BITS = 4096  # of a whole number
DEEPEST_INDENT = 64


class Budget:
    """What is left of the limits while one template is rendered."""

    def __init__(self) -> None:
        self.steps, self.text = limits.TEMPLATE_STEPS.value, limits.TEMPLATE_TEXT.value
        self.deadline = time.monotonic() + limits.TEMPLATE_SECONDS.value

    def spend(self, steps: int = 1, text: int = 0) -> None:
        """Count so many steps and characters. Raises `PromptError` where a limit is reached."""
        self.steps -= steps + text // 1000
        self.text -= text
        if self.text < 0:
            raise limits.TEMPLATE_TEXT.error("The text of the template is too long", PromptError)
        if self.steps < 0:
            raise limits.TEMPLATE_STEPS.error("The template does too much", PromptError)
        if time.monotonic() > self.deadline:
            raise limits.TEMPLATE_SECONDS.error("The template takes too long", PromptError)

    def size(self, *values: object) -> int:
        """The characters of values and of what they hold; each costs a step.

        Raises `PromptError` for a number that is too large, and for an object that has no text.
        """
        characters, rest = 0, list(values)
        while rest:
            value = rest.pop()
            self.spend()
            if isinstance(value, str):
                characters += len(value)
            elif isinstance(value, Mapping):
                rest += [*value.keys(), *value.values()]
            elif isinstance(value, (list, tuple, set, frozenset)):
                rest += value
            elif isinstance(value, int):
                limits.TEMPLATE_NUMBER.check(value.bit_length(), "The bits of a number", PromptError)
                characters += 1 + value.bit_length() // 3
            elif isinstance(value, Namespace):
                raise PromptError("A namespace has no text.")
            else:
                characters += 32
            if characters > self.text:
                raise limits.TEMPLATE_TEXT.error("A value of the template is too long", PromptError)
        return characters


class Counted(NodeTransformer):
    """Rewrites a template so that loops, `~` and literals go through filters that count."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.iter = _filter(COUNTED, node.iter, nodes.Const(text))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(JOINED, nodes.List(node.nodes, lineno=node.lineno))

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filter(BOUNDED, node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _filter(BOUNDED, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filter(BOUNDED, node) if node.ctx == "load" else node


def _filter(name: str, node: nodes.Node, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


class Generation(Extension):
    """`{% generation %}` marks what an assistant said; here it changes nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Limited(ImmutableSandboxedEnvironment):
    """The environment of one rendering."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self, source: int = 0) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # or constants would be computed before anything counts
            extensions=[Generation, loopcontrols],
            finalize=_finalize,
            cache_size=0,
        )
        self.budget, self.source = Budget(), source
        given = {**self.filters, "tojson": _tojson}
        self.filters = {name: self._bounded_filter(name, given[name]) for name in FILTERS}
        self.filters |= {COUNTED: self._counted, JOINED: self._joined, BOUNDED: self._bounded}
        kept = {name: self.globals[name] for name in ("range", "cycler", "joiner", "namespace")}
        self.globals = {**kept, "dict": _dict, "raise_exception": _refuse, "strftime_now": _now}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        counted: nodes.Template = Counted().visit(template)
        return counted

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        return attr not in REFUSED and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        self.budget.spend()
        if isinstance(left, (str, list, tuple)) or isinstance(right, (str, list, tuple)):
            size = self.budget.size(left, right)
            if operator == "*":
                count, text = (left, right) if isinstance(left, int) else (right, left)
                if isinstance(count, int) and isinstance(text, (str, list, tuple)):
                    self.budget.spend(0, max(count, 0) * max(len(text), self.budget.size(text)))
            elif operator == "%":
                self._check_format(left, right)
            elif operator == "+":
                self.budget.spend(0, size)
        elif isinstance(left, int) and isinstance(right, int) and operator in ("*", "**"):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > BITS:
                raise PromptError("A number of the template is too large.")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: object, *args: object, **kwargs: object) -> object:  # noqa: N805
        """What a template calls: macros, methods and functions."""
        self, called, named = __self, __obj, kwargs
        values: list[Any] = [*args]
        budget = self.budget
        if isinstance(called, (Macro, BlockReference)):
            budget.spend(1, self.source)
        elif isinstance(called, LoopContext):
            values = [self._counted(values[0], self.source), *values[1:]] if values else values
            budget.spend(1, self.source)
        else:
            self._check_call(getattr(called, "__wrapped__", called), values, named)
        result = super().call(__context, called, *values, **named)
        if isinstance(result, (str, list, tuple, dict)):
            budget.spend(0, budget.size(result))
        return result

    def _check_call(self, called: Any, values: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Refuse, before it is called, what would make too much text."""
        self.budget.spend()
        owner = getattr(called, "__self__", None)
        if not isinstance(owner, str):
            if called is not self.globals["namespace"]:
                self._check_numbers([*values, *named.values()])
            return
        self._check_numbers([*values, *named.values()])
        self._check_text(called.__name__, owner, list(values), named)

    def _check_numbers(self, values: Iterable[object]) -> None:
        for value in values:
            if isinstance(value, int):
                limits.TEMPLATE_NUMBER.check(abs(value), "A number", PromptError)

    def _check_text(self, name: str, text: str, values: list[Any], named: Mapping[str, Any]) -> None:
        """The size of what a method or filter of text makes."""
        budget = self.budget
        if name == "replace":
            old, new = ([*values, *named.values(), "", ""])[:2]
            if isinstance(old, str) and isinstance(new, str):
                budget.spend(1, len(text) + (text.count(old) if old else len(text) + 1) * len(new))
        elif name == "join":
            if values and isinstance(values[0], (list, tuple)):
                budget.spend(1, budget.size(values[0]) + len(text) * len(values[0]))
        elif name == "format":
            self._check_format(text, (values, named))
        elif name == "indent":
            width = values[0] if values else named.get("width", 4)
            one = len(width) if isinstance(width, str) else width if isinstance(width, int) else 0
            budget.spend(1, len(text) + (text.count("\n") + 1) * one)
        else:
            budget.spend(1, len(text))

    def _check_format(self, template: object, values: object) -> None:
        """A text with places for values: none may be wider than a number may be."""
        if not isinstance(template, str):
            return
        if WIDTHS.search(template):
            raise PromptError("A width in a format of the template is too large.")
        parts = values if isinstance(values, (tuple, list)) else [values]
        for part in parts:
            self._check_numbers(
                part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else [part]
            )
        places = template.count("%") + template.count("{")
        self.budget.spend(1, len(template) + places * (100_000 if "*" in template else self.budget.size(values)))

    def _bounded_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that counts what goes in and what comes out."""

        @wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            values = [
                value for value in arguments if not isinstance(value, (Context, jinja2.Environment, nodes.EvalContext))
            ]
            self._check_numbers([*values[1:], *named.values()])
            self.budget.size(*values, *named.values())
            if name in ("join",) and values:
                listed = values[0] if isinstance(values[0], (list, tuple, str)) else list(values[0])
                arguments = tuple(listed if value is values[0] else value for value in arguments)
                between = next((value for value in [*values[1:], named.get("d")] if isinstance(value, str)), "")
                self.budget.spend(1, self.budget.size(listed) + len(between) * len(listed))
            elif values and isinstance(values[0], str):
                self._check_text(name, values[0], values[1:], named)
            result = function(*arguments, **named)
            if isinstance(result, (str, list, tuple, dict)):
                self.budget.spend(0, self.budget.size(result) if isinstance(result, str) else 0)
                self.budget.size(result)
            return result

        return counted

    def _counted(self, values: Iterable[object], text: int) -> Iterator[object]:
        for value in values:
            self.budget.spend(1, text)
            yield value

    def _joined(self, values: list[object]) -> str:
        self.budget.spend(1, self.budget.size(values))
        return "".join(map(str, values))

    def _bounded(self, value: object) -> object:
        self.budget.size(_without_namespaces(value))
        return value


def _without_namespaces(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [one for one in value if not isinstance(one, Namespace)]
    return value


@pass_context
def _finalize(context: Context, value: object) -> object:
    """What is printed: text, numbers and what holds them."""
    environment = context.environment
    assert isinstance(environment, Limited)
    environment.budget.spend(1, environment.budget.size(value))
    return value


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if indent is not None and not (isinstance(indent, int) and 0 <= indent <= DEEPEST_INDENT):
        raise PromptError(f"tojson takes an indent up to {DEEPEST_INDENT}.")
    if separators is not None and max(map(len, separators)) > DEEPEST_INDENT:
        raise PromptError("The separators of tojson are too long.")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _dict(*arguments: Any, **named: Any) -> dict[Any, Any]:
    """The type itself has more methods than a template needs."""
    return dict(*arguments, **named)


def _refuse(message: object) -> NoReturn:
    """What a template says of messages that it does not take."""
    raise jinja2.TemplateError(str(message))


def _now(form: str) -> str:
    if len(form) > 200 or WIDTHS.search(form):
        raise PromptError("The form of the date is too long.")
    return datetime.now().strftime(form)


def compiled(source: str) -> CodeType:
    """The code of a chat template. Raises `PromptError`, and what Jinja raises for a template with an error."""
    limits.TEMPLATE_SOURCE.check(len(source), "The length of the chat template", PromptError)
    code = Limited().compile(source)
    assert isinstance(code, CodeType)
    return code


def render(code: CodeType, source: str, values: Mapping[str, object]) -> str:
    """The text that a compiled template makes of the values. Raises `PromptError` where a limit is reached, and
    whatever else goes wrong in the template.
    """
    environment = Limited(len(source))
    template = environment.template_class.from_code(environment, code, environment.globals)
    pieces = []
    for piece in template.generate(values):
        environment.budget.spend(0, len(piece))
        pieces.append(piece)
    return "".join(pieces)


class ChatTemplate:
    """A chat template of a checkpoint. tokens: the special tokens that it may name, as `bos_token`."""

    def __init__(self, source: str, tokens: Mapping[str, object]) -> None:
        self.source, self.tokens = source, tokens
        self._code: CodeType | None = None

    def __call__(self, messages: Sequence[Mapping[str, object]]) -> str:
        """The text of messages, with the beginning of an answer. Raises `PromptError` for a template that fails."""
        values = {**self.tokens, "messages": messages, "add_generation_prompt": True, "tools": None, "documents": None}
        try:
            self._code = self._code or compiled(self.source)
            return render(self._code, self.source, values)
        except Exception as error:  # whatever a template of others does wrong
            raise PromptError(f"The chat template of this model cannot be used: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    text = lines[0] if lines and lines[0].strip() else type(error).__name__
    kind = "" if isinstance(error, (jinja2.TemplateError, PromptError)) else f"{type(error).__name__}: "
    return f"{kind}{text}"
