"""The words of the templates: those of the widget, in the language of who reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

FALLBACK = "en"
"""The language that has all words."""

Texts = Mapping[str, Mapping[str, Any]]
"""By language: texts by key. A text that depends on a number is a mapping by that number, or by its plural category."""

_TABLE = Path(__file__).parents[1] / "static" / "texts.js"
# From here on a number has another figure than three once it is rounded.
_NEXT_UNIT = Decimal("999.5")
_UNITS = ("byte", "kilobyte", "megabyte", "gigabyte", "terabyte")


@cache
def table() -> Texts:
    """Return the table that the widget has as well."""
    text = _TABLE.read_text(encoding="utf-8")
    texts: Texts = json.loads(text[text.index("{\n") : text.rindex("}") + 1])
    return texts


class Words:
    """The words of one language; what it lacks is said in the broader language, and at last in English."""

    def __init__(self, language: str, own: Texts) -> None:
        wanted = language.replace("_", "-").lower()
        chain = [wanted, wanted.partition("-")[0], FALLBACK]
        known = [(tag, texts[tag]) for tag in chain for texts in (_lower(own), table()) if tag in texts]
        self.language = known[0][0]
        """The tag of the language that is spoken, as HTML wants it in ``lang``."""
        self._tables = [words for _, words in known]

    def text(self, key: str, /, **values: object) -> str:
        """Return a text with its values filled in; `count` chooses among the forms of one that has several."""
        text: Any = next((words[key] for words in self._tables if key in words), key)
        if isinstance(text, Mapping):
            text = text.get(str(values.get("count")), text.get("other", key))
        return _filled(text, values)

    def bytes(self, count: int) -> str:
        """Return a number of bytes in words, to three figures."""
        unit, number = 0, Decimal(count)
        while number >= _NEXT_UNIT and unit < len(_UNITS) - 1:
            unit, number = unit + 1, number / 1000
        # As browsers round, which is not as Python does.
        rounded = number.quantize(Decimal(1).scaleb(len(str(int(number))) - 3), ROUND_HALF_UP) if unit else number
        shown = f"{rounded:f}"
        if "." in shown:
            shown = shown.rstrip("0").rstrip(".")
        return self.text(f"unit.{_UNITS[unit]}", n=shown.replace(".", self.text("decimal")), count=shown)

    def error(self, code: str, text: str, remedy: str) -> tuple[str, str]:
        """Return what was wrong and what to do, in plain words where the code is known; otherwise as it was said."""
        for key in (f"page.{code}", code):
            if any(f"error.{key}" in words for words in self._tables):
                return self.text(f"error.{key}"), self.text(f"remedy.{key}")
        return text, remedy


def languages(own: Texts) -> Iterable[str]:
    """Return the languages that there are words in."""
    return dict.fromkeys([*table(), *own])


def _lower(texts: Texts) -> Texts:
    return {tag.replace("_", "-").lower(): words for tag, words in texts.items()}


def _filled(text: str, values: Mapping[str, object]) -> str:
    # Not format(), by which a text could look into the values.
    return re.sub(r"\{(\w+)\}", lambda match: str(values.get(match[1], match[0])), text)
