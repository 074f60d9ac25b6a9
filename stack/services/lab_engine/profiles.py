"""Machines and models as data, each number with its source."""

from __future__ import annotations

from dataclasses import dataclass

from lab_common.values import require
from lab_engine.gpu import GpuModel
from lab_engine.speed import Speed
from lab_engine.work import Limits

# Share of the device's memory that vLLM reserves (gpu_memory_utilization), and its need
# for activations and CUDA graphs (order of magnitude of its start-up log).
RESERVED_RATIO = 0.9
WORKSPACE_BYTES = 3 << 30

# NVIDIA A100 Tensor Core GPU data sheet, 40 GB SXM:
# 1,555 GB/s, 312 TFLOPS bfloat16 dense, 400 W.
A100_40GB = GpuModel(
    name="NVIDIA A100-SXM4-40GB",
    memory_bytes=40 << 30,
    bandwidth_bytes_per_s=1.555e12,
    flops=312e12,
    idle_power_w=50,
    max_power_w=400,
    sm_clock_mhz=1410,
    memory_clock_mhz=1215,
    slowdown_c=92,
)

# NVIDIA H200 Tensor Core GPU data sheet, SXM:
# 141 GB, 4.8 TB/s, 989 TFLOPS bfloat16 dense, 700 W.
H200 = GpuModel(
    name="NVIDIA H200",
    memory_bytes=141_000_000_000,
    bandwidth_bytes_per_s=4.8e12,
    flops=989e12,
    idle_power_w=75,
    max_power_w=700,
    sm_clock_mhz=1980,
    memory_clock_mhz=3201,
    slowdown_c=87,
)

NO_REAL_GPU = GpuModel(
    name="llmchaos made-up GPU",
    memory_bytes=24 << 30,
    bandwidth_bytes_per_s=1e12,
    flops=1e14,
    idle_power_w=30,
    max_power_w=300,
    sm_clock_mhz=2000,
    memory_clock_mhz=2000,
    slowdown_c=90,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Sizes of one model."""

    name: str
    weights_bytes: float  # read by every step, without experts
    experts_bytes: float  # all experts together, 0 for dense models
    expert_share: float  # of the experts, per token
    active_parameters: float  # multiplied with each token
    cache_bytes_per_token: float
    attention_flops_per_pair: float  # all layers: 4 x heads x head size x layers

    def __post_init__(self) -> None:
        for name in ("weights_bytes", "active_parameters", "cache_bytes_per_token"):
            require(name, getattr(self, name), above=0)


# "The Llama 3 Herd of Models" (arXiv 2407.21783), table 3: 32 layers, 32 heads and
# 8 key/value heads of 128, 8.03e9 parameters of two bytes.
# Cache: 2 x 32 layers x 8 heads x 128 x 2 bytes.
LLAMA_8B = Model(
    name="Llama-3.1-8B-Instruct, bfloat16",
    weights_bytes=16.06e9,
    experts_bytes=0,
    expert_share=0,
    active_parameters=8.03e9,
    cache_bytes_per_token=131_072,
    attention_flops_per_pair=4 * 32 * 128 * 32,
)

# "gpt-oss-120b & gpt-oss-20b Model Card" (arXiv 2508.10925): 116.8e9 parameters, 5.1e9
# active, 114.7e9 of them in 128 experts, 4 used per token, MXFP4 at 4.25 bits.
# 36 layers, 64 heads and 8 key/value heads of 64. Every second layer attends to 128
# tokens only, so half of the layers count here.
GPT_OSS_120B = Model(
    name="gpt-oss-120b, MXFP4",
    weights_bytes=2.1e9 * 2,
    experts_bytes=114.7e9 * 4.25 / 8,
    expert_share=4 / 128,
    active_parameters=5.1e9,
    cache_bytes_per_token=2 * 18 * 8 * 64 * 2,
    attention_flops_per_pair=4 * 64 * 64 * 18,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One machine with one model and its limits."""

    name: str
    source: str
    speed: Speed
    limits: Limits
    gpu: GpuModel
    reserved_bytes: int  # of device memory, once loaded
    load_s: float = 0.0  # default time to load the model

    def __post_init__(self) -> None:
        require("reserved_bytes", self.reserved_bytes, at_most=self.gpu.memory_bytes)


def fast(*, first_token_s: float = 0.02, token_gap_s: float = 0.005, tokens_per_s: float = 10_000.0) -> Profile:
    """A machine of no real model, for quick tests.

    A request waits half a step on average before it enters one, hence the 1.5 steps
    taken off the first token.

    Args:
        first_token_s: seconds to the first token.
        token_gap_s: seconds between tokens of an idle machine.
        tokens_per_s: throughput limit, tokens per second.
    """
    return Profile(
        name="fast",
        source="made up for tests: quick answers, hundreds of streams on one core",
        speed=Speed(
            frontend_s=max(0.0, first_token_s - 1.5 * token_gap_s),
            step_s=token_gap_s,
            sequence_s=1 / tokens_per_s,
        ),
        limits=Limits(slots=256, batch_tokens=8192, max_model_tokens=8192, blocks=8192),
        gpu=NO_REAL_GPU,
        reserved_bytes=int(RESERVED_RATIO * NO_REAL_GPU.memory_bytes),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Efficiency:
    """Shares (0-1) of the data sheet that software reaches, and its fixed costs."""

    bandwidth: float
    arithmetic: float
    step_s: float
    sequence_s: float
    frontend_s: float


def roofline(model: Model, gpu: GpuModel, efficiency: Efficiency) -> Speed:
    bytes_per_s = gpu.bandwidth_bytes_per_s * efficiency.bandwidth
    flops = gpu.flops * efficiency.arithmetic
    return Speed(
        frontend_s=efficiency.frontend_s,
        step_s=efficiency.step_s,
        sequence_s=efficiency.sequence_s,
        weights_s=model.weights_bytes / bytes_per_s,
        experts_s=model.experts_bytes / bytes_per_s,
        expert_share=model.expert_share,
        context_token_s=model.cache_bytes_per_token / bytes_per_s,
        token_s=2 * model.active_parameters / flops,
        pair_s=model.attention_flops_per_pair / flops,
    )


def _on_hardware(
    name: str, model: Model, gpu: GpuModel, efficiency: Efficiency, *, load_s: float, source: str
) -> Profile:
    reserved = int(RESERVED_RATIO * gpu.memory_bytes)
    cache_bytes = reserved - model.weights_bytes - model.experts_bytes - WORKSPACE_BYTES
    blocks = int(cache_bytes // (16 * model.cache_bytes_per_token))
    return Profile(
        name=name,
        source=source,
        speed=roofline(model, gpu, efficiency),
        limits=Limits(slots=256, batch_tokens=8192, max_model_tokens=min(131_072, blocks * 16), blocks=blocks),
        gpu=gpu,
        reserved_bytes=reserved,
        load_s=load_s,
    )


PROFILES = {
    profile.name: profile
    for profile in (
        fast(),
        _on_hardware(
            "llama-3.1-8b-a100-40gb", LLAMA_8B, A100_40GB,
            Efficiency(bandwidth=0.80, arithmetic=0.60, step_s=0.0004, sequence_s=0.00001, frontend_s=0.003),
            load_s=30,
            source="roofline; bandwidth share fitted to 75 tokens/s of one stream (johnmusgrave.com, vLLM 0.23, A100 40GB)",
        ),
        _on_hardware(
            "gpt-oss-120b-h200", GPT_OSS_120B, H200,
            Efficiency(bandwidth=0.70, arithmetic=0.35, step_s=0.0010, sequence_s=0.00001, frontend_s=0.003),
            load_s=60,
            source="roofline arithmetic alone: data sheet of the H200, model card of gpt-oss; shares are estimates",
        ),
    )
}  # fmt: skip
