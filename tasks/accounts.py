"""Upkeep of accounts as tasks."""

from celery import shared_task

from config import task_names
from tasks.runtime import run
from tenants.accounts import expiry


@shared_task(name=task_names.EXPIRE_ACCOUNTS)
def expire_accounts() -> None:
    """Remove visitor and chat accounts that have been idle for longer than their tenant allows."""
    run(expiry.run)
