"""What becomes of a visitor's message in a chat, by what is known of the chat and its owner."""

import pytest

from tenants.conversations.chat_lines import Decision, Found, Writing, decide
from tenants.core.errors import ConflictError, DomainError, NotFoundError
from tenants.store.models import Chat, ChatLine, ChatState, OwnerOffline, Tenant, TenantState

BOB = "bob.acme"
WRITING = Writing("acme", "7", "hello", "id-1")


def found(
    *,
    tenant_state: TenantState = TenantState.ACTIVE,
    owner_offline: OwnerOffline = OwnerOffline.STORE,
    owner: str | None = None,
    state: ChatState = ChatState.PENDING,
    owners: dict[str, bool] | None = None,
    kept: bool = False,
) -> Found:
    tenant = Tenant(instance_name="acme", state=tenant_state, xmpp=True, owner_offline=owner_offline)
    chat = Chat(id=1, instance_name="acme", chat_id="7", username="visitor.1.acme", owner=owner, state=state)
    lines = {(1, WRITING.message_id): ChatLine(id=1, chat_id=1, message_id="id-1")} if kept else {}
    return Found({"acme": tenant}, {WRITING.chat_key: chat}, lines, owners or {})


@pytest.mark.parametrize(
    ("case", "releases"),
    [
        (found(), False),
        (found(owner=BOB, state=ChatState.OWNED, owners={BOB: True}), False),
        (found(owner=BOB, state=ChatState.OWNED, owners={BOB: False}), False),
        (found(owner=BOB, state=ChatState.OWNED, owners={BOB: False}, owner_offline=OwnerOffline.RELEASE), True),
        (found(owner=BOB, state=ChatState.OWNED, owners={BOB: True}, owner_offline=OwnerOffline.RELEASE), False),
        (found(owner=BOB, state=ChatState.OWNED), True),
    ],
    ids=["nobody's", "owner online", "owner offline", "owner offline, released", "owner online, kept", "owner gone"],
)
def test_a_new_message_is_kept(case: Found, *, releases: bool) -> None:
    chat = case.chats[WRITING.chat_key]
    before = (chat.owner, chat.state)
    assert decide(case, WRITING) == Decision(chat, is_new=True, releases=releases)
    assert (chat.owner, chat.state) == before, "a decision changes nothing"


def test_a_message_that_comes_again_neither_is_kept_nor_releases() -> None:
    case = found(owner=BOB, state=ChatState.OWNED, kept=True)
    assert decide(case, WRITING) == Decision(case.chats[WRITING.chat_key], is_new=False, releases=False)


@pytest.mark.parametrize(
    ("case", "error", "text"),
    [
        (Found({}, {}, {}, {}), NotFoundError, "there is no tenant 'acme'"),
        (found(tenant_state=TenantState.SUSPENDED), ConflictError, "tenant 'acme' is suspended, not active"),
        (found(state=ChatState.CLOSED), ConflictError, "chat 7 is closed"),
        (Found(found().tenants, {}, {}, {}), NotFoundError, "tenant 'acme' has no chat 7"),
    ],
)
def test_a_message_that_is_not_kept(case: Found, error: type[DomainError], text: str) -> None:
    decided = decide(case, WRITING)
    assert isinstance(decided, error)
    assert str(decided) == text
