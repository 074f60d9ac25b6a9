"""The simulation as a process: its lines, and bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.autoscaler_world import arrivals

from lab_autoscaler import simulation

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2] / "stack" / "services")}
ROWS = [[one.at_s, one.prompt_tokens, one.answer_tokens] for one in arrivals(5, 29)]
GOOD: dict[str, object] = {
    "arrivals": ROWS,
    "policies": ["fixed(2)", "hpa(maximum=3)"],
    "faults": ["none", "kill(at_s=peak) + nan(at_s=1, for_s=5)"],
    "seeds": [0, 1],
    "world": {"load_s": 2, "sync_s": 5},
    "until_s": 30,
}


def simulate(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab_autoscaler", "simulate", str(file), *options],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_each_cell_is_a_line_and_processes_change_only_the_order(tmp_path: Path) -> None:
    file = tmp_path / "simulation.json"
    file.write_text(json.dumps(GOOD))
    one, two = simulate(file, "--jobs", "1"), simulate(file, "--jobs", "2")

    assert (one.returncode, one.stderr) == (two.returncode, two.stderr) == (0, "")
    assert sorted(one.stdout.splitlines()) == sorted(two.stdout.splitlines())
    cells = [json.loads(line) for line in one.stdout.splitlines()]
    assert [(cell["policy"], cell["fault"], cell["seed"]) for cell in cells] == [
        (policy, fault, seed)
        for policy in ("fixed(2)", "hpa(maximum=3)")
        for fault in ("none", "kill(at_s=peak) + nan(at_s=1, for_s=5)")
        for seed in (0, 1)
    ]
    assert all(cell["offered"] == len(ROWS) for cell in cells)
    assert all(cell["fault_acts"] == ({"kill": 1, "nan": 5} if "kill" in cell["fault"] else {}) for cell in cells)
    assert cells[2]["trajectory"][0] == [0.0, 2, 2, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"arrivals": []}, "arrivals must be a list that is not empty, got '[]'"),
        ({"arrivals": [[1, 2]]}, "arrivals[0]: expected [at_s, prompt_tokens, answer_tokens], got [1, 2]"),
        ({"arrivals": [[2, 9, 9], [1, 9, 9]]}, "arrivals[1]: expected the order of time, got 1 s after 2 s"),
        ({"arrivals": [[1, 9, 0]]}, "arrivals[0]: answer_tokens must be at least 1, got 0"),
        (
            {"arrivals": [[1, 9000, 9]]},
            "arrivals: 1 of 1 requests exceed max_model_tokens 8,192, the longest has 9,009 tokens",
        ),
        ({"arrivals": [[30, 9, 9]]}, "arrivals: expected all before until_s, 30 s, got 30 s"),
        ({"policies": ["hpa(goal=1)"]}, "hpa has no 'goal'"),
        ({"policies": ["fixed(1)", "fixed(replicas=1)"]}, "policies must differ from each other, got 1 of them twice"),
        ({"faults": ["flood(at_s=1)"]}, "expected a fault among none, kill,"),
        ({"faults": ["kill()"]}, "expected kill(at_s, replica), got 'kill()'"),
        ({"faults": ["kill(at_s=-1)"]}, "kill(at_s=-1): at_s must be at least 0, got -1"),
        ({"faults": ["nan(at_s=1, for_s=0)"]}, "for_s must be greater than 0, got 0"),
        ({"faults": ["kill(at_s=__import__('os'))"]}, "expected a fault such as kill(at_s=300)"),
        ({"faults": ["kill(at_s=30)"]}, "kill(at_s=30): expected a start before until_s, 30 s"),
        ({"faults": ["none + nan(at_s=1, for_s=1)"]}, "expected none alone"),
        ({"seeds": [-1]}, "seeds[0] must be at least 0, got -1"),
        ({"seeds": [0, True]}, "seeds[1] must be a whole number, got True"),
        ({"world": {"speed": 1}}, "world: expected names among profile,"),
        ({"world": {"profile": "h100"}}, "world: profile must be one of"),
        ({"world": {"maximum": 2, "initial": 3}}, "world: initial must be at most 2, got 3"),
        (
            {"world": {"token_gap_s": 1, "profile": "gpt-oss-120b-h200"}},
            "world: token_gap_s shape the profile fast alone",
        ),
        ({"world": {"blocks": 3}}, "world: the KV cache holds 48 tokens"),
        ({"world": []}, "world must be an object, got []"),
        ({"until_s": 0}, "until_s must be greater than 0, got 0"),
        ({"until_s": "long"}, "until_s must be a finite number, got 'long'"),
        ({"until": 3}, "expected the names arrivals, policies, faults, seeds, world, until_s, got also until"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    file = tmp_path / "simulation.json"
    file.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(simulation.BadFileError) as refused:
        simulation.plan_of(file.read_text())

    assert complaint in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "options", "complaint"),
    [
        ("{", (), "expected a JSON object, got: "),
        ("[]", (), "expected a JSON object, got list"),
        ('{"until_s": NaN}', (), "NaN, which is no JSON number"),
        ("{}", (), "expected the names arrivals, policies, faults, seeds, world, until_s, without arrivals"),
        (json.dumps(GOOD), ("--jobs", "0"), "--jobs must be at least 1, got 0"),
        (None, (), "No such file or directory"),
    ],
)
def test_a_process_with_bad_input_ends_with_status_2(
    tmp_path: Path, text: str | None, options: tuple[str, ...], complaint: str
) -> None:
    file = tmp_path / "simulation.json"
    if text is not None:
        file.write_text(text)
    ended = simulate(file, *options)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("lab_autoscaler simulate: ")
    assert complaint in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_lines_come_one_by_one_and_the_workers_end_with_the_process(tmp_path: Path) -> None:
    rows = [[one.at_s, one.prompt_tokens, one.answer_tokens] for one in arrivals(50, 200)]
    file = tmp_path / "simulation.json"
    file.write_text(json.dumps({**GOOD, "arrivals": rows, "seeds": list(range(20)), "until_s": 201}))
    command = [sys.executable, "-m", "lab_autoscaler", "simulate", str(file), "--jobs", "2"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        workers = psutil.Process(process.pid).children()
        assert process.poll() is None
        process.kill()

    assert first["offered"] == len(rows)
    assert len(workers) == 2
    assert psutil.wait_procs(workers, timeout=20)[1] == []
