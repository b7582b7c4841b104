"""XML-RPC as ejabberd 23.01 speaks it: method calls read with care, answers and faults written."""

import xmlrpc.client
from typing import Any
from xml.parsers.expat import ExpatError

from defusedxml.common import DefusedXmlException
from defusedxml.xmlrpc import DefusedExpatParser

COMMAND_FAILED = -118
MISSING_ARGUMENT = -116


class RpcError(Exception):
    """An XML-RPC fault, with ejabberd's codes."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = f"Error {code}\n{text}"


def read(body: bytes) -> tuple[str, list[Any]]:
    """The method and its params.

    Raises:
        RpcError: the body is no methodCall.
    """
    unmarshaller = xmlrpc.client.Unmarshaller()
    parser = DefusedExpatParser(unmarshaller, forbid_dtd=True)
    try:
        parser.feed(body)
        parser.close()
        params = list(unmarshaller.close())
        method = unmarshaller.getmethodname()
    except (ExpatError, DefusedXmlException, xmlrpc.client.Error, ValueError, TypeError, LookupError) as error:
        raise RpcError(COMMAND_FAILED, f"the request is no methodCall: {type(error).__name__}") from None
    if not method:
        raise RpcError(COMMAND_FAILED, "the request is no methodCall")
    return method, params


def write(result: dict[str, Any] | xmlrpc.client.Fault) -> bytes:
    """The methodResponse."""
    value = result if isinstance(result, xmlrpc.client.Fault) else (result,)
    return xmlrpc.client.dumps(value, methodresponse=True, encoding="utf-8").encode()
