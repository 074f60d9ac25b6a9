"""A fake runtime and load that keep the order of what happens to fault agents."""

from __future__ import annotations

from support.fake_lab import ClockedRuntime


class Wired(ClockedRuntime):
    """The fake, which keeps the order of what happens in `log`."""

    log: list

    def wire_arm(self, services):
        self.log.append(f"arm {' '.join(services)}")
        super().wire_arm(services)

    def wire_disarm(self):
        self.log.append("disarm")
        super().wire_disarm()

    def wire_start(self, service, kind, **about):
        self.log.append(f"{kind} {service}")
        return super().wire_start(service, kind, **about)

    def undo(self, undo):
        self.log.append(undo.op)
        super().undo(undo)


class Clients:
    """A load without a generator."""

    def __init__(self, log):
        self.log, self.pid, self.t0_unix_s, self.t0_monotonic_s = log, 1, 1.0, 1.0

    def launch(self):
        self.log.append("launch")

    def start(self):
        self.log.append("start")

    def stop(self, *, drain=True):
        if "stop" not in self.log:
            self.log.append("stop")

    def check_alive(self):
        return None
