"""Remediator process until SIGTERM: `python -m lab_remediator`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from lab_common.packages import refuse_without

try:
    import aiohttp
except ImportError as error:
    sys.exit(refuse_without("lab_remediator", error))

from lab_common.addresses import authority
from lab_common.settings import CANNOT_START, SettingsError, refuse
from lab_remediator.audit import Audit, AuditError
from lab_remediator.clients import Docker, Prober, Prometheus
from lab_remediator.load import read_policy
from lab_remediator.loop import Remediator
from lab_remediator.metrics import Metrics
from lab_remediator.owners import Owners
from lab_remediator.rules import RulesError
from lab_remediator.settings import Settings
from lab_remediator.web import application, serve_while

if TYPE_CHECKING:
    from lab_remediator.rules import Policy


def main() -> int:
    """Exit status: 0 after SIGTERM or SIGINT, 2 for bad settings, rules or log."""
    try:
        settings = Settings.from_env(os.environ)
        policy = read_policy(settings.rules_file, settings.repairs, dry_run=settings.dry_run)
        audit = Audit(settings.audit_file)
    except (SettingsError, RulesError, AuditError, OSError) as error:
        return refuse("remediator", error)
    try:
        asyncio.run(_serve(settings, policy, audit))
    except OSError as error:
        sys.stderr.write(f"remediator: expected to listen on {authority(settings.host, settings.port)}, got: {error}\n")
        return CANNOT_START
    finally:
        audit.close()
    return 0


async def _serve(settings: Settings, policy: Policy, audit: Audit) -> None:
    metrics = Metrics(policy)
    async with aiohttp.ClientSession() as session:
        remediator = Remediator(
            policy=policy,
            prometheus=Prometheus(session, settings.prometheus_url),
            docker=Docker(session, settings.docker_url, settings.project),
            prober=Prober(session, settings.health_path, settings.addresses, canary=settings.canary),
            owners=Owners(session, settings.autoscaler_url, policy.replicas),
            audit=audit,
            metrics=metrics,
            hold_file=settings.hold_file,
            poll_s=settings.poll_s,
        )
        app = application(remediator, metrics, settings.audit_file)
        await serve_while(remediator.run, app, settings.host, settings.port)


if __name__ == "__main__":
    sys.exit(main())
