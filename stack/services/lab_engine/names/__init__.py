"""Names of each server's metrics, one file a server."""

from __future__ import annotations

from lab_engine.names import dynamo, llamacpp, sglang, tensorrt_llm, tgi, triton, vllm, vllm_0_8

SERVERS = {
    "vllm": vllm.NAMES,
    "vllm-0.8": vllm_0_8.NAMES,
    "sglang": sglang.NAMES,
    "tensorrt-llm": tensorrt_llm.NAMES,
    "triton": triton.NAMES,
    "tgi": tgi.NAMES,
    "llamacpp": llamacpp.NAMES,
    "dynamo": dynamo.NAMES,
}

__all__ = ["SERVERS"]
