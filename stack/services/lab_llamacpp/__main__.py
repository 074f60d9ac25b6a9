"""Server that runs until SIGTERM: `python -m lab_llamacpp`."""

from __future__ import annotations

import os
import signal
import sys

from lab_common.packages import refuse_without

try:
    import xllamacpp
except ImportError as error:
    sys.exit(refuse_without("lab_llamacpp", error))

from lab_common.log import Log
from lab_common.settings import SettingsError, refuse
from lab_common.signals import exit_at_once
from lab_llamacpp.settings import Settings

log = Log("llamacpp")


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
    params.endpoint_slots = False  # the endpoint would show clients each other's prompts
    params.verbosity = 2  # warnings. The default writes eight lines a request
    params.ui = False
    params.cache_ram_mib = 0  # the default of 8 GiB exceeds the container's memory limit
    params.fit_params = False  # the configured size, not an estimate from free memory
    params.warmup = True
    params.sampling.temp = 0.0
    return params


def main() -> int:
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as wrong:
        return refuse("lab_llamacpp", wrong)
    exit_at_once(log)  # clients of a dying replica need their connections closed now
    server = xllamacpp.Server(parameters(settings))
    log("listening", address=server.listening_address, model=settings.model, parallel=settings.parallel)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
