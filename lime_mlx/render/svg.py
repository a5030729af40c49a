"""Figures of matplotlib as SVG inside a page: its fonts, its colours in light and dark, ids of their own."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree

from markupsafe import Markup

from lime_mlx.errors import LimeError, plain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of the page and its figures: in light, in dark. Series are told apart by the colour-blind too (after Okabe and Ito).
COLOURS = {
    "paper": ("#fdfdfc", "#15181c"),
    "ink": ("#1a1e23", "#e7e9ec"),
    "muted": ("#59626d", "#a2abb6"),
    "line": ("#d9dde2", "#343b44"),
    "good": ("#0069ab", "#62b1ee"),
    "bad": ("#bf4d00", "#ff9a4d"),
    "series0": ("#6a737e", "#a8b0ba"),
    "series1": ("#0070b3", "#5aaeea"),
    "series2": ("#c95500", "#ff8f45"),
    "series3": ("#008a63", "#35c79c"),
    "series4": ("#a8418a", "#e58fc8"),
    "series5": ("#96730a", "#dfb93f"),
    "series6": ("#5b4fc4", "#a79df5"),
}
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
SERIES = [LIGHT[name] for name in COLOURS if name.startswith("series")]
STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lime-mlx",
    "text.parse_math": False,
    "font.size": 8,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.6,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}
HREF = "{http://www.w3.org/1999/xlink}href"


def shown(value: object) -> object:
    """What a page prints: text of others without control characters."""
    return plain_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@contextmanager
def drawing() -> Iterator[None]:
    """What is drawn and written inside has the style of the page."""
    # Where the user's folder cannot be written, matplotlib uses another one, and says so in a paragraph.
    logger, silent = logging.getLogger("matplotlib"), logging.NullHandler()
    logger.addHandler(silent)
    try:
        with _style():
            yield
    finally:
        logger.removeHandler(silent)


@contextmanager
def _style() -> Iterator[None]:
    try:
        import matplotlib
    except ImportError:
        raise LimeError("The plots need matplotlib: pip install matplotlib.") from None
    with matplotlib.rc_context(cast(Any, STYLE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the page has fonts of its own
        yield


def inline(figure: "Figure", name: str, title: str) -> Markup:
    """The figure as an <svg>; `name` goes before its ids, `title` is what a screen reader says."""
    file = BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    box = root.get("viewBox", "")
    variables = {light: f"var(--{colour})" for colour, light in LIGHT.items()}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if HREF in element.attrib:
            element.set("href", element.attrib.pop(HREF))
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == "href":
                element.set(key, f"#{name}-{value[1:]}")
            else:
                value = re.sub(r"url\(#", f"url(#{name}-", value)
                value = re.sub("#[0-9a-f]{6}", lambda found: variables.get(found[0], found[0]), value)
                element.set(key, re.sub(r"font: ([\d.]+px|(?:\w+ )+[\d.]+px)[^;]*", _font, value))
    root.attrib.clear()
    root.attrib.update(viewBox=box, role="img")
    label = ElementTree.Element("title")
    label.text = title
    root.insert(0, label)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _font(found: re.Match[str]) -> str:
    """Size and weight of a font; its family is that of the page."""
    *weight, size = found[1].split()
    return f"font-size: {size}" + "".join(f"; font-weight: {word}" for word in weight)
