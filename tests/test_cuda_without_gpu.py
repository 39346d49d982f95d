"""The loop on CUDA, on a machine that may have no GPU: nothing mixes devices, and no step waits for the device.

PyTorch's fake tensors know their shape, type and device, and hold no numbers. On a device called "cuda" they go through
the same code as on a GPU, so that two mistakes show that a run on a CPU hides: operations on tensors of two devices,
and a host that waits for the device (`.item()`, `if tensor:`, a boolean index, a copy from or to the host).

What this cannot tell: whether CUDA's kernels compute the right numbers, how fast, and whether one of them waits by
itself. The host may wait while a run is built, at log points, when the picture of views is written and at checkpoints
(docs/architecture.md); so waiting is forbidden only after the run is built, and the other three are left out. So are
Stable-Baselines3's A2C and PPO, which work in numpy.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stable_baselines3.common import base_class
from stable_baselines3.common.callbacks import ConvertCallback
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

import run_rl
import system
from camnet import frozen
from camnet.layout import Palette
from camnet.trainer import Trainer
from configs.camnet import CamnetConfig, GeneratorConfig
from configs.data import DataConfig
from configs.reading import read
from configs.run import RunConfig
from contrastive.negatives import log_negatives
from env import reference
from env.corruption import corrupt
from env.distribution import fixed_rates
from env.images import ImageSet, Splits
from env.masks import smooth
from env.sb3 import CorruptionSB3VecEnv
from env.vector import CorruptionVectorEnv
from policy import Reinforce, network
from training.seeding import generator_at
from training.stopwatch import Stopwatch

CUDA = torch.device("cuda")
COPIES = torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default


class HostWaits(AssertionError):
    """The host would wait for the GPU."""


WAITS = HostWaits, DataDependentOutputException, DynamicOutputShapeException
"""The two of PyTorch's: a number is asked for, or a shape that depends on numbers."""


class Operations(TorchDispatchMode):
    """Sees every operation, forward and backward, on its way to the fake tensors.

    Attributes:
        in_step: Whether copies between host and device are forbidden: the host waits for them. Values and shapes that
            depend on values cannot be had from fake tensors at any time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.in_step = False

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Forbid them inside."""
        self.in_step = True
        try:
            yield
        finally:
            self.in_step = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.in_step:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            hosts = [tensor for tensor in tensors if tensor.device.type == "cpu"]
            if 0 < len(hosts) < len(tensors) and not goes_along(func, hosts, kwargs or {}):
                raise HostWaits(f"{func} has tensors on the host and on the device")
        return out


def goes_along(func: Any, hosts: list[Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether what lies on the host is handed over without waiting: a number, or a copy that says so."""
    if func in COPIES:
        return kwargs.get("non_blocking", False) and kwargs["device"].type == "cuda"
    return all(tensor.dim() == 0 for tensor in hosts)


class Generators(TorchFunctionMode):
    """Refuses what CUDA refuses and fake tensors let pass: a generator of another device than the numbers'."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        random = (kwargs or {}).get("generator")
        if random is not None and random.device.type != out.device.type:
            raise RuntimeError(f"expected a generator on {out.device.type}, got one on {random.device.type}")
        return out


class Generator(torch.Generator):
    """A generator that says it is on CUDA, which a machine without GPU cannot make."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        return super().__new__(cls)

    def __init__(self, device: Any = "cpu") -> None:
        self._where = torch.device(device)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._where

    def clone_state(self) -> "Generator":
        return Generator(self._where)


class Event:
    """A mark in the device's stream."""

    def __init__(self, enable_timing: bool) -> None:
        pass

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        raise HostWaits("an event was waited for")


def moved(module: nn.Module, change: Any, recurse: bool = True) -> nn.Module:
    """What `Module.to` comes to; its own way, to swap what lies behind a parameter, fake tensors do not allow."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(change(parameter.detach()), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = change(buffer)
    return module


def gradients(loss: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Autograd's way back, node by node; its own engine would look for the streams of the GPU.

    Returns:
        Every leaf that the loss depends on, with its gradient.
    """
    root: Any = loss.grad_fn
    uses, found = Counter([root]), [root]
    for node in found:
        after = [child for child, _ in node.next_functions if child is not None]
        found += dict.fromkeys(child for child in after if child not in uses)
        uses.update(after)
    arrived: dict[Any, dict[int, Tensor]] = {node: {} for node in found}
    arrived[root][loss.output_nr] = torch.ones_like(loss)
    ready, leaves = [root], []
    while ready:
        node = ready.pop()
        if hasattr(node, "variable"):
            leaves.append((node.variable, arrived[node][0]))
            continue
        given = [arrived[node].get(place) for place in range(len(node._input_metadata))]
        made = getattr(node, "apply", node)(*given)  # of a Function written in Python, or in C++
        made = made if isinstance(made, tuple) else (made,)
        for (child, place), gradient in zip(node.next_functions, made, strict=False):
            if child is None:
                continue
            if gradient is not None:
                like = child._input_metadata[place]
                gradient = gradient.sum_to_size(like.shape).to(like.dtype)  # what was broadcast, or cast by autocast
                arrived[child][place] = gradient + arrived[child].get(place, 0)
            uses[child] -= 1
            if not uses[child]:
                ready.append(child)
    return leaves


@torch.no_grad()
def backward(loss: Tensor) -> None:
    """`Tensor.backward`."""
    for leaf, gradient in gradients(loss):
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


@torch.no_grad()
def grad(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """`torch.autograd.grad`, for leaves."""
    found = {id(leaf): gradient for leaf, gradient in gradients(loss)}
    return [found[id(leaf)] for leaf in inputs]


def images_of(config: DataConfig, device: torch.device) -> Splits:
    """As many images as the digits' splits have."""

    def some(n: int) -> ImageSet:
        pixels = torch.zeros(n, 3, config.size, config.size, dtype=torch.uint8, device=device)
        return ImageSet(pixels, torch.zeros(n, dtype=torch.long, device=device))

    return Splits(some(997), some(300), some(500))


@contextlib.contextmanager
def pretend_cuda() -> Iterator[Operations]:
    """Make all tensors fake, those on "cuda" too, and patch what would ask a GPU for more."""
    fake, load = FakeTensorMode(allow_non_fake_inputs=True), frozen.load_tensors

    def load_fake(blob: bytes) -> dict[str, Tensor]:
        with unset_fake_temporarily():
            weights = load(blob)
        return {name: fake.from_tensor(weight) for name, weight in weights.items()}

    def on_the_host(*arguments: Any) -> float:
        with unset_fake_temporarily():
            return smooth.logit_for(*arguments)

    def palette(images: Tensor, classes: int, seed: int) -> Palette:
        return Palette(torch.zeros(classes, 3, device=images.device))

    with pytest.MonkeyPatch.context() as patch:
        # The same where there is a GPU: it is left alone.
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        patch.setattr(nn.Module, "_apply", moved)
        patch.setattr(Tensor, "__deepcopy__", lambda tensor, memo: tensor.detach().clone())
        patch.setattr(Tensor, "backward", backward)
        patch.setattr(torch.autograd, "grad", grad)
        # What is read, or computed on the host, before the first step: images, their labels, weights, a logit, the
        # layout's colors.
        patch.setattr(system.images, "load", images_of)
        patch.setattr(system.System, "_check_held_out", lambda self: None)
        patch.setattr(frozen, "load_tensors", load_fake)
        patch.setattr(network, "logit_for", on_the_host)
        patch.setattr(Palette, "fit", staticmethod(palette))
        with fake, Operations() as operations, Generators():
            yield operations


class Steps:
    """What `run_rl.train` asks of a run: so many steps, the first of two with log point, kNN accuracy and picture."""

    progress = 0.5

    def __init__(self, gpu: Operations, count: int) -> None:
        self.gpu, self.count, self.step, self.watch, self.logbook = gpu, count, 0, Stopwatch(CUDA), self
        self.noted: dict[str, Tensor] = {}

    def steps(self) -> Iterator[int]:
        for step in range(self.count):
            self.step = step
            with self.gpu.step():
                yield step

    def due(self, every: int) -> bool:
        return self.count == 2 and self.step == 0

    def note(self, values: dict[str, Tensor]) -> None:
        self.noted |= values

    def picture(self, tag: str, image: Tensor, step: int) -> None:
        self.noted[tag] = image


def built(*flags: str) -> system.System:
    config = read(RunConfig, ["--schedule.warmup", "0", *flags], prog="", description="")
    return system.System(config, CUDA)


def train(gpu: Operations, *flags: str, steps: int = 1) -> dict[str, Tensor]:
    """Some steps of the loop; its figures."""
    s, run = built(*flags), Steps(gpu, steps)
    run_rl.train(s.config, run, s)  # type: ignore[arg-type]
    return run.noted


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(reference, "DRAWS", 1)
    with pretend_cuda() as operations:
        yield operations


def test_the_default_run(gpu):
    noted = train(gpu, steps=2)
    assert {"learner/loss", "reference/slope", "reward/raw", "policy/grad_norm", "evaluate/knn_top1"} <= noted.keys()
    assert {value.device.type for value in noted.values()} == {"cuda"}


SETTINGS = (
    # Many at once: they act in different places of a step.
    "--views most-different --views.scoring-scale 2 --views.scoring-bfloat16 True --loss rince --policy.mask budget "
    "--reward.scaling quantiles",
    "--views hard --views.count 3 --loss dcl --policy.mask smooth --reward adversarial --reward.baseline critic",
    "--views all --loss spherical --policy autodropout --reward.measured-on training --reward.baseline ema",
    "--views all --loss l-in --schedule.batch 160 --contrastive.chunk 160 --reward prediction-gain "
    "--reward.baseline table",
    "--augment.strength 1 --augment.rotation 10 --augment.blur 0.5 --loss sincere --reward.credit batch",
    "--augment.strength 0.5 --augment.crop edge --reward.reference.kind expert --policy.estimator evolution",
    "--policy latent --amp True --loss paper --reward.baseline rloo:2",
    "--views all --loss cosine-pull --reward cooperative --policy.estimator disarm --generator blur",
    "--reward val-loss --reward.reference.kind labels --generator noise",
    "--reward knn --reward.baseline table --generator mean",
    "--reward.baseline greedy --generator erase",
    "--policy cowmask --reward none --generator erase",
    "--policy crop --reward none --generator erase --contrastive.encoder resnet18",
    "--data cifar10 --policy random --reward none --amp True",
)


@pytest.mark.parametrize("flags", SETTINGS)
def test_other_settings(gpu, flags):
    noted = train(gpu, *flags.split())
    assert {value.device.type for value in noted.values()} == {"cuda"}


def test_the_gymnasium_environment(gpu):
    env = CorruptionVectorEnv(built("--schedule.batch", "8").world, frozen_learner=True)
    env.reset()
    with gpu.step():
        for _ in range(2):
            actions = torch.zeros(8, *env.single_action_space.shape, dtype=torch.long, device=CUDA)
            _, rewards, over, _, infos = env.step(actions)
    assert rewards.device.type == over.device.type == infos["final_obs"].device.type == "cuda"


def test_reinforce_as_an_algorithm_of_stable_baselines3(gpu, monkeypatch):
    monkeypatch.setattr(base_class, "get_device", torch.device)  # it would look for a GPU
    env = CorruptionSB3VecEnv(built("--schedule.batch", "8").world)
    model, callback = Reinforce("CorruptionPolicy", env, device="cuda", seed=0), ConvertCallback(None)
    model.set_logger(Logger(None, []))
    callback.init_callback(model)
    model._last_obs = env.reset_torch()
    with gpu.step():
        model.collect_rollouts(env, callback, None, 1)
        model.train()
    assert {value.device.type for values in model._noted.values() for value in values} == {"cuda"}


ALL_TASKS = GeneratorConfig(
    resolutions=(8, 16),
    widths=(16, 8),
    patch=2,
    smooth=True,
    fill=True,
    context=True,
    norm=False,
    factors=5,
    tasks=("mix", "decompression", "layout"),
    painter=(8, 8, 8),
    painter_regions=2,
    exemplars=2,
    colorist=(8, 8, 8),
)


@pytest.mark.parametrize(
    "config",
    [
        CamnetConfig(recolor=True, group=1, reuse=2, adaptive=0.25, reject=0.01),
        CamnetConfig(
            generator=ALL_TASKS,
            candidates=(4, 2),
            group=1,
            grids=(2, 4),
            pure=0.4,
            flip=True,
            grid_weight=10.0,
            texture_weight=5.0,
            amp=True,
        ),
    ],
    ids=["digits", "all tasks"],
)
def test_camnet_trains(gpu, config):
    trainer = Trainer(config, images_of(config.data, CUDA).train, CUDA)
    for turn in range(len(config.generator.tasks)):
        with gpu.step():
            figures = list(trainer.round(turn * config.stride, 0.5))
        assert len(figures) == config.stride
        assert figures[-1]["camnet/loss"].device.type == "cuda"


@pytest.mark.parametrize(("name", "precision"), [("cifar10", torch.float32), ("imagefolder", torch.bfloat16)])
def test_a_frozen_generator(gpu, name, precision):
    data = DataConfig(name=name)
    generator, x = frozen.find(name, data, CUDA, precision), images_of(data, CUDA).test.images()[:8]
    with gpu.step():
        random = generator_at(0, 0, "codes", CUDA)
        action = fixed_rates(8, 4, 0.3, 0.3, (0.2, 0.2), CUDA).sample(random)
        views = generator.views(corrupt(x, action), 3, random)
    assert (views.device.type, views.dtype, views.shape) == ("cuda", torch.float32, (8, 3, *x.shape[1:]))


def test_the_way_back_is_autograds():
    """On real tensors: broadcasting, a Function in Python, a half that is made again, and leaves that are met twice."""
    random = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(shape, generator=random).requires_grad_() for shape in ((3, 8), (1, 8)))
    x = torch.randn(4, 5, 3, generator=random)

    def loss() -> Tensor:
        u = checkpoint(lambda part: (part @ weight + bias).tanh(), x[:2], use_reentrant=False)
        u = F.normalize(torch.cat([u, x[2:] @ weight * bias]), dim=-1)
        first, _, *_ = (u + log_negatives(u, 0.5, whole=0, tile=4)[..., None]).unbind(0)
        return first.square().sum() + weight.mean()

    expected = torch.autograd.grad(loss(), [weight, bias])
    for a, b in zip(grad(loss(), [weight, bias]), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "careless",
    [
        lambda x: x.sum().item(),
        lambda x: 1 if x.any() else 0,
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x[torch.arange(2)],
        lambda x: x.copy_(torch.zeros(3)),
        lambda x: x * torch.tensor([1.0, 2.0, 3.0], device=x.device),
        lambda x: x.new_tensor(0.5),
        lambda x: Event(enable_timing=True).synchronize(),
    ],
)
def test_waiting_is_seen(gpu, careless):
    x = torch.zeros(3, device=CUDA)
    with gpu.step(), pytest.raises(WAITS):
        careless(x)


def test_what_does_not_wait_may_be_done(gpu):
    x = torch.zeros(3, device=CUDA)
    with gpu.step():
        torch.where(x > 0, 1.0, x) + torch.tensor(2.0)  # one number goes along
        x[torch.arange(2, device=CUDA)].to(CUDA).to(torch.float64)
        torch.full((3,), 0.5, device=CUDA)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + torch.zeros(3),
        lambda x: torch.cat([x, torch.zeros(3)]),
        lambda x: torch.rand(3, generator=generator_at(0, 0, "", torch.device("cpu")), device=x.device),
        lambda x: torch.rand(3, generator=generator_at(0, 0, "", x.device)),
    ],
)
def test_two_devices_are_seen(gpu, mixed):
    with pytest.raises(RuntimeError, match=r"same device|generator"):
        mixed(torch.zeros(3, device=CUDA))


@pytest.mark.parametrize(
    ("change", "seen"),
    [(lambda r: r * float(r.mean()), WAITS), (lambda r: r * torch.ones(len(r)), RuntimeError)],
    ids=["waits", "two devices"],
)
def test_a_mistake_in_the_loop_is_seen(gpu, monkeypatch, change, seen):
    right = run_rl.ratio_penalty
    monkeypatch.setattr(run_rl, "ratio_penalty", lambda *given: change(right(*given)))
    with pytest.raises(seen):
        train(gpu)
