"""XML-RPC as the extension speaks it, written by two encoders: Python's standard library and PHP's."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from xmlrpc.client import Fault, dumps, loads

import httpx

from bench.testbed.lhc import TIMEOUT
from bench.testbed.system import System
from orchestrator.launcher import servers

SPEAKS_AS_THE_EXTENSION = servers.ejabberd_version() == (23, 1)
"""Whether this ejabberd's own XML-RPC is what the extension was written for. From 24.02 on it is another: its calls
take and answer the newest version of each command."""
_RECORDED = Path(__file__).parent / "shapes.json"
"""What the ejabberd that does so answers, in the same order as the tests ask; which they see when it is there."""

Encode = Callable[..., bytes]
"""A method's name and its params, as the body of a request."""

_HOST = "localhost"
METHODS: dict[str, dict[str, str]] = {
    "register": {"host": _HOST, "user": "eve.NAME", "password": "forged"},
    "unregister": {"host": _HOST, "user": "bob.NAME"},
    "change_password": {"host": _HOST, "user": "bob.NAME", "newpass": "forged"},
    "srg_user_add": {"user": "bob.NAME", "host": _HOST, "group": "operators.NAME", "grouphost": _HOST},
    "srg_user_del": {"user": "bob.NAME", "host": _HOST, "group": "operators.NAME", "grouphost": _HOST},
    "srg_create": {
        "host": _HOST,
        "group": "operators.NAME",
        "name": "forged",
        "description": "forged",
        "display": "operators.NAME\\nvisitors.NAME",
    },
    "srg_delete": {"host": _HOST, "group": "operators.NAME"},
    "srg_get_info": {"host": _HOST, "group": "operators.NAME"},
    "send_message": {
        "type": "chat",
        "from": f"visitor.1.NAME@{_HOST}",
        "to": f"bob.NAME@{_HOST}",
        "subject": "",
        "body": "forged",
    },
    "user_sessions_info": {"host": _HOST, "user": "visitor.1.NAME"},
    "send_stanza_c2s": {
        "host": _HOST,
        "user": "visitor.1.NAME",
        "resource": "lhc",
        "stanza": "<presence><status>forged</status></presence>",
    },
}
"""Every method with arguments that are right for the tenant NAME."""

_MARKUP = {ord(character): f"&#{ord(character)};" for character in '<>&"'}


def library_request(method: str, *params: Any) -> bytes:
    """The request as `xmlrpc.client` writes it."""
    return dumps(params, method, allow_none=True).encode()


def php_request(method: str, *params: Any) -> bytes:
    """The request as PHP's `xmlrpc_encode_request` writes it, for structs of strings; `args` is always that."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<methodCall>", f"<methodName>{method}</methodName>", "<params>"]
    for param in params:
        lines += [" <param>", "  <value>", "   <struct>"]
        for name, text in param.items():
            string = f"<string>{text.translate(_MARKUP)}</string>" if text else "<string/>"
            lines += ["    <member>", f"     <name>{name}</name>"]
            lines += ["     <value>", f"      {string}", "     </value>", "    </member>"]
        lines += ["   </struct>", "  </value>", " </param>"]
    return "\n".join([*lines, "</params>", "</methodCall>", ""]).encode()


def named(arguments: dict[str, str], instance_name: str) -> dict[str, str]:
    """Arguments out of METHODS, for that tenant."""
    return {key: value.replace("NAME", instance_name) for key, value in arguments.items()}


async def post(url: str, body: str | bytes) -> httpx.Response:
    """As PHP's curl does."""
    async with httpx.AsyncClient(timeout=TIMEOUT, verify=False) as http:  # noqa: S501 - as PHP's curl is told
        return await http.post(url, content=body, headers={"Content-Type": "text/xml", "User-Agent": "GameNet"})


class Rpc:
    """The extension's RpcClient.

    `url` is its `rpc_server`; `user`, `host` and `password` are its `rpc_username`, `rpc_account_host`, `rpc_password`.
    """

    def __init__(self, url: str, user: str, host: str, password: str, encode: Encode = library_request) -> None:
        self.url = url
        self.credentials = {"user": user, "server": host, "password": password}
        self._encode = encode

    @classmethod
    def hosting(cls, system: System, encode: Encode = library_request) -> "Rpc":
        """With the hosting-wide credentials, at the root."""
        endpoints = system.endpoints
        return cls(endpoints["rpc"], endpoints["rpc_user"], endpoints["xmpp_host"], endpoints["rpc_password"], encode)

    async def answer(self, method: str, arguments: Mapping[str, Any]) -> bytes:
        """The methodResponse, whatever it says."""
        response = await post(self.url, self._encode(method, self.credentials, dict(arguments)))
        assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, "text/xml")
        return response.content

    async def call(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The answer, which is one struct and not empty. Raises xmlrpc.client.Fault."""
        (result,), _ = loads(await self.answer(method, arguments))
        assert isinstance(result, dict)
        assert result
        return result

    async def fault(self, method: str, arguments: Mapping[str, Any]) -> tuple[int, str]:
        """The fault that is answered."""
        return fault_in(await self.answer(method, arguments))


def fault_in(answer: bytes) -> tuple[int, str]:
    """Code and text of the fault that a methodResponse tells of."""
    try:
        loads(answer)
    except Fault as fault:
        return fault.faultCode, fault.faultString
    raise AssertionError(f"no fault: {answer.decode()}")


def shape(answer: bytes) -> Any:
    """What a methodResponse is made of: the types, the names of the members in their order; of a fault its code."""
    if (fault := ET.fromstring(answer).find("fault/value")) is not None:
        assert _shape(fault) == {"struct": [("faultCode", "int"), ("faultString", "string")]}
        return ("fault", fault_in(answer)[0])
    (value,) = ET.fromstring(answer).findall("params/param/value")
    return _shape(value)


def recorded(calls: str) -> list[Any]:
    """The shapes of the answers of an ejabberd that speaks as the extension does."""
    shapes: list[Any] = json.loads(_RECORDED.read_text())[calls]
    return shapes


def as_recorded(shapes: list[Any]) -> list[Any]:
    """Shapes as `recorded` gives them."""
    plain: list[Any] = json.loads(json.dumps(shapes))
    return plain


def _shape(value: ET.Element) -> Any:
    if not len(value):
        return "string"
    (typed,) = value
    match typed.tag:
        case "struct":
            return {"struct": [(member.findtext("name"), _shape(_only(member))) for member in typed]}
        case "array":
            return {"array": [_shape(one) for one in typed.findall("data/value")]}
        case "i4":
            return "int"
    return typed.tag


def _only(member: ET.Element) -> ET.Element:
    (value,) = member.findall("value")
    return value
