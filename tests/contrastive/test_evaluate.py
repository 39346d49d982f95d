"""The program, from a run's folder to figures, tables and map; what it measures is what the parts measure."""

import json

import matplotlib.image
import pytest
import torch

from configs.contrastive import ContrastiveConfig
from configs.data import DataConfig
from configs.errors import UsageError
from configs.probe import ProbeConfig
from configs.reading import read, write
from configs.run import RunConfig
from contrastive import evaluate, table
from contrastive.accuracies import accuracies
from contrastive.encoder import Learner
from contrastive.evaluate import prepare
from contrastive.rank import rankme
from env.images import load
from training import checkpoint

CPU = torch.device("cpu")
FEW = ["--train-images", "120", "--test-images", "40", "--device", "cpu", "--map", "pca"]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(tmp_path):
    """Leave what a run leaves: settings and a checkpoint of an untrained learner."""

    def leave(name="some run", step=7, weights=None, origin=None, **data):
        config = RunConfig(contrastive=ContrastiveConfig(width=8, projection=12), data=DataConfig(**data))
        torch.manual_seed(0)
        learner = Learner(config.contrastive, config.data.size)
        if weights is not None:
            torch.nn.init.constant_(learner.projector[0].weight, weights)
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(write(config))
        parts = {"learner": learner.state_dict()} | ({"origin": {"source images": origin}} if origin else {})
        checkpoint.save(folder / "checkpoints", step, {"parts": parts})
        return folder, learner

    return leave


def test_images_that_are_not_the_runs_are_told(run, capsys):
    for name, origin in (("own", load(DataConfig(), CPU).digest), ("others", "another")):
        folder, _ = run(name, origin=origin)
        prepare(read(ProbeConfig, [str(folder)], prog="", description=""), CPU)
        assert ("learned from other images" in capsys.readouterr().err) == (name == "others")


def test_the_program_writes_figures_tables_and_a_map(run, capsys):
    folder, learner = run()
    evaluate.main([str(folder), *FEW])
    out = folder / "evaluation"
    assert {path.name for path in out.iterdir()} == {"figures.json", "table.md", "map.png"}
    found = json.loads((out / "figures.json").read_text())
    assert (found["run"], found["step"], found["split"]) == ("some run", 7, "test")
    assert found["checkpoint"] == str(folder / "checkpoints" / "step_00000007.safetensors")
    assert (folder / "checkpoints" / "step_00000007.safetensors").is_file()
    assert found["images"] == {"train": 120, "test": 40, "pairs": 40}
    assert found["lengths"] == {"features": 256, "projections": 12}
    assert found["data_digest"] == load(DataConfig(), CPU).digest
    assert found["command"] == f"python -m contrastive.evaluate '{folder}' {' '.join(FEW)}"
    assert found["pairs"] == "color jitter, grayscale 0.2, no crop, no flip; strength 1"
    assert list(found["figures"]) == list(found["definitions"]) == list(table.FIGURES)

    splits = load(DataConfig(), CPU)
    bank, asked = splits.train.thinned(120), splits.test.thinned(40)
    expected = accuracies(learner, bank, asked)
    assert {name: found["figures"][name] for name in expected} == pytest.approx(expected)
    z = learner.eval().features(asked.images()).detach()
    assert found["figures"]["rankme_features"] == pytest.approx(rankme(z).item(), rel=1e-3)
    assert 0 < found["figures"]["alignment_features"] < found["figures"]["distance_features"]

    counts = torch.tensor(found["confusion"]["knn"])
    assert torch.equal(counts.sum(dim=1), asked.labels.bincount(minlength=10))
    assert counts.trace().item() / 40 == pytest.approx(found["figures"]["knn_top1"])
    hits = sum(row["images"] * row["linear_top1"] for row in found["classes"].values())
    assert hits / 40 == pytest.approx(found["figures"]["linear_top1"])

    shown, page = capsys.readouterr().out, (out / "table.md").read_text()
    for line in page.splitlines():
        assert not line.startswith("|") or line in shown
    assert sum(line.startswith("| ") for line in shown.splitlines()) == 2 + len(table.FIGURES) + 2 + 10
    for words in ("some run at step 7 (step_00000007.safetensors)", "40 test images of digits", "120 training images"):
        assert words in page
        assert words in shown
    assert str(out) in shown
    assert matplotlib.image.imread(out / "map.png")[..., :3].std() > 0.1


def test_equal_commands_give_equal_figures_and_a_seed_moves_alignment_alone(run, tmp_path):
    folder, _ = run()
    found = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        evaluate.main([str(folder), *FEW, "--out", str(tmp_path / name), "--seed", seed])
        found.append(json.loads((tmp_path / name / "figures.json").read_text())["figures"])
    a, b, c = found
    assert a == b
    moved = {name for name in a if a[name] != c[name]}
    assert moved == {f"{figure}_{space}" for figure in ("alignment", "distance") for space in evaluate.SPACES}


def test_stronger_augmentation_pulls_views_apart(run):
    folder, _ = run()
    weak, strong = (
        evaluate.alignments(evaluate.prepare(ProbeConfig(run=folder, augment_strength=s, test_images=100), CPU))
        for s in (0.1, 1.0)
    )
    assert weak["alignment_features"] < 0.5 * strong["alignment_features"]


def test_splits_counts_and_classes(run):
    folder, _ = run(classes=("3", "8"))
    e = evaluate.prepare(ProbeConfig(run=folder, split="validation", train_images=0), CPU)
    splits = load(DataConfig(classes=("3", "8")), CPU)
    assert e.classes == ("3", "8")
    assert torch.equal(e.bank.pixels, splits.train.pixels)
    assert torch.equal(e.asked.pixels, splits.validation.pixels)


def test_only_digits_keep_their_shape_in_pairs():
    digits, photographs = (evaluate.pair_law(DataConfig(name=name)) for name in ("digits", "cifar10"))
    assert (digits.crop, digits.flip, digits.gray) == ("none", 0, 0.2)
    assert (photographs.crop, photographs.flip, photographs.gray) == ("resized", 0.5, 0.2)


def test_a_learner_that_changes_is_found_out(run, monkeypatch):
    class Restless(Learner):
        def features(self, x):
            self.encoder[1].running_mean[0] += 1e-6
            return super().features(x)

    folder, _ = run()
    monkeypatch.setattr("contrastive.trained.Learner", Restless)
    with pytest.raises(UsageError, match=r"changed by being looked at: encoder\.1\.running_mean"):
        evaluate.main([str(folder), *FEW])
    assert not list((folder / "evaluation").iterdir())


def test_a_learner_that_has_diverged_is_named(run):
    folder, _ = run(weights=float("nan"))
    with pytest.raises(UsageError, match=r"some run: its learner gives features that are not finite"):
        evaluate.main([str(folder), *FEW])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--k", "0"], r"--k must lie in \[1, "),
        (["--temperature", "0"], r"--temperature must lie in \[0\.001, "),
        (["--augment-strength", "0"], r"--augment-strength must lie in \[0\.01, 1\]"),
        (["--split", "train"], r"--split must be one of validation, test"),
        (["--map", "umap"], r"--map must be one of tsne, pca"),
        (["--train-images", "-1"], r"--train-images must lie in \[0, "),
        (["--train-images", "9"], r"--train-images: 9 images measure nothing; take at least 10"),
        (["--test-images", "1"], r"--test-images: 1 images measure nothing; take at least 10"),
    ],
)
def test_what_cannot_be_is_refused(run, flags, message):
    folder, _ = run()
    with pytest.raises(UsageError, match=message):
        evaluate.main([str(folder), *flags])
    assert not (folder / "evaluation").exists()


def test_one_class_alone_is_refused(run):
    folder, _ = run(classes=("3",))
    with pytest.raises(UsageError, match=r"training images are all of one class"):
        evaluate.main([str(folder)])


def test_a_runs_own_figures_of_one_class_lack_the_linear_one(run):
    _, learner = run()
    splits = load(DataConfig(classes=("3",)), CPU)
    assert accuracies(learner, splits.train, splits.test) == {"knn_top1": 1.0, "linear_top1": None}


def test_a_folder_that_cannot_be_made_is_named(run, tmp_path):
    folder, _ = run()
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*taken"):
        evaluate.main([str(folder), "--out", str(tmp_path / "taken")])


def test_no_run_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere is no run's folder"):
        evaluate.main([str(tmp_path / "nowhere")])


def test_the_table_of_classes_says_what_each_is_taken_for():
    counts = torch.tensor([[4, 0, 1], [2, 1, 3], [0, 0, 0]])
    lines = table.class_table(("ape", "bee", "cow"), {"knn": counts, "linear": counts.T}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert cells[0] == ["ape", "5", "80.0%", "66.7%", "cow (1)"]
    assert cells[1] == ["bee", "6", "16.7%", "100.0%", "cow (3)"]
    assert cells[2] == ["cow", "0", "–", "–", "–"]
    none = table.by_class(("ape", "bee", "cow"), {"knn": counts})["cow"]
    assert none == {"images": 0, "knn_top1": None}
    assert len({len(line) for line in lines}) == 1
