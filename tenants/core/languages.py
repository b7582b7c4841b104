"""Languages of people (BCP 47), and which of several texts is for whom."""

from collections.abc import Mapping
from typing import TypeVar

Text = TypeVar("Text")

LANGUAGE = "^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"
"""What a language looks like: `de`, `pt-BR`."""
_ENGLISH = "en"


def find(texts: Mapping[str, Text], language: str | None) -> Text | None:
    """The text in that language, or in another form of it (`pt-BR` for `pt`); None if there is none."""
    if not language:
        return None
    wanted = language.lower()
    by_language = {name.lower(): text for name, text in texts.items()}
    if wanted in by_language:
        return by_language[wanted]
    root = wanted.partition("-")[0]
    return next((text for name, text in by_language.items() if name.partition("-")[0] == root), None)


def find_or_english(texts: Mapping[str, Text], language: str | None) -> Text:
    """The text in that language; of texts of our own, among which there is an English one."""
    found = find(texts, language)
    return texts[_ENGLISH] if found is None else found
