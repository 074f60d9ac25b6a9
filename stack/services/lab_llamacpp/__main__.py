"""Runs the server until SIGTERM: `python -m lab_llamacpp`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from types import FrameType

import xllamacpp

from lab_llamacpp.settings import Settings, SettingsError, from_environment


def say(event: str, **facts: object) -> None:
    sys.stdout.write(json.dumps({"at": time.time(), "service": "llamacpp", "event": event, **facts}) + "\n")
    sys.stdout.flush()


def parameters(settings: Settings) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = str(settings.model_file)
    params.model_alias = {settings.model}
    params.hostnames = [settings.host]
    params.port = settings.port
    params.n_parallel = settings.parallel
    params.n_ctx = settings.context_tokens
    params.cpuparams.n_threads = settings.threads
    params.cpuparams_batch.n_threads = settings.threads
    params.n_gpu_layers = 0
    params.endpoint_metrics = True
    params.endpoint_slots = False  # would show callers each other's prompts
    params.verbosity = 2  # warnings; the default writes eight lines a request
    params.ui = False
    params.cache_ram_mib = 0  # the default of 8 GiB would meet the container's memory limit instead
    params.fit_params = False  # what was asked for, not what a guess about free memory makes of it
    params.warmup = True
    params.sampling.temp = 0.0
    return params


def end(number: int, _: FrameType | None) -> None:
    # Not sys.exit: a running generation holds the server's threads for seconds, and callers of a dying replica
    # need the connection to end now.
    say("ends", signal=signal.Signals(number).name)
    os._exit(0)


def main() -> int:
    try:
        settings = from_environment(os.environ)
    except SettingsError as wrong:
        sys.stderr.write(f"lab_llamacpp: {wrong}\n")
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    server = xllamacpp.Server(parameters(settings))
    say("listening", address=server.listening_address, model=settings.model, parallel=settings.parallel)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
