"""The rows of the table of metrics that hold what a file says at a place against what the same file says here."""

from __future__ import annotations

from collections.abc import Mapping

from foundation.metric import Metric, for_both

PLACE_METRICS: Mapping[str, Metric] = {
    "place_agreement": Metric("share", True, "place", "places", "Agreement", for_both(
        "share of the answers, of labels the yes/no decisions, that a file gives there as it gives them here",
        "Agreement: share of the answers that are those of the same file here.")),
    "place_bit_equal": Metric("share", True, "place", "places", "Equal bit for bit", for_both(
        "share of the images whose logits there are those of the same file here, bit for bit")),
    "place_logits_sqnr_db": Metric("dB", True, "place", "places", "SQNR of the logits", for_both(
        "energy of a file's logits here over the energy of the deviation from them there; equal logits are read as "
        "144.5, what 24 bits can tell apart",
        "SQNR: power of a file's logits here over the power of the difference there; 20 dB is an error of a tenth."),
        of_scores=True),
    "place_largest_difference": Metric("logit", False, "place", "places", "Largest difference", for_both(
        "largest absolute difference of a logit there from that of the same file here"), of_scores=True),
    "place_saliency_spearman": Metric("correlation", True, "place", "places", "Maps, Spearman", for_both(
        "rank correlation of the maps that a file's saliency twin draws there with those that it draws here")),
    "place_saliency_top10_overlap": Metric("share", True, "place", "places", "Maps, top-10 % overlap", for_both(
        "share of the most important tenth of the pixels, by the twin's map here, that is kept there")),
}  # fmt: skip
"""Each is measured with `where.place` set; `accuracy` and the times carry it too, where they were measured there."""
