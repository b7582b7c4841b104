"""docker-compose.yml says what the code knows, and what the images need: no Docker engine is needed to see that."""

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from celery.bin.celery import celery

from config.celery import make_celery
from config.settings import ENV_PREFIX, Settings
from orchestrator.cli import app as cli

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "lhc-xmpp-orchestrator"}
EXAMPLE = dict(line.split("=", 1) for line in (PROJECT / ".env.example").read_text().splitlines() if "=" in line)


def test_docker_compose_reads_it() -> None:
    told = subprocess.run(
        ["docker-compose", "--env-file", ".env.example", "config"],
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert set(yaml.safe_load(told.stdout)["services"]) == set(SERVICES)


def test_docker_compose_refuses_without_the_domain(tmp_path: Path) -> None:
    lines = [f"{name}={value}" for name, value in EXAMPLE.items() if name != "XMPP_HOST"]
    (tmp_path / "env").write_text("\n".join(lines))
    environment = {name: value for name, value in os.environ.items() if name != "XMPP_HOST"}
    told = subprocess.run(
        ["docker-compose", "--env-file", str(tmp_path / "env"), "config"],
        cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode != 0
    assert "XMPP_HOST" in told.stderr


def test_every_process_of_the_launcher_is_a_service() -> None:
    (programs,) = re.findall(r"^programs=(.*)", (PROJECT / "config" / "supervisord.conf").read_text(), re.MULTILINE)
    assert set(programs.split(",")) | {"migrate"} == set(OURS)


def test_there_is_more_than_one_pool_and_the_stores_keep_their_data() -> None:
    assert OURS["pool"]["deploy"]["replicas"] > 1
    assert {name for name, service in SERVICES.items() if "volumes" in service} == set(COMPOSE["volumes"])
    assert set(COMPOSE["volumes"]) == set(SERVICES) - set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one_that_exists_with_options_that_exist(name: str) -> None:
    program, *words = shlex.split(OURS[name]["command"])
    if program == "celery":
        assert words[:3] == ["-A", "orchestrator.app", words[2]]
        commands, words = celery.commands, words[2:]
    else:
        assert program == "orchestrator"
        commands = typer.main.get_command(cli).commands  # type: ignore[attr-defined]  # a group of commands
    given = {word.split("=")[0] for word in words[1:] if word.startswith("-")}
    known = {spelling for option in commands[words[0]].params for spelling in (*option.opts, *option.secondary_opts)}
    assert given <= known


def test_each_queue_has_its_worker() -> None:
    named = [re.findall(r"--queues[ =](\S+)", OURS[name]["command"])[0] for name in ("worker", "lifecycle")]
    assert sorted(named) == sorted(queue.name for queue in make_celery(Settings()).conf.task_queues)


def test_a_container_is_given_longer_than_the_soft_shutdown() -> None:
    soft = make_celery(Settings()).conf.worker_soft_shutdown_timeout
    assert all(float(service["stop_grace_period"].removesuffix("s")) > soft for service in OURS.values())


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one_that_exists(name: str) -> None:
    fields = {f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields}
    assert set(OURS[name]["environment"]) <= fields
    assert {secret.upper() for secret in OURS[name]["secrets"] if "." not in secret} <= fields


def test_every_service_has_its_bounds() -> None:
    for name, service in SERVICES.items():
        assert {"cpus", "mem_limit"} <= set(service), name
        assert "resources" not in service.get("deploy", {}), f"{name}: newer composes refuse pids_limit beside that"
        assert service["logging"]["options"]["max-size"], name
        assert 0 < service["pids_limit"] <= 512, name


def test_no_service_has_a_power_that_it_does_not_need() -> None:
    for name, service in SERVICES.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert "/tmp" in service["tmpfs"], name  # noqa: S108 - the container's own
        assert {"cap_add", "privileged", "devices", "pid", "ipc"}.isdisjoint(service), name
    # the images of the others name a user themselves
    assert {name for name, service in SERVICES.items() if "user" in service} == {"db", "rabbitmq"}


def test_each_service_has_its_own_secrets_alone() -> None:
    needed = {
        "database_password": {"db", "migrate", "api", "worker", "lifecycle", "beat", "pool"},
        "broker_password": {"api", "worker", "lifecycle", "beat", "pool", "flower"},
        "component_secret": {"ejabberd", "api", "pool"},
        "ejabberd_database_password": {"ejabberd", "migrate"},
        "ejabberd_api_secret": {"ejabberd", "api", "lifecycle", "pool"},
        "signing_master_key": {"api", "worker", "lifecycle"},
        **{key: {"api"} for key in ("hosting_key", "panel_token", "rpc_password", "console_key")},
        "flower_password": {"flower"},
    }
    given: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for secret in service["secrets"]:
            if isinstance(secret, str) and secret.startswith("orchestrator_"):
                given.setdefault(secret.removeprefix("orchestrator_"), set()).add(name)
    assert given == needed


def test_images_of_others_are_pinned_by_the_script_that_knows_their_tags(tmp_path: Path) -> None:
    """Against a program in Docker's place: it has no engine here, and the images have their digests elsewhere."""
    (tmp_path / "docker").write_text('#!/bin/sh\n[ "$1" = pull ] || echo "${5%:*}@sha256:0123456789abcdef"\n')
    (tmp_path / "docker").chmod(0o755)
    env_file = tmp_path / "env"
    env_file.write_text((PROJECT / ".env.example").read_text())
    for _ in range(2):  # what is pinned is pinned anew, by the same tag
        subprocess.run(
            [PROJECT / "script" / "pin", env_file],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
    pinned = dict(line.split("=", 1) for line in env_file.read_text().splitlines() if "=" in line)
    images = {name: image for name, image in EXAMPLE.items() if name.endswith("_IMAGE")}
    assert {name: f"{image}@sha256:0123456789abcdef" for name, image in images.items()} == {
        name: pinned[name] for name in images
    }
    assert {name for name in pinned if pinned[name] != EXAMPLE[name]} == set(images)
    # without a pin it is the same tag everywhere
    dockerfiles = [(PROJECT / path).read_text() for path in ("Dockerfile", "config/ejabberd/Dockerfile")]
    for name, image in images.items():
        assert f"${{{name}:-{image}}}" in TEXT
        is_built_upon = name not in {"POSTGRES_IMAGE", "RABBITMQ_IMAGE"}
        assert any(f"ARG {name}={image}\n" in text for text in dockerfiles) is is_built_upon


def test_all_but_the_migration_are_looked_after() -> None:
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == {"migrate"}
    assert {name for name, service in SERVICES.items() if service["restart"] != "unless-stopped"} == {"migrate"}


def test_only_clients_of_ejabberd_come_from_everywhere() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "ejabberd": ["5222:5222", "127.0.0.1:5280:5280"],
        "api": ["${API_ADDRESS:-127.0.0.1:8000}:8000"],
        "flower": ["127.0.0.1:5555:5555"],
    }
    assert all(service["networks"] == ["private"] and "network_mode" not in service for service in SERVICES.values())


def test_the_example_knows_every_variable_and_none_is_a_secret() -> None:
    uses = re.findall(r"(?<!\$)\$(?:\{(\w+)[^}]*\}|([A-Za-z_]\w*))", TEXT)
    assert {braced or bare for braced, bare in uses} == set(EXAMPLE)
    assert [name for name in EXAMPLE if re.search("PASSWORD|SECRET|KEY|TOKEN", name)] == []
    assert "PASSWORD:" not in TEXT


def test_the_template_of_ejabberd_means_the_same_to_a_shell() -> None:
    text = (PROJECT / "config" / "ejabberd" / "ejabberd.yml").read_text()
    assert re.findall(r"[`\\]|\$(?!\{\w+\})|^END$", text, re.MULTILINE) == []


def test_ours_are_built_upon_one_image_alone() -> None:
    """So the bridge module is compiled for the ejabberd that loads it, whichever version that is."""
    for path in ("Dockerfile", "config/ejabberd/Dockerfile"):
        text = (PROJECT / path).read_text()
        assert re.findall(r"^ARG (\w+)=debian:bookworm-slim$", text, re.MULTILINE) == ["DEBIAN_IMAGE"]
        stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)
        assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"${DEBIAN_IMAGE}", *stages}


def test_the_secrets_are_made_once_and_only_their_owner_enters_the_folder(tmp_path: Path) -> None:
    made = make_secrets(tmp_path / "secrets")
    assert {name: COMPOSE["secrets"][name]["file"] for name in made} == {name: f"./secrets/{name}" for name in made}
    assert set(made) == set(COMPOSE["secrets"])
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o444}
    assert all(made.values())
    assert len(set(made.values())) == len(made)
    (tmp_path / "secrets" / "orchestrator_panel_token").unlink()
    again = make_secrets(tmp_path / "secrets")
    assert {name for name in made if made[name] != again[name]} == {"orchestrator_panel_token"}


def test_the_settings_read_them_and_put_passwords_into_the_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_secrets(tmp_path / "secrets")
    monkeypatch.setenv(f"{ENV_PREFIX}SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.setenv(f"{ENV_PREFIX}STATE_DIR", str(tmp_path / "none"))
    for name, value in OURS["api"]["environment"].items():
        if name.endswith("_URL"):
            monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert settings.hosting_key.get_secret_value() == made["orchestrator_hosting_key"].strip()
    password = made["orchestrator_database_password"].strip()
    address = f"postgresql+psycopg://orchestrator:{password}@db:5432/orchestrator"
    assert settings.database_url.get_secret_value() == address
    password = made["orchestrator_broker_password"].strip()
    assert settings.broker_url.get_secret_value() == f"amqp://orchestrator:{password}@rabbitmq:5672//"


def test_a_password_is_escaped_in_an_address() -> None:
    settings = Settings(broker_url="redis://host:1/0", broker_password="a/b@c:d")
    assert settings.broker_url.get_secret_value() == "redis://:a%2Fb%40c%3Ad@host:1/0"


def make_secrets(folder: Path) -> dict[str, str]:
    """What `script/secrets` has put there."""
    environment = {**os.environ, "XMPP_HOST": "xmpp.example.com"}
    subprocess.run([PROJECT / "script" / "secrets", folder], env=environment, check=True, timeout=60)
    return {path.name: path.read_text() for path in folder.iterdir()}
