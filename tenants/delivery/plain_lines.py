"""What LHC is told of an event: its callback carries text alone, so everything is a line that a visitor understands.

A browser of a visitor that is logged in itself reads the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenants.core import languages
from tenants.delivery.outbox import Event


@dataclass(frozen=True, slots=True)
class Phrases:
    """What we say in a language. The text of the operator stands in the place of `{}`."""

    correction: str
    location: str
    retraction: str


_PHRASES = {
    "de": Phrases("Korrektur: {}", "Standort: {}", "Eine frühere Nachricht wurde zurückgezogen."),
    "en": Phrases("Correction: {}", "Location: {}", "An earlier message was withdrawn."),
    "es": Phrases("Corrección: {}", "Ubicación: {}", "Se ha retirado un mensaje anterior."),
    "fr": Phrases("Correction : {}", "Lieu : {}", "Un message précédent a été retiré."),
    "it": Phrases("Correzione: {}", "Posizione: {}", "Un messaggio precedente è stato ritirato."),
    "nl": Phrases("Correctie: {}", "Locatie: {}", "Een eerder bericht is ingetrokken."),
    "pl": Phrases("Poprawka: {}", "Lokalizacja: {}", "Wcześniejsza wiadomość została wycofana."),
    "pt": Phrases("Correção: {}", "Localização: {}", "Uma mensagem anterior foi retirada."),
}


def of_event(event: str, text: str, detail: Mapping[str, Any], language: str | None) -> str:
    """What the visitor reads of it; empty if nothing was said."""
    match event:
        case Event.MESSAGE_UPDATED:
            return correction(text, language)
        case Event.MESSAGE_RETRACTED:
            return retraction(language)
        case Event.MESSAGE_REACTION:
            return reaction(text)
        case _:
            return said(text, detail, language)


def said(text: str, detail: Mapping[str, Any], language: str | None) -> str:
    """What an operator said."""
    if detail.get("is_correction"):
        return correction(text, language)
    if detail.get("is_location"):
        return languages.find_or_english(_PHRASES, language).location.replace("{}", text)
    return text


def correction(text: str, language: str | None) -> str:
    """What an operator said in the place of an earlier line."""
    return languages.find_or_english(_PHRASES, language).correction.replace("{}", text)


def retraction(language: str | None) -> str:
    """That an operator took back an earlier line."""
    return languages.find_or_english(_PHRASES, language).retraction


def reaction(text: str) -> str:
    """What an operator thinks of a line; empty when that was taken back."""
    return " ".join(text.split())
