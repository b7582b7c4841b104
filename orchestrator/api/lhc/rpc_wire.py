"""XML-RPC as ejabberd 23.01 speaks it: method calls read with care, answers and faults written."""

import re
import sys
import xmlrpc.client
from typing import Any
from xml.parsers.expat import ExpatError

from defusedxml.common import DefusedXmlException
from defusedxml.xmlrpc import DefusedExpatParser

from tenants.core.text import REPLACED, clean

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
_CODECS = {"utf-8": "utf-8", "us-ascii": "ascii", "iso-8859-1": "latin-1"}
"""By the name that an XML declaration has for an encoding. PHP's encoder takes the last when it is told none."""
_DECLARATION = re.compile(rb"""(?:\xef\xbb\xbf)?<\?xml\b[^>]*?\bencoding\s*=\s*["']([\w.-]+)["'][^>]*\?>""")
# a section in which a reference is none, ended or not; or a reference to a character by its number (XML 1.0, 4.1)
_REFERENCE = re.compile(r"<!\[CDATA\[.*?(?:\]\]>|\Z)|&#(?:x([0-9a-fA-F]+)|([0-9]+));", re.DOTALL)
_LONGEST_NUMBER = 8
"""Digits that tell whether a number is any character's."""


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
    """The method and its params; what XML cannot carry of texts is U+FFFD. No visitor's message is lost for it.

    Raises:
        RpcError: the body is no methodCall, or larger than any.
    """
    try:
        try:
            return _parse(body)
        except ExpatError:
            return _parse(_mend_body(body))
    except (
        *(ExpatError, DefusedXmlException, xmlrpc.client.Error),
        *(ValueError, TypeError, LookupError, ArithmeticError),  # a value that is none of its type
    ) as error:
        raise RpcError(COMMAND_FAILED, f"the request is no methodCall: {type(error).__name__}") from None


def _parse(body: bytes) -> tuple[str, list[Any]]:
    unmarshaller = _BoundedUnmarshaller()
    parser = DefusedExpatParser(unmarshaller, forbid_dtd=True)
    parser.feed(body)
    parser.close()
    params = list(unmarshaller.close())
    method = unmarshaller.getmethodname()
    if not method:
        raise RpcError(COMMAND_FAILED, "the request is no methodCall")
    return method, params


def _mend_body(body: bytes) -> bytes:
    """The body in UTF-8; broken characters, too, are U+FFFD. PHP's encoder writes whatever bytes a text has.

    Raises:
        LookupError: its encoding is one of those that expat alone reads.
    """
    declaration = _DECLARATION.match(body)
    codec = _CODECS[declaration[1].decode().lower()] if declaration else "utf-8"
    start = declaration.end() if declaration else 0
    return mend(body[start:].decode(codec, errors="replace")).encode()


def mend(xml: str) -> str:
    """XML with U+FFFD for characters that it must not hold, and for references to them (XML 1.0, 2.2)."""
    return _REFERENCE.sub(_mend_reference, clean(xml))


def _mend_reference(found: re.Match[str]) -> str:
    hexadecimal, decimal = found.groups()
    if hexadecimal is None and decimal is None:
        return found[0]
    digits, base = (hexadecimal, 16) if decimal is None else (decimal, 10)
    number = int(digits.lstrip("0")[:_LONGEST_NUMBER] or "0", base)
    is_character = number <= sys.maxunicode and clean(chr(number)) != REPLACED
    return found[0] if is_character else REPLACED


def write(result: dict[str, Any]) -> bytes:
    """The methodResponse."""
    return _response((result,))


def write_fault(fault: RpcError) -> bytes:
    """The methodResponse that tells of a fault."""
    return _response(xmlrpc.client.Fault(fault.code, fault.text))


def _response(value: tuple[Any] | xmlrpc.client.Fault) -> bytes:
    return xmlrpc.client.dumps(value, methodresponse=True, encoding="utf-8").encode()
