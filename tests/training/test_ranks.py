"""Two processes train as one: they step, stop, resume and fail together. Run as a program, this file is one of them."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn

from configs.errors import UsageError
from configs.run import RunConfig
from training import ranks as module
from training import run as run_module
from training.descent import Descent
from training.folder import RunFolder
from training.ranks import Ranks, require_single
from training.run import Run

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
WORLD = 2
PATIENCE = 240
"""Seconds until processes that hang fail the test; they need a few."""


class Sum:
    """A part that every step changes."""

    def __init__(self):
        self.value = torch.zeros(())

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def start(folder, part, ranks, **changes):
    settings = {"steps": 10, "log_every": 3, "save_every": 4, "show": {}, "max_minutes": 0.0}
    place = RunFolder(folder, None, SimpleNamespace(name="", device="cpu"), ranks)  # nothing but checkpoints is written
    return Run(place, {"part": part}, frozenset({"x"}), device=CPU, ranks=ranks, **settings | changes)


def go(run, part, at_step=lambda step: None):
    """Returns the numbers of the steps taken, and what the steps made of the part."""
    seen = []
    with run.logbook:
        for step in run.steps():
            seen.append(step)
            part.value = part.value + step
            run.note({"x": step})
            at_step(step)
    return {"seen": seen, "sum": part.value.item()}


def descend(rows, ranks, broken=()):
    """Six clipped steps of a small network on its rows of a batch of 8; the loss is NaN in the broken steps."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    descent = Descent(network, 1e-2, weight_decay=0.1, clip=0.1, ranks=ranks)
    for step in range(6):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))[rows]
        loss = network(x).square().mean()
        descent.step(loss * float("nan") if step in broken else loss)
    weights = torch.cat([p.detach().flatten() for p in network.parameters()])
    return {"weights": weights.tolist(), "skipped": descent.skipped.item(), "same": ranks.same(network.state_dict())}


# What the two processes do, each of them all of it.


def halves(ranks, folder):
    return descend(slice(4 * ranks.rank, 4 * ranks.rank + 4), ranks)


def nan_on_one(ranks, folder):
    return descend(slice(0, 8), ranks, broken={2, 4} if ranks.rank == 1 else ())


def talk(ranks, folder):
    return {
        "any": [ranks.any(False), ranks.any(ranks.rank == 1), ranks.any(ranks.rank == 0)],
        "first says": ranks.first_says(0.1 + ranks.rank),
        "same": [ranks.same([torch.ones(3), {"a": torch.tensor(ranks.rank == place)}]) for place in (0, 5)],
        "stream": ranks.stream("camnet"),
        "device": str(ranks.device("cpu")),
    }


def stop(ranks, folder):
    """Rank 1 alone is asked to stop."""
    part = Sum()
    ask = 5 if ranks.rank == 1 else None
    return go(start(folder, part, ranks), part, lambda step: step == ask and os.kill(os.getpid(), signal.SIGTERM))


def resume(ranks, folder):
    part = Sum()
    result = go(start(folder, part, ranks), part)
    ranks.leave()
    return result | {"left": [ranks.rank, ranks.world, ranks.first, dist.is_initialized(), ranks.any(ranks.first)]}


def clocks(ranks, folder):
    """Rank 1's clock runs five times as fast; rank 0's counts."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    kept, run_module.time = run_module.time, clock
    part, shares = Sum(), []
    run = start(folder / "clocks", part, ranks, steps=100, max_minutes=8 / 60)

    def second(step):
        shares.append(run.progress)
        clock.now += 1 + 4 * ranks.rank

    seen = go(run, part, second)["seen"]
    run_module.time = kept
    return {"seen": seen, "shares": shares}


def drift(ranks, folder):
    part = Sum()
    run = start(folder / "drift", part, ranks)
    return go(run, part, lambda step: setattr(part, "value", part.value + 1e-6 * ranks.rank * (step == 1)))


def one_fails(ranks, folder):
    """Rank 1 fails alone, while rank 0 waits for its gradient."""
    if ranks.rank == 1:
        raise UsageError("planted")
    return descend(slice(0, 8), ranks)


def in_use(ranks, folder):
    with RunFolder.open(folder / "taken", RunConfig(), frozenset(), ranks):
        return "opened"


SCENARIOS = (halves, nan_on_one, talk, stop, resume, clocks, drift, one_fails, in_use)


def main(folder, ports):
    """Play every scenario; the last one to the end, as a program does."""
    module.TIMEOUT = timedelta(seconds=PATIENCE / 2)
    results = {}
    for scenario, port in zip(SCENARIOS, ports, strict=True):
        os.environ["MASTER_PORT"] = port
        try:
            with Ranks.join() as ranks:
                results[scenario.__name__] = scenario(ranks, folder)
        except UsageError as error:
            results[scenario.__name__] = {"said": str(error)}
            if scenario is SCENARIOS[-1]:
                sys.exit(f"program: {error}")
        except SystemExit as error:
            results[scenario.__name__] = {"status": error.code}
            if scenario is SCENARIOS[-1]:
                raise
        finally:
            (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """All scenarios, played by two processes: their results, exit statuses and complaints, by rank."""
    folder = tmp_path_factory.mktemp("ranks")
    # Kept here, as torchrun keeps them: on ports that the system chooses, so that none is taken.
    stores = [dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in SCENARIOS]
    command = [sys.executable, __file__, str(folder), *(str(store.port) for store in stores)]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", "OMP_NUM_THREADS": "1"}
    shared |= {"WORLD_SIZE": str(WORLD), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    with RunFolder.open(folder / "taken", RunConfig(), frozenset()):
        before = {file.name for file in (folder / "taken").iterdir()}
        processes = [
            subprocess.Popen(
                command,
                env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(WORLD)
        ]
        try:
            printed = [process.communicate(timeout=PATIENCE) for process in processes]
        finally:
            for process in processes:
                process.kill()
    assert {file.name for file in (folder / "taken").iterdir()} == before
    results = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]
    return SimpleNamespace(
        folder=folder,
        results={name: [result[name] for result in results] for name in results[0]},
        statuses=[process.returncode for process in processes],
        out=[out for out, _ in printed],
        err=[err for _, err in printed],
    )


def the_message(pair):
    """What the one that spoke said; the other ended silently, with status 1."""
    (said,) = [result["said"] for result in pair if "said" in result]
    assert [result["status"] for result in pair if "status" in result] == [1]
    return said


def test_half_a_batch_each_is_the_step_of_a_whole_batch(played):
    whole = descend(slice(0, 8), Ranks.single())
    first, second = played.results["halves"]
    assert first["weights"] == second["weights"]
    assert first["same"]
    assert first["weights"] == pytest.approx(whole["weights"], abs=1e-5)
    half = descend(slice(0, 4), Ranks.single())
    assert half["weights"] != pytest.approx(whole["weights"], abs=1e-3)  # so the comparison can fail


def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_on_all(played):
    alone = descend(slice(0, 8), Ranks.single(), broken={2, 4})
    first, second = played.results["nan_on_one"]
    assert first == second
    assert first["skipped"] == 2
    assert first["weights"] == pytest.approx(alone["weights"], abs=1e-6)


def test_all_ranks_hear_the_same(played):
    first, second = played.results["talk"]
    assert (first.pop("stream"), second.pop("stream")) == ("camnet", "camnet 1")
    assert first == second
    assert first == {"any": [False, True, True], "first says": 0.1, "same": [False, True], "device": "cpu"}


def test_a_wish_to_stop_on_one_rank_stops_all_and_is_told_once(played):
    assert "stopped at step 6 of 10" in the_message(played.results["stop"])


def test_all_go_on_from_the_same_checkpoint_and_rank_0_alone_writes_and_prints(played):
    first, second = played.results["resume"]
    assert first.pop("left") == [0, 1, True, False, True]  # each is on its own then
    assert second.pop("left") == [1, 1, False, False, False]
    assert first == second == {"seen": [6, 7, 8, 9], "sum": float(sum(range(10)))}
    assert "at step 6 of 10" in played.out[0]
    assert played.out[1] == ""
    rows = [json.loads(line) for line in (played.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 9, 10]
    assert len(list(played.folder.glob("events*"))) == 2  # one a start


def test_rank_0s_clock_sets_the_pace_of_all(played):
    first, second = played.results["clocks"]
    assert first == second == {"seen": list(range(8)), "shares": [step / 8 for step in range(8)]}


def test_replicas_that_drifted_apart_are_not_saved(played):
    message = the_message(played.results["drift"])
    assert "replicas of part are not equal at step 4" in message
    assert not (played.folder / "drift" / "checkpoints").exists()


def test_a_rank_that_fails_alone_ends_all_with_its_message(played):
    assert the_message(played.results["one_fails"]) == "planted"
    assert "said" in played.results["one_fails"][1]


def test_a_folder_in_use_ends_all_ranks_with_one_message(played):
    assert played.statuses == [1, 1]
    assert "in use by another process" in the_message(played.results["in_use"])
    assert [err.count("program: ") for err in played.err] == [1, 0]
    assert "Traceback" not in played.err[0] + played.err[1]


def test_one_process_alone_meets_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with Ranks.join() as ranks:
        assert not dist.is_initialized()
        assert (ranks.rank, ranks.world, ranks.first) == (0, 1, True)
        gradient = torch.ones(2)
        ranks.average([gradient])
        assert torch.equal(gradient, torch.ones(2))
        assert (ranks.any(True), ranks.any(False), ranks.first_says(0.3)) == (True, False, 0.3)


def test_processes_that_torchrun_did_not_start_are_told_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match=r"WORLD_SIZE is 2.*RANK.*torchrun"), Ranks.join():
        pass


def test_each_process_of_a_machine_gets_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Ranks(3, 4).device("auto") == torch.device("cuda", 1)
    assert chosen == [1]
    assert Ranks(3, 4).device("cpu") == CPU
    assert Ranks.single().device("auto") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match=r"PyTorch sees 2.*--nproc-per-node 2"):
        Ranks(2, 4).device("cuda")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])


@pytest.mark.parametrize(("world", "refused"), [(None, False), ("1", False), ("2", True)])
def test_a_program_for_one_process_refuses_to_be_one_of_several(monkeypatch, world, refused):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world:
        monkeypatch.setenv("WORLD_SIZE", world)
    refusal = pytest.raises(UsageError, match=r"run_rl.py runs in one process; start it without torchrun")
    with refusal if refused else nullcontext():
        require_single("run_rl.py")
