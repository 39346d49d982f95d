"""One round: which codes are searched when, and what is learned from them."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from camnet import frozen, imle, parts
from camnet.generator import Generator
from camnet.imle import nearest, search
from camnet.layout import labels_of
from camnet.trainer import Trainer
from configs.camnet import CamnetConfig, GeneratorConfig
from configs.data import DataConfig
from configs.errors import UsageError
from env.images import ImageSet, load
from training.schedule import one_cycle
from training.seeding import generator_at

SMALL = GeneratorConfig(resolutions=(4, 8, 16), widths=(8, 8, 8), blocks=1, global_code=4)


def trainer(**settings):
    config = CamnetConfig(**{"batch": 4, "group": 2, "candidates": (4, 2, 2), "generator": SMALL} | settings)
    made = Trainer(config, load(DataConfig(), torch.device("cpu")).train, torch.device("cpu"))
    made.begin()
    return made


@pytest.fixture
def searches(monkeypatch):
    """How many images each search of a round was asked for."""
    seen = []

    def counted(generator, distance, degraded, *rest):
        seen.append(len(degraded))
        return search(generator, distance, degraded, *rest)

    monkeypatch.setattr("camnet.trainer.search", counted)
    return seen


def test_a_round_is_one_search_and_group_times_reuse_steps(searches):
    t = trainer(reuse=3)
    figures = list(t.round(0, 0.5))
    assert searches == [8]
    assert len(figures) == 6 == t.config.stride
    assert t.descent.skipped == 0


@pytest.mark.parametrize("only", ["", "prior", "colorist", "painter"])
def test_every_step_of_a_round_is_as_long_as_the_schedule_says(tmp_path, monkeypatch, only):
    parts = {"prior": (4,)} if only == "prior" else {only: (8, 8, 8)} if only else {}
    settings = {"start": given(tmp_path), f"only_{only}": True} if only else {}
    t, shares = trainer(generator=replace(SMALL, **parts), reuse=2, **settings), []
    step = t.descent.step
    monkeypatch.setattr(t.descent, "step", lambda loss, share=1.0: shares.append(share) or step(loss, share))
    list(t.round(0, 0.3))
    assert shares == [one_cycle(0.3)] * t.config.stride


def test_adaptive_searches_again_for_a_share_between_passes(searches):
    assert len(list(trainer(reuse=3, adaptive=0.25).round(0, 0.5))) == 6
    assert searches == [8, 2, 2]


def test_in_a_round_adaptive_takes_those_whose_loss_has_fallen_most(monkeypatch):
    t, again, shares = trainer(reuse=3, adaptive=0.25, learning_rate=0.05), Trainer.search_again, []

    def watched(self, codes, found, degraded, targets, random):
        with torch.no_grad():
            share = imle.imle_loss(self.generator, self.distance, degraded, targets, codes) / found
        mixed, fresh = again(self, codes, found, degraded, targets, random)
        assert set(fresh.nonzero().flatten().tolist()) == set(share.argsort()[:2].tolist())
        shares.append((found, share, fresh))
        return mixed, fresh

    monkeypatch.setattr(Trainer, "search_again", watched)
    figures = list(t.round(0, 0.3))
    (first, share, fresh), (second, _, _) = shares
    assert len(share.unique()) == 8  # else the choice would be one of ties
    assert first[:4].mean() == pytest.approx(figures[0]["camnet/loss"].item())
    assert torch.equal(second[~fresh], first[~fresh])
    assert (second[fresh] != first[fresh]).all()


def test_without_adaptive_nothing_is_measured_between_passes(monkeypatch):
    t, measured = trainer(reuse=3), []
    monkeypatch.setattr("camnet.objective.imle_loss", lambda *given: measured.append(0) or imle.imle_loss(*given))
    assert len(list(t.round(0, 0.3))) == len(measured) == 6


def test_adaptive_takes_those_it_is_given():
    t = trainer(reuse=2, adaptive=0.5)
    random = torch.Generator().manual_seed(0)
    x, _ = t.batch(random)
    degraded = t.tasks.draw("mix", x, random)
    targets = imle.pyramid(x, SMALL.resolutions)
    codes = t.search(degraded, targets, random).codes
    with torch.no_grad():
        now = t.objective.losses(torch.arange(8), degraded, targets, codes)
    fallen = torch.tensor([1.0, 0.2, 0.9, 0.8, 0.1, 0.3, 0.95, 0.25])
    mixed, fresh = t.search_again(codes, now / fallen, degraded, targets, random)
    assert fresh.nonzero().flatten().tolist() == [1, 4, 5, 7]
    for old, new in zip(codes, mixed, strict=True):
        same = (old.style == new.style).flatten(1).all(dim=1)
        assert torch.equal(same, ~fresh)
        assert torch.equal((old.noise == new.noise).flatten(1).all(dim=1), ~fresh)


def test_the_same_step_gives_the_same_round():
    a, b = trainer(reuse=2, adaptive=0.5), trainer(reuse=2, adaptive=0.5)
    for t in (a, b):
        list(t.round(4, 0.3))
    assert all(torch.equal(p, q) for p, q in zip(a.generator.parameters(), b.generator.parameters(), strict=True))
    list(b.round(8, 0.3))
    assert not all(torch.equal(p, q) for p, q in zip(a.generator.parameters(), b.generator.parameters(), strict=True))


def test_rejection_leaves_out_what_is_already_near():
    d = torch.tensor([[0.1, 0.5, 0.3], [0.1, 0.2, 0.15], [0.9, 0.8, 0.7]])
    assert nearest(d, torch.zeros(3)).tolist() == [0, 0, 2]
    assert nearest(d, torch.tensor([0.25, 0.1, 0.75])).tolist() == [2, 0, 1]  # as near as its bound is not too near
    assert nearest(d, torch.tensor([0.35, 0.16, 0.8])).tolist() == [1, 1, 1]


def test_priors_learn_from_the_images_at_hand():
    t = trainer(generator=replace(SMALL, prior=(4, 2)))
    torch.nn.init.normal_(t.generator.priors[0].head.weight)  # untaught, a prior finds all styles equally likely
    random = torch.Generator().manual_seed(0)
    x, _ = t.batch(random)
    lessons = t.search(t.tasks.draw("mix", x, random), imle.pyramid(x, SMALL.resolutions), random).lessons
    losses = [t.objective.surprise(torch.tensor([row]), lessons)[0] for row in (2, 5, 7)]
    together, curve = t.objective.surprise(torch.tensor([2, 5, 7]), lessons)
    assert torch.allclose(together, torch.stack(losses).mean())
    assert torch.stack(losses).std() > 1e-3
    assert curve["camnet/prior_gain"] == pytest.approx(math.log(4 * 2) - together.item(), abs=1e-5)


@pytest.mark.parametrize("regions", [(1, 1, 1), (1, 2, 4)])
def test_large_searches_are_cut_into_pieces_with_the_same_winners(regions, monkeypatch):
    t = trainer(generator=replace(SMALL, regions=regions))
    random = torch.Generator().manual_seed(0)
    x, _ = t.batch(random)
    degraded, targets = t.tasks.draw("mix", x, random), imle.pyramid(x, SMALL.resolutions)
    found = []
    for at_once in (2**22, 14_000):
        monkeypatch.setitem(parts.BYTES_AT_ONCE, "cpu", at_once)
        found.append(t.search(degraded, targets, torch.Generator().manual_seed(5)).codes)
    whole, pieces = found
    for a, b in zip(whole, pieces, strict=True):
        assert torch.equal(a.style, b.style)
        assert torch.equal(a.noise, b.noise)


def test_what_is_exported_is_not_where_a_short_training_began():
    t = trainer(ema=0.999)
    start = [p.clone() for p in t.averaged.parameters()]
    for step in range(0, 24, t.config.stride):
        list(t.round(step, 0.3))
    moved = sum((p - q).square().sum() for p, q in zip(t.generator.parameters(), start, strict=True))
    behind = sum((p - q).square().sum() for p, q in zip(t.generator.parameters(), t.averaged.parameters(), strict=True))
    assert 0 < behind < 0.3 * moved


def test_in_the_long_run_the_average_is_as_slow_as_it_is_told():
    t = trainer(ema=0.99)
    with torch.no_grad():
        for p in t.generator.parameters():
            p.zero_()
        for p in t.averaged.parameters():
            p.fill_(1)
    t.average(100_000)
    assert all(torch.allclose(p, torch.tensor(0.99)) for p in t.averaged.parameters())


def test_half_precision_trains():
    t = trainer(amp=True)
    figures = list(t.round(0, 0.5))
    assert all(values["camnet/loss"].isfinite() for values in figures)
    assert all(p.dtype == torch.float32 for p in t.generator.parameters())


def test_mirroring_mirrors_half_of_the_images():
    plain, flipped = trainer(batch=64), trainer(batch=64, flip=True)
    (a, _), (b, none) = (t.batch(torch.Generator().manual_seed(0)) for t in (plain, flipped))
    assert none is None
    same = (a == b).flatten(1).all(dim=1)
    assert torch.equal(b[~same], a[~same].flip(-1))
    assert 0.3 < same.float().mean() < 0.7


def test_maps_are_drawn_and_mirrored_with_their_images(monkeypatch):
    digits = load(DataConfig(), torch.device("cpu")).train
    images = ImageSet(digits.pixels, digits.labels, digits.pixels[:, 0])  # so that a map tells its image
    layout = replace(SMALL, tasks=("layout",), layout_classes=255)
    config = CamnetConfig(batch=32, group=2, candidates=(4, 2, 2), generator=layout, flip=True)
    t = Trainer(config, images, torch.device("cpu"))
    assert t.tasks.palette is None
    x, maps = t.batch(torch.Generator().manual_seed(0))
    assert torch.equal(maps, (x[:, 0] * 255).round().to(torch.uint8))
    seen = []
    monkeypatch.setattr("camnet.trainer.search", lambda *given: seen.append(given[2]) or search(*given))
    next(t.round(0, 0.5))
    _, maps = t.batch(generator_at(0, 0, "camnet", torch.device("cpu")))
    assert torch.equal(seen[0].labels, labels_of(maps))


def test_a_training_begins_with_the_weights_that_fit(tmp_path, capsys):
    donor = trainer(seed=7)
    card = {"generator": asdict(SMALL)}
    frozen.save(donor.generator, tmp_path / "donor.safetensors", card)
    wider = replace(SMALL, widths=(8, 8, 16))
    begun = trainer(start=str(tmp_path / "donor.safetensors"), generator=wider).generator.state_dict()
    fresh = trainer(generator=wider).generator.state_dict()
    taken = {name for name, value in donor.generator.state_dict().items() if value.shape == begun[name].shape}
    assert all(torch.equal(begun[name], donor.generator.state_dict()[name]) for name in taken)
    assert all(torch.equal(begun[name], fresh[name]) for name in begun.keys() - taken)
    assert any(name.startswith("levels.2") for name in begun.keys() - taken)
    assert f"{len(taken)} of {len(begun)} tensors taken over" in capsys.readouterr().out
    averaged = trainer(start=str(tmp_path / "donor.safetensors"), generator=wider).averaged.state_dict()
    assert all(torch.equal(begun[name], averaged[name]) for name in begun)


def given(tmp_path, **card):
    """Weights to begin with, and their path."""
    path = tmp_path / "donor.safetensors"
    config = card.pop("generator", SMALL)
    frozen.save(Generator(config), path, {"generator": asdict(config), **card})
    return str(path)


@pytest.mark.parametrize(
    "card",
    [
        {"data": {"name": "digits", "seed": 0}},
        {"data": {"name": "digits", "seed": 1}, "before": {"data": {"name": "digits", "seed": 0}}},
        {"before": {"command": "old", "before": {"data": {"name": "digits", "seed": 0}, "before": {}}}},
    ],
)
def test_a_start_that_has_seen_held_out_images_is_refused(tmp_path, card, capsys):
    trainer(start=given(tmp_path, data={"name": "cifar10", "seed": 0}), data=DataConfig(seed=1))
    capsys.readouterr()
    with pytest.raises(UsageError, match=r"--start .*donor\.safetensors .* of --data\.seed 0 .* of --data\.seed 1"):
        trainer(start=given(tmp_path, **card), data=DataConfig(seed=1))
    assert not capsys.readouterr().out  # nothing was taken over


def test_a_card_keeps_what_the_weights_before_were_trained_on(tmp_path):
    before = {"data": {"name": "cifar10", "seed": 3}, "before": {"steps": 7}}
    kept = {"data": {"name": "digits", "seed": 0}, "class_names": ["0", "1"], "palette": None, "before": before}
    begun = trainer(start=given(tmp_path, **kept, grids=[4])).origin.before
    assert begun.pop("file_sha256")
    assert begun == kept


def test_classes_of_color_keep_their_meaning_from_one_training_to_the_next(tmp_path):
    layout = replace(SMALL, tasks=("mix", "layout"), layout_classes=3)
    own = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]
    for colors, is_kept in ((own, True), (own[:2], False), (None, False)):
        start = given(tmp_path, generator=layout, palette=colors)
        t = trainer(start=start, generator=layout)
        assert torch.allclose(t.tasks.palette.colors, torch.tensor(own)) == is_kept
        resumed = trainer(generator=layout)
        resumed.origin.before = t.origin.before  # as a checkpoint keeps it
        resumed.begin(resumed=True)
        assert torch.equal(resumed.tasks.palette.colors, t.tasks.palette.colors)


def test_a_resumed_training_takes_no_weights_and_reads_their_card_only_if_it_must(tmp_path):
    start, fresh = given(tmp_path, data={"name": "digits", "seed": 0}), trainer().generator.state_dict()
    resumed = trainer()
    resumed.config = replace(resumed.config, start=start)
    resumed.begin(resumed=True)  # as from a checkpoint that did not keep it
    assert resumed.origin.before["data"] == {"name": "digits", "seed": 0}
    assert all(torch.equal(value, fresh[name]) for name, value in resumed.generator.state_dict().items())
    Path(start).unlink()
    resumed.begin(resumed=True)


def test_weights_that_are_not_there_to_begin_with_are_asked_for_by_their_own_flag():
    with pytest.raises(UsageError, match=r"^--start nosuch: no such weights; .*digits") as caught:
        trainer(start="nosuch")
    assert "blur" not in str(caught.value)


def test_weights_of_another_kind_are_refused(tmp_path):
    frozen.save(trainer().generator, tmp_path / "donor.safetensors", {"generator": asdict(SMALL)})
    other = replace(SMALL, widths=(16, 16, 16), global_code=5, spatial_code=0)
    with pytest.raises(UsageError, match=r"only \d+ of this generator's \d+ tensors"):
        trainer(start=str(tmp_path / "donor.safetensors"), generator=other)


def test_only_the_prior_learns_where_that_is_asked_for(tmp_path, monkeypatch):
    small = replace(SMALL, prior=(4,))
    settings = {"start": given(tmp_path), "generator": small, "only_prior": True, "reuse": 2}
    t, seen = trainer(**settings), []
    before = {name: value.clone() for name, value in t.averaged.state_dict().items()}
    monkeypatch.setattr("camnet.trainer.search", lambda *asked: seen.append(asked[4]) or search(*asked))
    figures = [values for step in (0, 4, 8) for values in t.round(step, 0.3)]
    assert seen == [(4,)] * 3  # no search where nothing is learned
    assert len(figures) == 3 * t.config.stride
    assert figures[0]["camnet/prior_gain"].item() == pytest.approx(0, abs=1e-5)
    for weights in (t.generator.state_dict(), t.averaged.state_dict()):
        changed = {name.split(".")[0] for name, value in weights.items() if not torch.equal(value, before[name])}
        assert changed == {"priors"}


def test_a_prior_is_not_learned_of_modules_that_nobody_trained(tmp_path):
    larger = GeneratorConfig(resolutions=(4, 8, 16), widths=(8, 8, 8), blocks=1, global_code=4, prior=(4,))
    start = given(tmp_path, generator=replace(SMALL, resolutions=(4, 8), widths=(8, 8)))
    trainer(start=start, generator=larger)
    with pytest.raises(UsageError, match=r"--only-prior: --start .* is another network"):
        trainer(start=start, generator=larger, only_prior=True)
    with pytest.raises(UsageError, match=r"train it first, without --only-first"):
        trainer(start=start, generator=larger, only_first=2)


def test_the_first_modules_alone_learn_where_that_is_asked_for(tmp_path, monkeypatch):
    # The context serves the finer modules, too: it stays as it is; and so does a colorist.
    small = replace(SMALL, prior=(4,), context=True, colorist=(8, 8, 8))
    start = given(tmp_path, generator=replace(small, prior=()))
    t, seen = trainer(start=start, generator=small, only_first=2, reuse=2, adaptive=0.5), []
    before = {name: value.clone() for name, value in t.averaged.state_dict().items()}
    monkeypatch.setattr("camnet.trainer.search", lambda *asked: seen.append(asked[4]) or search(*asked))
    figures = [values for step in (0, 8, 16) for values in t.round(step, 0.3)]
    assert seen == [(4, 2)] * 6  # in each round once more for --adaptive
    assert all("camnet/prior_gain" in values and "camnet/loss" in values for values in figures)
    assert not any("camnet/color_loss" in values for values in figures)
    for weights in (t.generator.state_dict(), t.averaged.state_dict()):
        changed = {name for name, value in weights.items() if not torch.equal(value, before[name])}
        assert {name.split(".")[0] for name in changed} == {"levels", "priors"}
        assert {name.split(".")[1] for name in changed if name.startswith("levels")} == {"0", "1"}


def test_the_colorist_alone_learns_where_that_is_asked_for(tmp_path, searches):
    small = replace(SMALL, colorist=(8, 8, 8), schemes=4)
    start = given(tmp_path, generator=SMALL)
    t = trainer(start=start, generator=small, only_colorist=True, reuse=2)
    before = {name: value.clone() for name, value in t.averaged.state_dict().items()}
    figures = [values for step in (0, 4) for values in t.round(step, 0.3)]
    assert not searches
    assert len(figures) == 2 * t.config.stride
    assert figures[0]["camnet/taste_gain"].item() == pytest.approx(0, abs=1e-5)
    assert all(set(values) == {"camnet/color_loss", "camnet/taste_gain", "camnet/grad_norm"} for values in figures)
    for weights in (t.generator.state_dict(), t.averaged.state_dict()):
        changed = {name for name, value in weights.items() if not torch.equal(value, before[name])}
        assert {name.split(".")[0] for name in changed} == {"colorist"}
        assert any(name.startswith("colorist.taste") for name in changed)


def test_the_painter_alone_learns_where_that_is_asked_for(tmp_path, searches):
    small = replace(SMALL, painter=(8, 8, 8))
    start = given(tmp_path, generator=SMALL)
    for weight in (0.0, 0.5):
        t = trainer(start=start, generator=small, only_painter=True, reuse=2, adversarial_weight=weight)
        before = {name: value.clone() for name, value in t.averaged.state_dict().items()}
        figures = [values for step in (0, 4) for values in t.round(step, 0.3)]
        assert not searches
        assert len(figures) == 2 * t.config.stride
        contest = {"camnet/adversarial_loss", "camnet/discriminator_loss"} if weight else set()
        assert all(set(values) == {"camnet/fill_loss", "camnet/grad_norm"} | contest for values in figures)
        for weights in (t.generator.state_dict(), t.averaged.state_dict()):
            changed = {name for name, value in weights.items() if not torch.equal(value, before[name])}
            assert {name.split(".")[0] for name in changed} == {"painter"}


def test_an_adversary_of_the_painter_sees_holes_that_it_fills(tmp_path, monkeypatch):
    """And not what exemplars make of them, through which little of its judgment would come back."""
    small = replace(SMALL, painter=(8, 8, 8), exemplars=2)
    monkeypatch.setattr("camnet.generator.completed", lambda *_: pytest.fail("exemplars have no part in training"))
    settings = {"start": given(tmp_path, generator=SMALL), "generator": small, "only_painter": True, "reuse": 2}
    t, seen = trainer(**settings, adversarial_weight=0.5), []

    def contest(generator, condition, truth, made, random, share):
        hidden = condition[:, 3:4] > 0  # after the colors
        differs = (made != truth) & ~hidden
        seen.append((differs.any(), (made - truth).abs().amax(), made.requires_grad, len(made), random.initial_seed()))
        return made.mean(), torch.zeros(())

    monkeypatch.setattr(t.adversary, "contest", contest)
    list(t.round(0, 0.3))
    touches, apart, with_gradient, many, seeds = zip(*seen, strict=True)
    assert many == (2, 2, 2, 2)  # every second image of a batch
    assert not any(touches)
    assert all(with_gradient)
    assert max(apart) > 0.01
    assert len(set(seeds)) == 4


def test_an_adversary_sees_restorations_whose_fills_are_painted(monkeypatch):
    monkeypatch.setattr("camnet.generator.completed", lambda *_: pytest.fail("exemplars have no part in training"))
    t = trainer(generator=replace(SMALL, painter=(8, 8, 8), exemplars=2), adversarial_weight=0.5, paintings=1)
    monkeypatch.setattr("camnet.objective.painting_loss", lambda *_: torch.zeros(()))  # nothing else teaches it
    before = {name: value.clone() for name, value in t.generator.state_dict().items()}
    assert all("camnet/adversarial_loss" in values for values in t.round(0, 0.3))
    assert t.descent.skipped == 0
    changed = {name.split(".")[0] for name, value in t.generator.state_dict().items() if (value != before[name]).any()}
    assert changed == {"levels", "painter"}


def test_a_painter_is_learned_beside_the_network():
    t = trainer(generator=replace(SMALL, painter=(8, 8, 8)))
    before = {name: value.clone() for name, value in t.generator.state_dict().items()}
    figures = list(t.round(0, 0.3))
    assert all("camnet/fill_loss" in values and "camnet/loss" in values for values in figures)
    changed = {name.split(".")[0] for name, value in t.generator.state_dict().items() if (value != before[name]).any()}
    assert changed == {"levels", "painter"}
    assert "camnet/fill_loss" not in next(trainer().round(0, 0.3))


def test_a_colorist_is_learned_beside_the_network():
    t = trainer(generator=replace(SMALL, colorist=(8, 8, 8), schemes=4))
    before = {name: value.clone() for name, value in t.generator.state_dict().items()}
    figures = list(t.round(0, 0.3))
    assert all("camnet/color_loss" in values and "camnet/loss" in values for values in figures)
    changed = {name.split(".")[0] for name, value in t.generator.state_dict().items() if (value != before[name]).any()}
    assert changed == {"levels", "colorist"}
    assert "camnet/color_loss" not in next(trainer().round(0, 0.3))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"smooth": True}, "smooth False, not True"),
        ({"fill": True}, "fill False, not True"),
        ({"regions": (1, 1, 4)}, r"regions 1 1 1, not 1 1 4"),
        ({"resolutions": (8, 16, 32)}, "resolutions 4 8 16, not 8 16 32"),
    ],
)
def test_what_is_left_as_it_is_keeps_its_settings(tmp_path, other, said):
    start, size = given(tmp_path, generator=SMALL), {"data": DataConfig(size=32)} if "resolutions" in other else {}
    changed = replace(SMALL, prior=(4,), **other)
    trainer(start=start, generator=changed, **size)
    with pytest.raises(UsageError, match=rf"^--only-prior: .* was trained with --generator\.{said}, "):
        trainer(start=start, generator=changed, only_prior=True, **size)
    trainer(start=start, generator=replace(SMALL, prior=(4,), regions=(1, 1, 1)), only_prior=True)


def test_regions_of_the_modules_that_are_trained_alone_may_change(tmp_path):
    start = given(tmp_path, generator=SMALL)
    trainer(start=start, generator=replace(SMALL, regions=(1, 2, 1)), only_first=2)
    with pytest.raises(UsageError, match=r"^--only-first: .*regions 1, not 4"):
        trainer(start=start, generator=replace(SMALL, regions=(1, 2, 4)), only_first=2)


def test_more_classes_than_colors_are_refused_by_flag(monkeypatch):
    monkeypatch.setattr("camnet.trainer.SAMPLE", 1)
    with pytest.raises(UsageError, match=r"--generator\.layout-classes 255: 255 classes cannot be made of"):
        trainer(generator=replace(SMALL, tasks=("layout",), layout_classes=255))


def test_painters_draw_no_noise_that_training_would_throw_away():
    config = replace(SMALL, painter=(8, 8, 8), painter_regions=2, exemplars=2)
    generator = Generator(config)
    codes = generator.painter_codes(3, torch.Generator().manual_seed(0))
    assert torch.equal(generator.painter_styles(3, torch.Generator().manual_seed(0)), codes.style)
    assert codes.noise.shape == (3, 2, 16, 16)


def test_what_is_trained_alone_does_not_leave_a_colorist_undrawn(tmp_path):
    small = replace(SMALL, colorist=(8, 8, 8), painter=(8, 8, 8), prior=(4,))
    start = given(tmp_path, generator=SMALL)
    for only in ({"only_prior": True}, {"only_first": 2}, {"only_painter": True}, {"only_colorist": True}):
        with pytest.raises(UsageError, match="is another network"):
            trainer(start=start, generator=small, **only)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": ""}, "needs weights, --start"),
        ({"generator": SMALL}, r"what to train, --generator\.colorist"),
        (
            {"only_prior": True, "generator": replace(SMALL, colorist=(8, 8, 8), prior=(4,))},
            "--only-prior and --only-colorist",
        ),
        ({"only_first": 1}, "--only-first and --only-colorist"),
        ({"adversarial_weight": 0.5}, "--adversarial-weight"),
    ],
)
def test_a_training_of_the_colorist_that_cannot_be_is_refused(settings, message):
    given = {"start": "digits", "only_colorist": True, "generator": replace(SMALL, colorist=(8, 8, 8))}
    CamnetConfig(**given)
    with pytest.raises(ValueError, match=message):
        CamnetConfig(**given | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": ""}, "needs weights, --start"),
        ({"generator": SMALL}, r"what to train, --generator\.painter"),
        (
            {"only_colorist": True, "generator": replace(SMALL, painter=(8, 8, 8), colorist=(8, 8, 8))},
            "--only-painter and --only-colorist",
        ),
        ({"only_first": 1}, "--only-first and --only-painter"),
    ],
)
def test_a_training_of_the_painter_that_cannot_be_is_refused(settings, message):
    given = {"start": "digits", "only_painter": True, "generator": replace(SMALL, painter=(8, 8, 8))}
    CamnetConfig(**given, adversarial_weight=0.5)
    with pytest.raises(ValueError, match=message):
        CamnetConfig(**given | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"only_first": 2, "start": ""}, "it needs weights that have them, --start"),
        ({"only_first": 3}, "only-first"),
        ({"only_first": -1}, "only-first"),
        ({"only_first": 1, "only_prior": True}, "leave one of the two out"),
        ({"only_first": 1, "adversarial_weight": 0.5}, "leave one of the two out"),
        ({"only_first": 1, "generator": replace(SMALL, prior=(4, 2))}, "the prior of the next module"),
    ],
)
def test_a_training_of_the_first_modules_that_cannot_be_is_refused(settings, message):
    given = {"start": "digits", "candidates": (4, 2, 2), "generator": replace(SMALL, prior=(4,))}
    CamnetConfig(**given | {"only_first": 1})
    with pytest.raises(ValueError, match=message):
        CamnetConfig(**given | settings)


def test_a_prior_is_learned_beside_the_network():
    t = trainer(generator=replace(SMALL, prior=(4, 2)))
    before = {name: value.clone() for name, value in t.generator.state_dict().items()}
    figures = list(t.round(0, 0.3))
    assert all("camnet/prior_gain" in values and "camnet/loss" in values for values in figures)
    changed = {name.split(".")[0] for name, value in t.generator.state_dict().items() if (value != before[name]).any()}
    assert changed >= {"levels", "priors"}
    assert "camnet/prior_gain" not in next(trainer().round(0, 0.3))
