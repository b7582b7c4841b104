"""What both faces do about accounts. The caller has looked which keys there are, and words the answer."""

import tenants.accounts.accounts
from orchestrator.api.lhc.calls import Call
from tenants.accounts import removal
from tenants.core.naming import AccountKind
from tenants.lifecycle import admission


async def register(call: Call) -> str:
    """The account that `user` names, of an operator as a rule, with that `password`. Returns its full name.

    An operator who is there keeps the password: LHC's form would hand the account of another one on, and LHC would have
    two users of one address. It says that the name is taken, and has another call for a new password.

    Raises:
        TakenError: there is such an operator with another password; or ejabberd has an account of that name which the
            registry does not know.
    """
    name, password = call.account("user"), call.text("password")
    tenant = await admission.get(call.services, name.instance, name.kind)
    takes_over = name.kind is not AccountKind.OPERATOR
    await tenants.accounts.accounts.register(call.services, tenant, name, password, takes_over=takes_over)
    return f"{call.services.naming.username(name)}@{call.host}"


async def change_password(call: Call, password: str) -> None:
    """The password of the account that `user` names.

    Raises:
        NotFoundError: there is no such account.
    """
    call.check_host()
    name = call.account("user")
    await admission.find(call.services.database, name.instance)
    await tenants.accounts.accounts.change_password(call.services, name, password)


async def unregister(call: Call) -> None:
    """End the account that `user` names; also a success for one that is gone.

    Of a tenant in any state: LHC asks once, and an account that it has forgotten would stay for ever.
    """
    call.check_host()
    await removal.remove(call.services, call.account("user"))
