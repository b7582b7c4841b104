"""Every setting of the system, read from the environment with the prefix `ORCHESTRATOR_`.

`script/up` writes the settings of its private servers to `settings.env` in the state folder; what stands in the
environment wins over that file, and so does a `.env` beside the folder. What is a secret may also stand in a file named
like its variable (`orchestrator_hosting_key`), in the folder where containers find theirs; all others win over it.
"""

import os
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from config.ejabberd_storage import EjabberdStorage

ENV_PREFIX = "ORCHESTRATOR_"
DEFAULT_STATE_DIR = ".state"
DEFAULT_SECRETS_DIR = "/run/secrets"
FLOWER_USER = "admin"
"""Who logs in at Flower."""


def state_dir() -> Path:
    """The folder that holds everything `script/up` makes; `ORCHESTRATOR_STATE_DIR`, `.state` by default."""
    return Path(os.environ.get(f"{ENV_PREFIX}STATE_DIR", DEFAULT_STATE_DIR)).resolve()


def secrets_dir() -> Path | None:
    """The folder with a file for each secret: `ORCHESTRATOR_SECRETS_DIR`, or `/run/secrets`. None: it is not there."""
    folder = Path(os.environ.get(f"{ENV_PREFIX}SECRETS_DIR", DEFAULT_SECRETS_DIR))
    return folder if folder.is_dir() else None


class Settings(BaseSettings):
    """The settings. Secrets are `SecretStr`, so that no log line or traceback shows them."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="ignore")

    # The product
    hosting: bool = Field(True, description="True: many instances, named in every username. False: one unnamed one.")
    xmpp_host: str = Field("localhost", description="The XMPP domain of tenants of which no other is said.")
    xmpp_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="All XMPP domains that tenants may live on, the default first:"
        " `xmpp.example.com,chat.customer.example`. Without it there is one, `xmpp_host`.",
    )
    accept_unknown_tenants: bool = Field(
        default=True, description="With hosting-wide keys LHC may begin tenants that the panel did not announce."
    )
    visitor_online_seconds: float = Field(300, gt=0, description="How long one page view keeps a visitor online.")
    account_idle_hours: float = Field(24, gt=0, description="Visitor and chat accounts idle for longer are removed.")
    reconcile_seconds: float = Field(3600, gt=0, description="Interval of comparing ejabberd with the registry.")
    reconcile_limit: int = Field(
        1000,
        ge=1,
        description="Differences that one run may remove, forget or make anew. With more nothing is mended before a"
        " person says so (`orchestrator reconcile --anyway`): ejabberd may have lost its data.",
    )
    calls_per_second: float = Field(
        100,
        gt=0,
        le=100_000,
        description="Page views of one tenant's LHC that are taken each second, and as many other calls, at each API"
        " process; of a tenant without a limit of its own.",
    )
    operator_ping_seconds: float = Field(60, gt=0, description="Interval of XEP-0199 pings to each operator.")
    operator_ping_timeout: float = Field(32, gt=0, description="An operator silent for so long is disconnected.")

    # Callbacks to LHC: {protocol}{address}.{base_domain}:{port}, unless the registry holds a URL for the tenant
    callback_protocol: Literal["http://", "https://"] = "https://"
    callback_base_domain: str = "localhost"
    callback_port: int | None = None
    callback_timeout: float = Field(30, gt=0, description="Seconds for one whole callback request.")
    callback_verify_tls: bool = True
    webhook_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="Networks that webhooks may go to besides public addresses: `10.0.0.0/8,fd00::/8`."
    )

    # Stores and servers
    database_url: SecretStr = SecretStr("sqlite+aiosqlite:///orchestrator.db")
    database_password: SecretStr = Field(SecretStr(""), description="Put into `database_url`, when it is set.")
    broker_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    broker_password: SecretStr = Field(SecretStr(""), description="Put into `broker_url`, when it is set.")
    shard_count: int = Field(64, ge=1, le=1024)
    ejabberd_api_url: str = "http://127.0.0.1:5281/api"
    ejabberd_api_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Of all nodes of an ejabberd cluster: `http://a:5281/api,http://b:5281/api`. Any that lives is"
        " called. In the place of `ejabberd_api_url`.",
    )
    ejabberd_api_secret: SecretStr = Field(
        SecretStr(""), description="What ejabberd's admin API asks for: `api_secret` of the bridge module."
    )
    ejabberd_untested: str = Field(
        "",
        description="A version of ejabberd, as `25.10`, that is used at your own risk, although it was not tested.",
    )
    ejabberd_storage: EjabberdStorage | None = Field(
        None,
        description="What ejabberd keeps all its data in, as ejabberd.yml says: `sql` or `mnesia`. `doctor` compares"
        " the two. `script/up` takes `sql` where the database is PostgreSQL, unless this says otherwise.",
    )
    ejabberd_database_password: SecretStr = Field(
        SecretStr(""),
        description="When it is set, `orchestrator migrate` makes a database for ejabberd beside its own.",
    )
    ejabberd_hosts_file: str = Field(
        "", description="The file of ejabberd's configuration that says which hosts there are, when we may write it."
    )
    ejabberd_certificate: str = Field("", description="The certificate of the hosts above, for that file.")
    component_host: str = "127.0.0.1"
    component_port: int = 5275
    component_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Of all nodes of an ejabberd cluster: `a:5275,b:5275`; or one name that has the address of each."
        " Every pool process connects to all of them. In the place of `component_host` and `component_port`.",
    )
    component_secret: SecretStr = SecretStr("")

    # Keys. An empty key opens nothing.
    hosting_key: SecretStr = Field(SecretStr(""), description="`secret_key` of the JSON face at the root.")
    panel_token: SecretStr = Field(SecretStr(""), description="Bearer token of the control panel.")
    rpc_user: str = Field("admin", description="The user of the hosting-wide XML-RPC credentials.")
    rpc_password: SecretStr = Field(
        SecretStr(""), description="Their password: it opens every tenant at /rpc, and one tenant at /t/{its name}/rpc."
    )

    signing_master_key: SecretStr = Field(
        SecretStr(""), description="What each tenant's keys for webhooks are derived from. Without it none are sent."
    )

    # The API's connections
    request_seconds: float = Field(
        30, gt=0, description="A client has so long to send a whole request, and to read on in its answer."
    )
    connections_per_address: int = Field(
        1000, ge=1, description="Connections of one address that may wait for a whole request, at each API process."
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (),
        description="Networks of the web servers before the API, which speak for others: what they say of a client's"
        " address and of TLS (`X-Forwarded-For`, `X-Forwarded-Proto`) is believed. `10.0.0.5/32,127.0.0.1/32`.",
    )

    # Console
    console_key: SecretStr = Field(
        SecretStr(""), description="What the console signs its forms with. Without it there is no console."
    )
    public_url: str = Field(
        "",
        description="Where people find this API, as `https://orchestrator.example.com`; for links. The console is there"
        " and nowhere else; without it, at `localhost` and addresses in digits.",
    )
    flower_url: str = Field("", description="Where people find Flower; the console links to it.")
    flower_password: SecretStr = Field(
        SecretStr(""), description=f"The password of `{FLOWER_USER}` at Flower. Without it nobody gets in."
    )

    # Telemetry
    sentry_dsn: SecretStr = SecretStr("")
    environment: str = "production"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator(
        "webhook_networks", "trusted_proxies", "component_hosts", "ejabberd_api_urls", "xmpp_hosts", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else value

    @field_validator("component_hosts")
    @classmethod
    def _check_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            _address(one, 0)
        return value

    @field_validator("xmpp_host", "callback_base_domain")
    @classmethod
    def _fold_host(cls, value: str) -> str:
        """Domains have no case (RFC 4343); they are compared with what callers and ejabberd say, which is folded."""
        return value.lower()

    @field_validator("xmpp_hosts")
    @classmethod
    def _fold_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(str.lower, value)))

    @model_validator(mode="after")
    def _agree_on_hosts(self) -> Self:
        """One default, however it is said; and no host is what another one's rooms or the component are called."""
        hosts = self.xmpp_hosts or (self.xmpp_host,)
        if self.xmpp_host != hosts[0] and "xmpp_host" in self.model_fields_set:
            raise ValueError(f"{ENV_PREFIX}XMPP_HOSTS must begin with {ENV_PREFIX}XMPP_HOST, or say it alone")
        if services := {f"lhc.{hosts[0]}", *(f"conference.{host}" for host in hosts)} & set(hosts):
            raise ValueError(f"{ENV_PREFIX}XMPP_HOSTS: {min(services)} is the address of a service of another host")
        # not by assignment, which would count as said
        self.__dict__.update(xmpp_host=hosts[0], xmpp_hosts=hosts)
        return self

    @model_validator(mode="after")
    def _put_passwords_into_urls(self) -> Self:
        self.database_url = _with_password(self.database_url, self.database_password)
        self.broker_url = _with_password(self.broker_url, self.broker_password)
        return self

    @cached_property
    def component_addresses(self) -> tuple[tuple[str, int], ...]:
        """Where ejabberd takes the component's connections: hosts with ports, of each node."""
        if not self.component_hosts:
            return ((self.component_host, self.component_port),)
        return tuple(_address(one, self.component_port) for one in self.component_hosts)

    @cached_property
    def api_urls(self) -> tuple[str, ...]:
        """Where ejabberd's admin API is, of each node."""
        return self.ejabberd_api_urls or (self.ejabberd_api_url,)

    @cached_property
    def component_jid(self) -> str:
        """The component's own domain, as the bridge module and ejabberd's listener know it: one for all hosts."""
        return f"lhc.{self.xmpp_host}"

    @classmethod
    def load(cls) -> Self:
        """Read the settings: the environment wins over the `.env` beside the state folder, that over `settings.env`.

        Beside the state folder, not in the working directory: a test's system must not find a person's settings.
        """
        env_files = (state_dir() / "settings.env", state_dir().parent / ".env")
        return cls(_env_file=env_files, _secrets_dir=secrets_dir())


def _address(text: str, port: int) -> tuple[str, int]:
    """A host with its port, if it says one: `a`, `a:5275`, `[::1]:5275`.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is not `host:port`")
    return parts.hostname, parts.port or port


def _with_password(url: SecretStr, password: SecretStr) -> SecretStr:
    """The URL with that password, escaped; as it is when there is none."""
    if not password.get_secret_value():
        return url
    parts = urlsplit(url.get_secret_value())
    *_, host = parts.netloc.rpartition("@")
    account = f"{parts.username or ''}:{quote(password.get_secret_value(), safe='')}"
    return SecretStr(parts._replace(netloc=f"{account}@{host}").geturl())
