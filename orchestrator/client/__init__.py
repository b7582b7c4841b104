"""A client of the tenant's own API (`/v1/tenants/{instance_name}`), for programs of the tenant.

    async with TenantClient("https://xmpp.example.org", "acme", token) as acme:
        chat = await acme.start_chat("12", nick="John", message="Hello?")
        await acme.write(chat.chat_id, "Is anybody there?", message_id="line-0001")

It needs httpx and pydantic, and nothing else of this project. `docs/tenant-api.md` goes through all of it.
"""

from orchestrator.client.tenant_client import ApiError, TenantClient

__all__ = ["ApiError", "TenantClient"]
