"""The autoscaler's process until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import sys

from lab_common.packages import refuse_without

try:
    import aiohttp
except ImportError as error:
    sys.exit(refuse_without("lab_autoscaler", error))

from lab_autoscaler.clients import Lookout, Services
from lab_autoscaler.eyes import Eyes
from lab_autoscaler.loop import Autoscaler
from lab_autoscaler.metrics import Metrics
from lab_autoscaler.settings import Settings
from lab_autoscaler.web import application
from lab_common.addresses import authority
from lab_common.settings import CANNOT_START, SettingsError, refuse
from lab_remediator.audit import Audit, AuditError
from lab_remediator.clients import Docker, Prometheus
from lab_remediator.watch import Troubles
from lab_remediator.web import serve_while


def serve() -> int:
    """Exit status: 0 after SIGTERM or SIGINT, 2 for bad settings or log."""
    try:
        settings = Settings.from_env(os.environ)
        audit = Audit(settings.audit_file)
    except (SettingsError, AuditError) as error:
        return refuse("autoscaler", error)
    try:
        asyncio.run(_serve(settings, audit))
    except OSError as error:
        sys.stderr.write(f"autoscaler: expected to listen on {authority(settings.host, settings.port)}, got: {error}\n")
        return CANNOT_START
    finally:
        audit.close()
    return 0


async def _serve(settings: Settings, audit: Audit) -> None:
    metrics, troubles = Metrics(), Troubles()
    # Faults of its readings recognize it by this name.
    async with aiohttp.ClientSession(headers={"User-Agent": "lab_autoscaler"}) as session:
        docker = Docker(session, settings.docker_url, settings.project)
        autoscaler = Autoscaler(
            settings=settings,
            docker=docker,
            lookout=Lookout(
                docker=docker,
                services=Services(session, settings.sights),
                scaled=settings.scaled,
                on_answer=troubles.tell,
            ),
            eyes=Eyes(Prometheus(session, settings.sights.prometheus_url), settings.sights),
            audit=audit,
            metrics=metrics,
            troubles=troubles,
        )
        app = application(autoscaler, metrics, settings.audit_file)
        await serve_while(autoscaler.run, app, settings.host, settings.port)
