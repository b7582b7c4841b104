"""XML-RPC as ejabberd 23.01 speaks it: method calls read with care, answers and faults written."""

import xmlrpc.client
from typing import Any
from xml.parsers.expat import ExpatError

from defusedxml.common import DefusedXmlException
from defusedxml.xmlrpc import DefusedExpatParser

MISSING_ARGUMENT = -116
COMMAND_FAILED = -118
UNUSED_ARGUMENT = -120
WRONG_TYPE = -122

DONE = {"res": 0}
"""What a command answers that has nothing to tell."""

_MAX_DEPTH = 32
"""Elements within each other. A struct within a param's struct, more than any call has, is twelve deep."""
_MAX_ELEMENTS = 500
"""In a call; the largest of the extension's has some fifty. Bounds what a small body can make of our memory."""
_LONGEST_FAULT = 500
"""Characters of a fault, which may name what the caller sent."""


class RpcError(Exception):
    """An XML-RPC fault, with ejabberd's codes."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = f"Error {code}\n{text[:_LONGEST_FAULT]}"


class _BoundedUnmarshaller(xmlrpc.client.Unmarshaller):
    """Refuses what is deeper or larger than any call."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._elements = 0

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > _MAX_DEPTH or self._elements > _MAX_ELEMENTS:
            raise ValueError("too deep or too large")
        super().start(tag, attrs)

    def end(self, tag: str) -> None:
        self._depth -= 1
        super().end(tag)


def read(body: bytes) -> tuple[str, list[Any]]:
    """The method and its params.

    Raises:
        RpcError: the body is no methodCall, or larger than any.
    """
    unmarshaller = _BoundedUnmarshaller()
    parser = DefusedExpatParser(unmarshaller, forbid_dtd=True)
    try:
        parser.feed(body)
        parser.close()
        params = list(unmarshaller.close())
        method = unmarshaller.getmethodname()
    except (
        *(ExpatError, DefusedXmlException, xmlrpc.client.Error),
        *(ValueError, TypeError, LookupError, ArithmeticError),  # a value that is none of its type
    ) as error:
        raise RpcError(COMMAND_FAILED, f"the request is no methodCall: {type(error).__name__}") from None
    if not method:
        raise RpcError(COMMAND_FAILED, "the request is no methodCall")
    return method, params


def write(result: dict[str, Any]) -> bytes:
    """The methodResponse."""
    return _response((result,))


def write_fault(fault: RpcError) -> bytes:
    """The methodResponse that tells of a fault."""
    return _response(xmlrpc.client.Fault(fault.code, fault.text))


def _response(value: tuple[Any] | xmlrpc.client.Fault) -> bytes:
    return xmlrpc.client.dumps(value, methodresponse=True, encoding="utf-8").encode()
