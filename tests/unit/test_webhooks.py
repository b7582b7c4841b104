"""The keys of webhooks, and which addresses they may go to."""

import base64
import dataclasses
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from config.settings import ENV_PREFIX, Settings
from orchestrator.launcher.local import LocalSystem
from tenants.core.errors import UnavailableError
from tenants.outbound.addresses import Address, Network, permitted
from tenants.outbound.webhooks import event_id, signing_key, signing_keys
from tenants.store.models import Tenant

SETTINGS = Settings(signing_master_key=SecretStr("master"))

PRIVATE_IPV4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
    )
]  # fmt: skip
PRIVATE_IPV6 = [
    IPv6Network(network)
    for network in (
        "::/128", "::1/128", "::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32", "3fff::/20",
        "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
]  # fmt: skip
CARRIERS = {
    "mapped": lambda inner: f"::ffff:{inner}",
    "NAT64": lambda inner: f"64:ff9b::{inner}",
    "6to4": lambda inner: str(IPv6Address(0x2002 << 112 | int(inner) << 80 | 1)),
}


def one_of(networks: list[Network]) -> st.SearchStrategy[Address]:
    return st.sampled_from(networks).flatmap(lambda network: st.ip_addresses(network=network))


private_ipv4 = one_of([*PRIVATE_IPV4])
carried = st.builds(
    lambda carry, inner: ip_address(carry(inner)), st.sampled_from(list(CARRIERS.values())), private_ipv4
)


def test_a_key_is_the_same_for_ever() -> None:
    """Whoever holds it would stop to understand us if its derivation changed. The value is openssl's."""
    assert signing_key(SETTINGS, "acme", 1) == "whsec_f52xJDEoutYuewymBkm2ZCCq6SjtY5lZz2ukjpVJZWU="


def test_each_tenant_and_version_and_master_key_has_its_own() -> None:
    other = Settings(signing_master_key=SecretStr("another"))
    keys = {
        signing_key(settings, name, version)
        for settings in (SETTINGS, other)
        for name in ("acme", "acme1", "other")
        for version in (1, 2, 11)
    }
    assert len(keys) == 18
    assert {len(base64.b64decode(key.removeprefix("whsec_"))) for key in keys} == {32}


@pytest.mark.parametrize(
    ("version", "until", "versions"),
    [(1, None, [1]), (2, None, [2]), (2, 100.5, [2, 1]), (2, 100.0, [2]), (7, 1e9, [7, 6]), (1, 1e9, [1])],
)
def test_the_last_key_signs_too_while_they_overlap(version: int, until: float | None, versions: list[int]) -> None:
    tenant = Tenant(instance_name="acme", signing_version=version, previous_signing_until=until)
    assert signing_keys(SETTINGS, tenant, 100.0) == [signing_key(SETTINGS, "acme", number) for number in versions]


def test_without_a_master_key_there_is_no_key() -> None:
    with pytest.raises(UnavailableError, match="no signing_master_key is set"):
        signing_key(Settings(), "acme", 1)
    assert signing_keys(Settings(), Tenant(instance_name="acme", signing_version=2), 100.0) == []


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True))
def test_an_events_id_can_be_signed_and_is_its_own(sources: list[str]) -> None:
    ids = [event_id(source) for source in sources]
    assert all(re.fullmatch("evt_[0-9a-f]{32}", one) for one in ids)
    assert len(set(ids)) == len(sources)
    assert ids == [event_id(source) for source in sources]


@given(private_ipv4 | one_of([*PRIVATE_IPV6]) | carried)
def test_an_address_that_is_not_public_is_refused(address: Address) -> None:
    assert not permitted(address, ())


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_a_public_address_is_permitted(address: str) -> None:
    assert permitted(ip_address(address), ())


@given(private_ipv4 | one_of([*PRIVATE_IPV6]), st.data())
def test_a_network_that_a_setting_names_is_permitted_and_none_beside(address: Address, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, address.max_prefixlen))
    network = ip_network(f"{address}/{length}", strict=False)
    assert permitted(address, [ip_network("192.0.2.0/24"), ip_network("fd00::/128"), network])
    beside = ip_network((int(network.network_address) ^ 1 << address.max_prefixlen - length, length))
    assert not permitted(address, [beside])


@given(private_ipv4, st.sampled_from(list(CARRIERS)))
def test_an_address_that_is_carried_is_permitted_as_itself(address: IPv4Address, carrier: str) -> None:
    assert permitted(ip_address(CARRIERS[carrier](address)), [ip_network(address)])


def test_networks_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"{ENV_PREFIX}WEBHOOK_NETWORKS"
    assert Settings().webhook_networks == ()
    monkeypatch.setenv(variable, "")
    assert Settings().webhook_networks == ()
    monkeypatch.setenv(variable, "10.0.0.0/8, fd00::/8")
    assert Settings().webhook_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    monkeypatch.setenv(variable, "10.0.0.1/8")
    with pytest.raises(ValidationError):
        Settings()


def test_a_private_system_lets_webhooks_reach_this_machine_alone(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = LocalSystem.open(tmp_path_factory.mktemp("here") / "state")
    written = Settings(_env_file=system.state / "settings.env")
    assert written.webhook_networks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert written.signing_master_key.get_secret_value() == system.secrets["signing_master_key"]
    again = LocalSystem.open(system.state)
    assert dataclasses.asdict(again)["secrets"] == system.secrets
    monkeypatch.setenv(f"{ENV_PREFIX}CALLBACK_BASE_DOMAIN", "lhc.example.com")
    assert "WEBHOOK_NETWORKS" not in system.settings_env()
