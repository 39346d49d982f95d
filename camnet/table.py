"""The figures of an evaluation: what they are called, what they mean, and how a table shows them."""

from collections.abc import Mapping

from training.markdown import Column, aligned

FRECHET_IMAGES = 200
"""Fewest images that a Fréchet distance is taken from: about twice as many as its features. Spectra need as many."""

COLUMNS = {
    "best_distance": Column("best d ↓", ".3f", "distance of the nearest of K restorations from the truth"),
    "mean_distance": Column("mean d", ".3f", "distance of all K restorations from the truth"),
    "local_distance": Column("local d ↓", ".3f", "distance of the nearest of K in each place of 8 x 8 pixels, mean of "
                             "the places: is the truth within reach place by place?"),
    "plain_distance": Column("plain d", ".3f", "distance of the plain fill from the truth: no generator; what is kept, "
                             "with hidden pixels in the mean visible color"),
    "best_psnr": Column("best PSNR ↑", ".2f", "peak signal-to-noise ratio of the best of K by PSNR, dB"),
    "mean_psnr": Column("mean PSNR", ".2f", "the same, mean of all K"),
    "best_ssim": Column("best SSIM ↑", ".3f", "structural similarity of the best of K by SSIM"),
    "mean_ssim": Column("mean SSIM", ".3f", "the same, mean of all K"),
    "coverage": Column("coverage ↑", ".1%", "images whose best d is below half of their plain d"),
    "diversity": Column("diversity", ".3f", "RMS over touched pixels of the standard deviation between restorations"),
    "feature_diversity": Column("feature div.", ".3f", "mean d between two restorations of an image"),
    "weighted_variance": Column("FWV ↑", ".3f", "mean of w d(restoration, mean restoration), w = exp(-d(restoration, "
                                "truth)² / 2σ²), σ = half of the case's mean plain d: diversity near the truth"),
    "hue_share": Column("hue", ".1%", "share of two restorations' squared difference that lies in hue"),
    "seam_ratio": Column("seams ↓", ".2f", "steps across borders of blocks over steps elsewhere, as a multiple of the "
                         "truth's, for blocks of 2 to 16 pixels whichever is most: 1 where no border shows"),
    "fringe_ratio": Column("fringes", ".2f", "color over lightness in the detail of the median place of 8 x 8 pixels, "
                           "as a multiple of the truth's: about 1 or less is natural, more is edges of wrong colors"),
    "residual": Column("residual ↓", ".1e", "largest disagreement of any restoration with what is known, pixel values"),
    "frechet_distance": Column("Fréchet ↓", ".4f", "between the true images and one restoration of each, on pooled "
                               f"features; from {FRECHET_IMAGES} images on; compare at equal n alone"),
    "power_ratio": Column("power", ".2f", "largest ratio, over spatial frequencies, of the restorations' mean power to "
                          "the truth's: about 1 or less is natural, more is a pattern (stripes, dots); from "
                          f"{FRECHET_IMAGES} images on"),
    "detail_ratio": Column("detail", ".2f", "the same ratio, geometric mean of all spatial frequencies: about 1 is "
                           f"natural, less is blur; from {FRECHET_IMAGES} images on"),
}  # fmt: skip
"""The figures in the table's order."""

Figures = dict[str, float]


def table(measured: Mapping[str, Mapping[str, Figures]]) -> str:
    """Figures as Markdown: a row for each case, and for each generator where there are several."""
    several = any(len(rows) > 1 for rows in measured.values())
    lines = [["case", *(["generator"] if several else []), *(column.title for column in COLUMNS.values())]]
    for case, rows in measured.items():
        for who, values in rows.items():
            cells = [format(values[name], column.form) if name in values else "–" for name, column in COLUMNS.items()]
            lines.append([case, *([who] if several else []), *cells])
    return aligned(lines)
