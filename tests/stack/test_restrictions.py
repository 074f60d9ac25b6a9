"""Partitions, CPU and memory limits on real Docker, and their revert."""

import json
import time
import urllib.request
from dataclasses import replace

import pytest
from support.waiting import until

from pytest_llmchaos import faults
from pytest_llmchaos.model import Undo
from pytest_llmchaos.runtime.docker import docker_cli

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

RESTRICTIONS = [
    faults.partition("model-1"),
    faults.limit_cpu("model-1", cores=0.25),
    faults.limit_memory("model-1", mebibytes=128),
]


def inspected(runtime, service):
    return json.loads(docker_cli.run(["docker", "inspect", f"{runtime.project}-{service}-1"]))[0]


def had(about):
    """Settings that a restriction changes and its undo must restore.

    Docker chooses addresses anew if the user chose none.
    """
    host = about["HostConfig"]
    networks = {
        name: (sorted(set(one["Aliases"]) - {about["Id"][:12]}), (one["IPAMConfig"] or {}).get("IPv4Address"))
        for name, one in about["NetworkSettings"]["Networks"].items()
    }
    return networks, max(0, host["CpuQuota"]), host["NanoCpus"], host["Memory"], host["MemorySwap"]


@pytest.mark.parametrize("fault", RESTRICTIONS, ids=str)
def test_a_restriction_is_proven_by_the_kernel_and_its_undo_restores_the_original(fault, stack_lab):
    runtime = stack_lab.runtime
    primitive, since = fault.primitive, time.time()
    before = had(inspected(runtime, "model-1"))
    undo = Undo.from_json(json.loads(json.dumps(primitive.undo("model-1").as_json())))
    try:
        primitive.inject(runtime, "model-1")

        proof = until(lambda: primitive.observed(runtime, "model-1", since), "the proof by the daemon's event", 5)
        assert "kernel" in proof.witness
        assert since <= proof.at_unix_s <= time.time()
        assert primitive.healed(runtime, "model-1", since) is None
        assert had(inspected(runtime, "model-1")) != before
    finally:
        runtime.undo(undo)

    assert had(inspected(runtime, "model-1")) == before
    assert primitive.healed(runtime, "model-1", since) is not None
    runtime.undo(undo)
    assert had(inspected(runtime, "model-1")) == before


def test_an_unlimited_container_gets_the_machines_total_memory_back(stack_lab, monkeypatch):
    """Docker cannot remove a memory limit. The machine's total memory is equivalent."""
    runtime = stack_lab.runtime
    undo = Undo(op="ensure_memory", service="model-2")
    try:
        with monkeypatch.context() as patch:
            unlimited = replace(runtime._found["model-2"], memory_bytes=0, swap_bytes=0)
            patch.setitem(runtime._found, "model-2", unlimited)
            runtime.limit_memory("model-2", 128)

            runtime.undo(undo)

            assert inspected(runtime, "model-2")["HostConfig"]["Memory"] == runtime._machine_bytes()
            assert runtime.released("limit_memory", "model-2") is not None
    finally:
        runtime.undo(undo)


def test_a_published_port_answers_again_after_a_partition(stack_lab):
    runtime = stack_lab.runtime
    runtime.partition("api")
    try:
        with pytest.raises(OSError, match=r"refused|reset|timed out"):
            urllib.request.urlopen(runtime.url("api") + "/healthz", timeout=1)
    finally:
        runtime.undo(Undo(op="ensure_connected", service="api"))

    with urllib.request.urlopen(runtime.url("api") + "/healthz", timeout=2) as answer:
        assert answer.status == 200


@pytest.mark.nightly("test_trials settles after a frozen replica; above, a partition is proven and reverted")
def test_a_partitioned_replica_is_survived_and_the_service_settles(trial_of):
    trial = trial_of(faults.partition("model-1"), fault_s=4, settle_within_s=30)

    assert trial.time_to_settle_s <= 10
    assert trial.victims == ("model-1",)
