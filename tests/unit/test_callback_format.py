"""The `lhc` callback format, byte for byte, and where callbacks go."""

import random
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from orchestrator.telemetry import hide_secrets
from tenants.core.backoff import delay
from tenants.core.digests import digest, matches, same
from tenants.outbound.lhc import callback_base, message_body, message_page, presence_body, status_body
from tenants.outbound.poster import MAX_RETRY_AFTER, retry_after


def test_message_body_is_exact() -> None:
    body = message_body(body="Hi there, ąž ~100%&=+/:\n", sender="bob.acme", receiver="visitor.1.acme", server="x.org")
    assert body == (
        b"body=Hi%20there%2C%20%C4%85%C5%BE%20%7E100%25%26%3D%2B/:%0A"
        b"&sender=bob.acme&receiver=visitor.1.acme&server=x.org&type=chat"
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_message_is_read_back(text: str) -> None:
    raw = message_body(body=text, sender="bob.acme", receiver="visitor.1.acme", server="x.org").decode()
    assert parse_qs(raw)["body"] == [text]
    assert set(raw.partition("&sender")[0].removeprefix("body=")) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/:%"
    )


def test_what_happens_in_rooms_is_exact() -> None:
    names = {"sender": "bob.acme", "server": "x.org"}
    assert message_body(body="Hi ~", receiver="jd,br", kind="groupchat", **names) == (
        b"body=Hi%20%7E&sender=bob.acme&receiver=jd%2Cbr&server=x.org&type=groupchat"
    )
    for available, status in ((True, b"available"), (False, b"unavailable")):
        assert presence_body(available=available, room="jd,br", **names) == (
            b"status=" + status + b"&sender=bob.acme&receiver=jd%2Cbr&server=x.org&type=presence"
        )


def test_status_bodies_are_exact() -> None:
    assert status_body(action="connect", user="bob.acme", server="x") == (
        '{"action":"connect","user":"bob.acme","server":"x"}'
    )
    assert status_body(action="ping", user='bob.acme@x/the "desk"') == (
        '{"action":"ping","user":"bob.acme@x/the \\"desk\\""}'
    )


@pytest.mark.parametrize(
    ("instance", "url", "base"),
    [
        ("acme", None, "https://acme.lhc.example"),
        ("my-shop-acme", None, "https://my.shop.acme.lhc.example"),
        ("acme", "https://chat.acme.com/hooks/?to=/", "https://chat.acme.com/hooks/?to=/"),
        ("a--b", None, None),
        ("xn--shop-kva", None, None),
        ("a--b", "https://chat.acme.com", "https://chat.acme.com"),
    ],
)
def test_callback_base(instance: str, url: str | None, base: str | None) -> None:
    assert callback_base(Settings(callback_base_domain="lhc.example"), instance, url) == base


def test_a_standalone_lhc_is_the_base_domain_itself() -> None:
    settings = Settings(callback_base_domain="lhc.example", hosting=False)
    assert callback_base(settings, "standalone", None) == "https://lhc.example"


@pytest.mark.parametrize("tail", ["", "/", "#chat", "/#chat", "/xmppservice", "/xmppservice/processmessage", "//"])
@pytest.mark.parametrize("root", ["", "/index.php", "/lhc/index.php/eng", "/site_admin"])
@pytest.mark.parametrize("query", ["", "?token=a/b"])
def test_lhcs_page_is_found_whatever_stands_behind_its_address(root: str, tail: str, query: str) -> None:
    path, _, fragment = tail.partition("#")
    url = f"https://user:word@chat.acme.com{root}{path}{query}" + (f"#{fragment}" if fragment else "")
    assert message_page(url) == f"https://user:word@chat.acme.com{root}/xmppservice/processmessage{query}"


def test_callback_port_and_protocol() -> None:
    settings = Settings(callback_base_domain="localhost", callback_port=8123, callback_protocol="http://")
    assert callback_base(settings, "acme", None) == "http://acme.localhost:8123"


@given(st.integers(1, 10_000), st.integers())
def test_delays_are_bounded_and_grow(attempt: int, seed: int) -> None:
    seconds = delay(attempt, first=2, longest=3600, rng=random.Random(seed))
    assert 1 <= seconds <= 3600
    assert seconds >= min(3600, 2 * 2.0 ** min(attempt - 1, 30)) / 2


def test_retries_of_a_callback_go_on_for_hours() -> None:
    """From the first failure to the last attempt, with the jitter's least and most."""
    seconds = [delay(attempt, first=2, longest=4 * 3600, growth=3, rng=random.Random(1)) for attempt in range(1, 12)]
    assert 6 * 3600 < sum(seconds) < 14 * 3600
    assert seconds[0] <= 2


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("3601", MAX_RETRY_AFTER),
        ("9" * 5000, None),
        ("Wed, 15 Nov 2023 00:00:10 GMT", 10),
        ("Wednesday, 15-Nov-23 00:00:10 GMT", 10),
        ("Wed Nov 15 00:00:10 2023", 10),
        ("Tue, 14 Nov 2023 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, now=1_700_006_400.0) == seconds


@given(st.text())
def test_no_retry_after_header_is_too_strange(header: str) -> None:
    seconds = retry_after(header, now=1_700_006_400.0)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER


def test_secrets_are_compared_with_their_owner() -> None:
    stored = digest("acme", "key")
    assert matches("acme", "key", stored)
    assert not matches("other", "key", stored)
    assert not matches("acme", "key", None)
    assert not same("", "")
    assert same("k", "k")
    assert not same("\ud800", "k")


def test_no_secret_reaches_logs_or_sentry() -> None:
    seen = hide_secrets(
        {
            "password": "p",
            "extra": {"secret_key": "k", "headers": [{"Authorization": "Bearer t"}]},
            "broker": "redis://:hunter2@127.0.0.1:1/0",
            "instance_name": "acme",
        }
    )
    assert "hunter2" not in str(seen)
    assert seen["password"] == seen["extra"]["secret_key"] == seen["extra"]["headers"][0]["Authorization"] == "[hidden]"
    assert seen["instance_name"] == "acme"
