"""The contacts of each client: what they are called, and what becomes of those that an operator renames or removes."""

from tests.clients.client import Client
from tests.world.tenant import Tenant

PASSWORD = "0123456789abcdef0123"


async def test_a_contact_is_called_as_its_visitor_is(client: Client, tenant: Tenant) -> None:
    """LHC registers an `Online visitor`, who has a name of his own when he begins a chat."""
    nick = "John Smith #12"
    await tenant.lhc.new_visitor("visitor.8", PASSWORD, status="Prices")
    await tenant.lhc.visitor_writes("visitor.8", PASSWORD, "bob", "Anybody there?", nick=nick, status="Prices")
    await client.shows_status("visitor.8", nick, "Prices")
    await client.reads("visitor.8", "Anybody there?")
    await client.log_in_again()
    await client.shows_status("visitor.8", nick, "Prices")


async def test_a_renamed_contact_keeps_its_name(client: Client, tenant: Tenant) -> None:
    nick = "John Smith #12"
    await tenant.lhc.new_visitor("visitor.8", PASSWORD, nick=nick, status="Prices")
    await client.shows_status("visitor.8", nick, "Prices")
    await client.rename("visitor.8", "Jack")
    await client.lists("Jack")
    await tenant.lhc.page_view("visitor.8", PASSWORD, nick=nick, status="Checkout")
    await client.shows_status("visitor.8", "Jack", "Checkout")
    await client.log_in_again()
    await client.shows_status("visitor.8", "Jack", "Checkout")
    await client.lists_no(nick)


async def test_a_removed_contact_stays_away_until_its_visitor_writes(client: Client, tenant: Tenant) -> None:
    nick, other = "John Smith #12", "Jane Doe #13"
    await tenant.lhc.new_visitor("visitor.8", PASSWORD, nick=nick, status="Prices")
    await tenant.lhc.new_visitor("visitor.9", PASSWORD, nick=other, status="Prices")
    await client.shows_status("visitor.8", nick, "Prices")
    await client.remove("visitor.8")
    await gone(client)
    await tenant.lhc.page_view("visitor.8", PASSWORD, nick=nick, status="Checkout")
    await tenant.lhc.page_view("visitor.9", PASSWORD, nick=other, status="Checkout")
    await client.shows_status("visitor.9", other, "Checkout")
    await gone(client)
    await client.log_in_again()
    await client.shows_status("visitor.9", other, "Checkout")
    await gone(client)

    await tenant.lhc.visitor_writes("visitor.8", PASSWORD, "bob", "Still there?", nick=nick)
    await client.lists(nick)
    await client.reads("visitor.8", "Still there?")


async def gone(client: Client) -> None:
    """It is neither listed by its name nor by its address."""
    await client.lists_no("John Smith #12")
    await client.lists_no(client.jid_of("visitor.8"))
