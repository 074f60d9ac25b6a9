"""Protocol of an agent, and the choice of one."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab_agents.metrics import Metrics
    from lab_agents.settings import Settings
    from lab_agents.tasks import Task


class Agent(Protocol):
    """An agent that works on many tasks at once."""

    async def start(self, unfinished: Sequence[Task]) -> None:
        """Open what lasts as long as the process.

        Args:
            unfinished: tasks that an earlier process has left. `run` gets each.
        """

    async def run(self, task: Task) -> None:
        """Work on the task, or go on with it, until the model stops.

        Raises:
            TaskFailed: the task has failed.
        """

    async def forget(self, task_id: str) -> None:
        """Delete what is kept of a task that is over."""

    async def close(self) -> None: ...


def make_agent(settings: Settings, metrics: Metrics) -> Agent:
    """The chosen agent. Only its packages are imported.

    Imports leave no garbage. Without collections, and without a search for plugins of
    pydantic, the durable agent's take 3.2 s of CPU, not 4.3 s (Python 3.11). The
    program enables them again after the start.
    """
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    from lab_agents.desk import Desk  # noqa: PLC0415 -- only the chosen agent's packages

    desk = Desk(settings.desk_url)
    if settings.agent == "durable":
        from lab_agents.durable import Durable  # noqa: PLC0415 -- as above

        return Durable(settings, metrics, desk)
    if settings.agent == "checkpointed":
        from lab_agents.checkpointed import Checkpointed  # noqa: PLC0415 -- as above

        return Checkpointed(settings, metrics, desk)
    from lab_agents.naive import Naive  # noqa: PLC0415 -- as above

    return Naive(settings, metrics, desk)
