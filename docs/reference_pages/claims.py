"""Pages of `experiment()` and of the values that claims read."""

from __future__ import annotations

from reference_pages.docstrings import Source, class_entry, function_entry
from reference_pages.markdown import page

# By page: title, introduction, and the path of each class with its name in examples.
CLASSES: dict[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    "trial.md": (
        "Trial",
        (
            "A claim is a test with the argument `trial`: one performed experiment. Annotate it as "
            "`trial: Trial`, from `pytest_llmchaos.trial.trial`. [Values of claims](values.md) and "
            "[Windows](windows.md) describe what its members return."
        ),
        (("trial.trial.Trial", "trial"),),
    ),
    "arms.md": (
        "Arms",
        (
            "A claim with the argument `arms` compares the arms of `experiment(arms=...)`. Annotate it as "
            "`arms: Arms`, from `pytest_llmchaos.trial.arms`. [Write claims](../claims.md#compare-two-settings) has "
            "examples."
        ),
        (
            ("trial.arms.Arms", "arms"),
            ("trial.arms.Comparison", 'arms.compare("on", "off")'),
            ("stats.effects.WindowEffects", "arms.during_fault"),
            ("stats.effects.QuantileEffects", "arms.during_fault.ttft_s"),
            ("stats.effects.Effect", "effect"),
        ),
    ),
    "windows.md": (
        "Windows",
        (
            "A window has what clients saw of the requests of a part of a trial, such as `trial.during_fault`. "
            "[Load](../load.md#read-what-happened-to-a-request) lists the outcomes of a request."
        ),
        (("stats.windows.Window", "window"), ("stats.quantiles.Quantiles", "window.ttft_s")),
    ),
    "values.md": (
        "Values of claims",
        "Members of `trial` return these values.",
        (
            ("trial.signals.Signal", "signal"),
            ("trial.signals.Incident", "incident"),
            ("trial.trial.Action", "action"),
            ("trial.slo_result.SloResult", "result"),
            ("trial.tasks.Tasks", "trial.tasks"),
            ("trial.replicas.Replicas", "trial.replicas"),
            ("trial.replicas.Replica", "replica"),
            ("trial.recovery.Recovery", "recovery"),
            ("stats.bounded.Seconds", "seconds"),
            ("evidence.trial_result.Coincidence", "coincidence"),
            ("evidence.trial_result.EventNote", "event"),
            ("evidence.trial_result.LoadResult", "trial.load"),
            ("evidence.trial_result.ReadySpan", "span"),
            ("plan.experiment.TrialPlan", "trial.plan"),
        ),
    ),
    "lab.md": (
        "Lab",
        (
            "A test with the argument `lab` has the running stack, for loads and faults that `experiment()` "
            "does not describe. Annotate it as `lab: Lab`, from `pytest_llmchaos.lab.lab`."
        ),
        (
            ("lab.lab.Lab", "lab"),
            ("lab.live_load.RunningLoad", "load"),
            ("lab.injector.Injected", "injected"),
            ("lab.views.ServiceView", "lab.service(name)"),
            ("lab.views.RemediatorView", "lab.remediator"),
        ),
    ),
}


def experiment_page(source: Source) -> str:
    """Return the page of `experiment()`."""
    function = source.function("plan.experiment.experiment")
    arm = source.function("plan.arms.arm")
    return page(
        "experiment()",
        "`pytestmark = experiment(...)` makes a test file a scenario. `@experiment(...)` does so for one test. "
        "The first paragraph of the file's docstring is the hypothesis, and each test that takes `trial` is a claim.",
        function_entry(source, "pytest_llmchaos.experiment", function),
        function_entry(source, "pytest_llmchaos.arm", arm),
    )


def class_pages(source: Source) -> dict[str, str]:
    """Return the pages of classes, by file name."""
    pages = {}
    for name, (title, introduction, classes) in CLASSES.items():
        alone = len(classes) == 1
        parts = []
        for path, spoken in classes:
            heading = [] if alone else [f"## `{path.rpartition('.')[2]}`"]
            parts += [*heading, class_entry(source, source.cls(path), spoken, level=1 if alone else 2)]
        pages[name] = page(title, introduction, *parts)
    return pages


def links() -> dict[str, str]:
    """Return the page and anchor of each class."""
    return {
        path.rpartition(".")[2]: f"{name}#{path.rpartition('.')[2].lower()}"
        for name, (_, _, classes) in CLASSES.items()
        for path, _ in classes
    } | {"LatencyTargets": "loads.md#latencytargets"}
