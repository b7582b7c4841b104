"""What an operator is told when a message cannot be shown to a visitor, in the operator's language."""

from dataclasses import dataclass
from enum import StrEnum

from tenants.core import languages


class Reason(StrEnum):
    """Why it cannot be shown."""

    ENCRYPTED = "encrypted"
    CALL = "call"
    UNKNOWN = "unknown"
    """It holds neither text nor anything else that we know of."""


@dataclass(frozen=True, slots=True)
class Unshowable:
    """A message that is given back.

    Attributes:
        language: that of the stanza, or of the operator's stream (RFC 6120, 4.7.4).
        method: how it is encrypted, if that is known: never in a client's own words, since it may be logged.
    """

    reason: Reason
    language: str | None = None
    method: str = ""

    @property
    def text(self) -> str:
        """What the operator is told."""
        encrypted, call, unknown = languages.find_or_english(_TEXTS, self.language)
        match self.reason:
            case Reason.ENCRYPTED:
                return encrypted.replace(" ({})", f" ({self.method})" if self.method else "")
            case Reason.CALL:
                return call
            case Reason.UNKNOWN:
                return unknown


_TEXTS = {
    "de": (
        (
            "Nicht zugestellt: Die Nachricht ist verschlüsselt ({}), und Besucher einer Website können sie nicht "
            "lesen. Bitte schalten Sie die Verschlüsselung für diesen Kontakt aus und senden Sie sie noch einmal."
        ),
        "Besucher einer Website können nicht angerufen werden. Bitte schreiben Sie ihnen.",
        "Nicht zugestellt: Die Nachricht enthält nichts, was einem Besucher der Website gezeigt werden kann.",
    ),
    "en": (
        (
            "Not delivered: the message is encrypted ({}), and visitors of a website cannot read it. "
            "Please switch encryption off for this contact, and send it again."
        ),
        "Visitors of a website cannot be called. Please write to them.",
        "Not delivered: the message holds nothing that can be shown to a visitor of the website.",
    ),
    "es": (
        (
            "No entregado: el mensaje está cifrado ({}) y los visitantes de un sitio web no pueden leerlo. "
            "Desactive el cifrado para este contacto y envíelo de nuevo."
        ),
        "No se puede llamar a los visitantes de un sitio web. Escríbales, por favor.",
        "No entregado: el mensaje no contiene nada que se pueda mostrar a un visitante del sitio web.",
    ),
    "fr": (
        (
            "Non distribué : le message est chiffré ({}) et les visiteurs d'un site web ne peuvent pas le lire. "
            "Veuillez désactiver le chiffrement pour ce contact et l'envoyer à nouveau."
        ),
        "Les visiteurs d'un site web ne peuvent pas être appelés. Veuillez leur écrire.",
        "Non distribué : le message ne contient rien qui puisse être montré à un visiteur du site web.",
    ),
    "it": (
        (
            "Non consegnato: il messaggio è cifrato ({}) e i visitatori di un sito web non possono leggerlo. "
            "Disattivare la cifratura per questo contatto e inviarlo di nuovo."
        ),
        "I visitatori di un sito web non possono essere chiamati. Si prega di scrivere loro.",
        "Non consegnato: il messaggio non contiene nulla che si possa mostrare a un visitatore del sito web.",
    ),
    "nl": (
        (
            "Niet bezorgd: het bericht is versleuteld ({}) en bezoekers van een website kunnen het niet lezen. "
            "Zet de versleuteling voor dit contact uit en verstuur het opnieuw."
        ),
        "Bezoekers van een website kunnen niet worden gebeld. Schrijf hun een bericht.",
        "Niet bezorgd: het bericht bevat niets wat een bezoeker van de website getoond kan worden.",
    ),
    "pl": (
        (
            "Nie dostarczono: wiadomość jest zaszyfrowana ({}), a odwiedzający stronę nie mogą jej przeczytać. "
            "Proszę wyłączyć szyfrowanie dla tego kontaktu i wysłać ją ponownie."
        ),
        "Do odwiedzających stronę nie można dzwonić. Proszę do nich napisać.",
        "Nie dostarczono: wiadomość nie zawiera niczego, co można pokazać odwiedzającemu stronę.",
    ),
    "pt": (
        (
            "Não entregue: a mensagem está cifrada ({}) e os visitantes de um site não a podem ler. "
            "Desative a cifragem para este contacto e envie-a de novo."
        ),
        "Não é possível telefonar aos visitantes de um site. Por favor, escreva-lhes.",
        "Não entregue: a mensagem não contém nada que possa ser mostrado a um visitante do site.",
    ),
}
