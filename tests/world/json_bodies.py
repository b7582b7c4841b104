"""A right body for each endpoint of the JSON face."""

from typing import Any

NAME = "json-face"
"""The tenant whose bodies these are."""
HOST = "localhost"
PASSWORD = "0123456789abcdef0123"
# after JSON decoding, as the extension sends them
DISPLAY_NONE = r"\"\""
DISPLAY_BOTH = r"\"operators.json-face\\nvisitors.json-face\""

BODIES: dict[str, dict[str, Any]] = {
    "/xmpp": {
        "jid": "visitor.1.json-face@localhost",
        "pass": PASSWORD,
        "host": "127.0.0.1",
        "nick": "Online visitor",
        "status": "-",
    },
    "/xmpp-send-message": {
        "jid": "visitor.1.json-face@localhost",
        "pass": PASSWORD,
        "host": "127.0.0.1",
        "operator_username": "bob.json-face@localhost",
        "message": "hi",
        "nick": "Online visitor",
        "status": "-",
    },
    "/xmpp-register-online-visitor": {
        "user": "visitor.1.json-face",
        "host": HOST,
        "password": PASSWORD,
        "hostlogin": "127.0.0.1",
        "nick": "Online visitor",
        "status": "-",
        "group": "visitors.json-face",
    },
    "/xmpp-register": {"user": "bob.json-face", "host": HOST, "password": PASSWORD},
    "/xmpp-change-password": {"user": "bob.json-face", "host": HOST, "password": PASSWORD},
    "/xmpp-unregister": {"user": "bob.json-face", "host": HOST},
    "/xmpp-assign-user-to-roaster": {
        "user": "bob.json-face",
        "host": HOST,
        "group": "operators.json-face",
        "grouphost": HOST,
    },
    "/xmpp-delete-user-from-roaster": {
        "user": "bob.json-face",
        "host": HOST,
        "grouphost": HOST,
        "group": "operators.json-face",
    },
    "/xmpp-setup-instance-roasters": {
        "group": "operators.json-face",
        "host": HOST,
        "name": "Operators",
        "desc": "Operators of json-face",
        "display": DISPLAY_BOTH,
        "display_array": ["operators.json-face", "visitors.json-face"],
    },
    "/xmpp-delete-instance-roasters": {"group": "operators.json-face", "host": HOST},
    "/xmpp-does-shared-roaster-exists": {"group": "operators.json-face", "host": HOST},
}
