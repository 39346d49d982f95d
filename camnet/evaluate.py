"""Measure a frozen generator: `python -m camnet.evaluate --generator digits`. Writes figures, a table and a sheet.

What is interrupted goes on by the same command: rows are kept as they come.
"""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from camnet import sheet, unfinished
from camnet.evaluation import Evaluation, prepare
from camnet.table import COLUMNS, Figures, table
from configs.errors import as_program
from configs.evaluation import EvaluationConfig
from configs.reading import read
from training import device
from training.atomic import explained, write_atomically, write_json
from training.memory import within_memory
from training.provenance import command_of, provenance


def settings_of(evaluation: Evaluation) -> dict[str, Any]:
    """What the figures depend on, but for the code and the machine."""
    config = evaluation.config
    return {
        "split": config.split,
        "images": len(evaluation.x),
        "k": config.k,
        "batch": config.batch,
        "seed": config.seed,
        "amp": config.amp,
        "data": evaluation.data.as_json(),
        "digests": evaluation.digests,
        "distance": evaluation.distance.name,
        "frechet_features": features_name(evaluation),
        "definitions": {name: column.meaning for name, column in COLUMNS.items()},
        "generators": {
            name: {
                "weights_sha256": operator.sha256(),
                "settings": operator.card.get("generator"),
                "trained_by": operator.card.get("command"),
            }
            for name, operator in evaluation.operators.items()
        },
    }


def report(evaluation: Evaluation, measured: Mapping[str, Mapping[str, Figures]], argv: list[str]) -> dict[str, Any]:
    """What is written as figures.json."""
    return {
        "command": command_of("camnet.evaluate", argv),
        **settings_of(evaluation),
        "cases": measured,
        "provenance": provenance(evaluation.config.device),
    }


def page(evaluation: Evaluation, rows: str, argv: list[str]) -> str:
    """What is written as table.md: the table, how it was made, and what its columns mean."""
    data, config = evaluation.data, evaluation.config
    meanings = "".join(f"- **{column.title}**: {column.meaning}.\n" for column in COLUMNS.values())
    return (
        f"# {', '.join(evaluation.operators)}\n\n{len(evaluation.x)} {config.split} images of {data.name}, "
        f"{data.size} × {data.size}; K = {config.k} restorations of each; seed {config.seed}. "
        f"d: `{evaluation.distance.name}`. Fréchet features: {features_name(evaluation)}.\n\n"
        f"    {command_of('camnet.evaluate', argv)}\n\n{rows}\n"
        f"Means over images unless said otherwise.\n\n{meanings}"
    )


def features_name(evaluation: Evaluation) -> str:
    """What stands beside Fréchet distances."""
    return f"{evaluation.frechet.name} pooled"


@within_memory("lower --batch")
def main(argv: list[str]) -> None:
    """Measure, write figures, table and sheet, print the table."""
    config = read(EvaluationConfig, argv, prog="python -m camnet.evaluate", description=str(EvaluationConfig.__doc__))
    evaluation = prepare(config, device.resolve(config.device))
    with explained(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    code = provenance(config.device)
    made_by = settings_of(evaluation) | {key: code[key] for key in ("commit", "changes", "versions", "device")}
    rows = unfinished.kept(config.out, made_by)
    if not rows and unfinished.file_in(config.out).exists():
        print(
            f"{config.out}: rows that were measured before had other settings, code or images: all anew",
            file=sys.stderr,
        )
    if rows:
        print(f"{config.out}: goes on after {sum(map(len, rows.values()))} rows that were measured before")
    measured: unfinished.Measured = {}  # what this command asks for: other --cases may have been measured before
    blocks = []
    images = len(evaluation.x) * sum(len(able) for _, able in evaluation.cases.values())
    with tqdm(total=images, desc="measuring", unit="image", leave=False) as bar:
        for case, who, values, block in evaluation.measure(rows, bar.update):
            rows.setdefault(case, {})[who] = values
            unfinished.keep(config.out, made_by, rows)
            measured.setdefault(case, {})[who] = values
            blocks.append(block)
    shown = table(measured)
    write_json(config.out / "figures.json", report(evaluation, measured, argv))
    write_atomically(config.out / "table.md", page(evaluation, shown, argv).encode())
    sheet.draw(blocks, max(2, len(evaluation.operators)), config.out / "sheet.png")
    unfinished.clear(config.out)
    print(f"{len(evaluation.x)} {config.split} images, K = {config.k}, d: {evaluation.distance.name}\n\n{shown}")
    print(f"{config.out}: figures.json, table.md (with what the columns mean), sheet.png")


if __name__ == "__main__":
    as_program("camnet.evaluate", main, "the rows measured so far are kept, and the same command goes on")
