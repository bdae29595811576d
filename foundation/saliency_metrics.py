"""The rows of the table of metrics that are computed from saliency maps, in the order of the report."""

from __future__ import annotations

from collections.abc import Mapping

from foundation.metric import Definition, Metric, for_both

SALIENCY_METRICS: Mapping[str, Metric] = {
    "saliency_spearman": Metric("correlation", True, "maps", "likeness", "Spearman", for_both(
        "rank correlation of the saliency maps with fp32's"), against_fp32=True),
    "saliency_ssim": Metric("similarity", True, "maps", "likeness", "SSIM", for_both(
        "structural similarity of the saliency maps with fp32's"), against_fp32=True),
    "saliency_top10_overlap": Metric("share", True, "maps", "likeness", "Top-10 % overlap", for_both(
        "share of fp32's most important tenth of the pixels that is kept"), against_fp32=True),
    "sanity_spearman": Metric("correlation", False, "randomised", "sanity", "Sanity check", for_both(
        "rank correlation of the saliency maps' magnitudes with those of the same file after its weights were put in "
        "a random order; near 1 a map shows the image and not what the network learned",
        "fp32's weights are put in a random order, layer by layer, and the maps of both files compared: the mean "
        "over the images of the rank correlation of the maps' magnitudes; low is good. A method that stays near 1 "
        "shows the image and not what the network learned. Random map and centre prior are held against the same "
        "maps: what a map scores that knows neither. Each image counts with its mean over several such orders, and "
        "intervals are those of the images.")),
    "cascade_spearman": Metric("correlation", False, "cascade", "cascade", "Cascading sanity check", for_both(
        "rank correlation of the saliency maps' magnitudes with those of the same file after the weights of its "
        "topmost layers were put in a random order",
        "From the answer down, the weights of one layer after another are put in a random order and stay so. A map "
        "that shows what the network learned leaves the real one behind early.")),
    "deletion_auc": Metric("probability", False, "perturbed", "faithfulness", "Deletion AUC", for_both(
        "mean probability of the explained class while the most salient pixels go first",
        "Deletion AUC, low is good, and insertion AUC, high is good: mean probability that the file itself gives the "
        "explained class while the map's highest pixels go first, or come first."), of_scores=True),
    "insertion_auc": Metric("probability", True, "perturbed", "faithfulness", "Insertion AUC", for_both(
        "mean probability of the explained class while the most salient pixels come first"), of_scores=True),
    "pointing_game": Metric("share", True, "masks", "in_mask", "Pointing game", {
        "multi_class": Definition(
            "share of the maps whose maximum lies inside the lesion's mask, of pixels that share it their share; "
            "a map explains fp32's answer, also where "
            "it is wrong", "Pointing game: share of images whose map peaks inside the lesion."),
        "multi_label": Definition(
            "share of the maps whose maximum lies inside the finding's mask, of pixels that share it their share; "
            "a map explains the finding that the "
            "mask shows", "Pointing game: share of images whose map peaks inside the finding."),
    }),
    "mass_in_mask": Metric("share", True, "masks", "in_mask", "Mass in mask", {
        "multi_class": Definition(
            "share of the positive relevance that lies inside the lesion's mask; a map explains fp32's answer, also "
            "where it is wrong", "Mass in mask: share of the map's weight inside the lesion."),
        "multi_label": Definition(
            "share of the positive relevance that lies inside the finding's mask; a map explains the finding that "
            "the mask shows", "Mass in mask: share of the map's weight inside the finding."),
    }),
    "iou_at_mask_area": Metric("share", True, "masks", "in_mask", "IoU at mask area", {
        "multi_class": Definition(
            "intersection over union of the lesion's mask and the map's highest pixels, as many as the mask has; a "
            "map explains fp32's answer, also where it is wrong",
            "IoU at mask area: of the lesion and as many of the map's highest pixels as it has."),
        "multi_label": Definition(
            "intersection over union of the finding's mask and the map's highest pixels, as many as the mask has; a "
            "map explains the finding that the mask shows",
            "IoU at mask area: of the finding and as many of the map's highest pixels as it has."),
    }),
    "pixel_auroc": Metric("share", True, "masks", "in_mask", "Pixel AUROC", {
        "multi_class": Definition(
            "probability that a pixel of the lesion's mask is more salient than one outside; a map explains fp32's "
            "answer, also where it is wrong",
            "Pixel AUROC: chance that a pixel of the lesion outranks one outside it; 0.5 where the map knows "
            "nothing."),
        "multi_label": Definition(
            "probability that a pixel of the finding's mask is more salient than one outside; a map explains the "
            "finding that the mask shows",
            "Pixel AUROC: chance that a pixel of the finding outranks one outside it; 0.5 where the map knows "
            "nothing."),
    }, "probability"),
    "topk_in_mask": Metric("share", True, "masks", "in_mask", "Top 10 % in mask", {
        "multi_class": Definition(
            "share of the map's highest tenth of the pixels that lies inside the lesion's mask; a map explains "
            "fp32's answer, also where it is wrong",
            "Top 10 % in mask: share of the map's highest tenth of the pixels inside the lesion, which a smaller "
            "lesion cannot fill."),
        "multi_label": Definition(
            "share of the map's highest tenth of the pixels that lies inside the finding's mask; a map explains the "
            "finding that the mask shows",
            "Top 10 % in mask: share of the map's highest tenth of the pixels inside the finding, which a smaller "
            "finding cannot fill."),
    }),
    "sparseness": Metric("index", True, "maps", "shape", "Sparseness", for_both(
        "Gini index of the map's magnitudes: 0 where every pixel counts alike, near 1 where a single one does",
        "Sparseness: Gini index of the map's magnitudes, 0 to 1. It says how concentrated a map is, not whether it "
        "is right."), "probability"),
    "max_sensitivity": Metric("ratio", False, "noise", "shape", "Max-sensitivity", for_both(
        "largest change of a map under noise of a few gray values, over the map's own size",
        "Max-sensitivity, low is good: how far a map moves under noise that no one sees, over its own size.")),
    "completeness_error": Metric("logits", False, "path", "shape", "Completeness error", for_both(
        "difference between what a map adds up to and what the logit gains over an image of the mean colour",
        "Completeness error, low is good: by how many logits a map misses what it should add up to.")),
}  # fmt: skip
