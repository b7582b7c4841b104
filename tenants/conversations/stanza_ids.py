"""The ids of stanzas that we send. The bridge drops a repeat by its id (`<once/>`); receipts and errors bear it.

So an id tells what is said from all that was ever said in the name of the same account. The number that a product gave
to a message does not: when the product begins to count anew, or another tenant gets the name, the number comes again.
Nor does the key of a row: a database gives it again when the last rows are gone. Row and time together do.
"""

import hashlib
import re
import uuid

from tenants.store.models import MAX_ID, ChatLine, ReturnedMessage, Room
from tenants.visitors.presence import SAID

_KEY = re.compile("([1-9][0-9]{0,9})-")
_SAID = re.compile(f"{SAID}[0-9a-f]{{32}}")
_LINE = re.compile(r"[1-9][0-9]{0,9}-[0-9a-f]{24}(?![^.])")


def of_line(line: ChatLine, operator: str) -> str:
    """Of what a visitor wrote, on its way to that operator: each operator's copy has an id of its own."""
    return f"{line.id}-{_digest(line.created_at, line.message_id, operator)}"


def of_change(line: ChatLine, operator: str) -> str:
    """Of a correction of the line, or of its end, for that operator: a new one each time, since it may come twice."""
    return f"{of_line(line, operator)}.{uuid.uuid4().hex}"


def of_replay(returned: ReturnedMessage) -> str:
    """Of what came back and is sent again: always the same one, so that two who ask at once send one message."""
    again = uuid.uuid5(uuid.NAMESPACE_OID, returned.stanza_id).hex
    line = _LINE.match(returned.message_id)
    return f"{line[0]}.{again}" if line else f"{SAID}{again}"


def is_of_visitor(stanza_id: str) -> bool:
    """Whether it is of what a visitor wrote of which nothing is kept, as LHC sends it."""
    return _SAID.fullmatch(stanza_id) is not None


def is_of_line(stanza_id: str, line: ChatLine, operator: str) -> bool:
    """Whether that operator was sent the line under that id; or its correction, or the line once more."""
    return stanza_id.partition(".")[0] == of_line(line, operator)


def line_key(stanza_id: str) -> int | None:
    """The key of the row that `of_line` may have named so; whether it has is for the caller to see. None: of no row."""
    key = _KEY.match(stanza_id)
    return int(key[1]) if key and int(key[1]) <= MAX_ID else None


def of_notice(because_of: str, operator: str) -> str:
    """Of what an operator is told, because of a message or a request: its id."""
    return f"notice-{_digest(because_of, operator)}"


def of_room_message(room: Room, message_id: str) -> str:
    """Of what was said in the room, elsewhere than with a client."""
    return f"room-{_digest(room.id, room.created_at, message_id)}"


def _digest(*parts: object) -> str:
    return hashlib.blake2b("/".join(map(repr, parts)).encode(), digest_size=12).hexdigest()
