"""Who sends every kind of stanza to many addresses, and what is answered."""

import itertools
from collections.abc import Iterable, Iterator
from xml.etree import ElementTree as ET

from bench.testbed.browser import Browser
from bench.testbed.operator import Operator
from tests.world.hostile_stanzas import KINDS, stanza

Client = Operator | Browser
_numbers = itertools.count(1)
Answers = dict[tuple[str, str], list[str]]
"""By kind and address: the answers, without their ids, and `VICTIM` for the address."""


async def send(client: Client, xml: str) -> None:
    """Send it, whoever the client is."""
    if isinstance(client, Browser):
        await client.send_raw(xml)
    else:
        client.send_raw(xml)


async def send_all(client: Client, addresses: Iterable[str], kinds: Iterable[str] = KINDS) -> Answers:
    """Send each kind to each address; returns when the server has handled all of them."""
    sent = {f"h{next(_numbers)}": (kind, to) for to, kind in itertools.product(addresses, kinds)}
    for stanza_id, (kind, to) in sent.items():
        await send(client, stanza(kind, to, stanza_id))
    await client.taken()
    answers: Answers = {where: [] for where in sent.values()}
    for one in client.stanzas:
        where = sent.get(one.get("id", ""))
        if where is not None:
            answers[where].append(_plain(one, where[1]))
    return answers


def _plain(answer: ET.Element, victim: str) -> str:
    text = ET.tostring(answer, encoding="unicode")
    for name in (victim, victim.lower(), victim.partition("/")[0]):
        text = text.replace(name, "VICTIM")
    return text.replace(f'id="{answer.get("id")}"', "")


def conditions(answers: Iterable[str]) -> Iterator[str]:
    """What the answers say: `result`, or the error's condition."""
    for text in answers:
        error = ET.fromstring(text).find("{jabber:client}error")
        yield "result" if error is None else error[0].tag.rpartition("}")[2]
