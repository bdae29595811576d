"""Every metric with its formula and its source, so that a reader needs no other page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foundation.metrics import METRICS, row_name
from reports.facts import Facts

SOURCES: Mapping[str, tuple[str, str]] = {
    "accuracy": ("right / n", "Metz 1978, Semin Nucl Med 8:283"),
    "balanced_accuracy": ("Σ sensitivity(c) / C", "Brodersen 2010, ICPR, 3121"),
    "auroc_macro": ("Σ AUROC(c) / C", "Hanley & McNeil 1982, Radiology 143:29"),
    "average_precision_macro": ("Σ AP(c) / C", "Davis & Goadrich 2006, ICML, 233"),
    "auroc/CLASS": (
        "P(score of the class > score of another) + ½ P(equal)",
        "Hanley & McNeil 1982, Radiology 143:29",
    ),
    "average_precision/CLASS": (
        "Σ precision at each image of the class / their number",
        "Davis & Goadrich 2006, ICML, 233",
    ),
    "sensitivity/CLASS": ("TP / (TP + FN)", "Altman & Bland 1994, BMJ 308:1552"),
    "specificity/CLASS": ("TN / (TN + FP)", "Altman & Bland 1994, BMJ 308:1552"),
    "ece": ("Σ (n_b / n) · |right_b − confidence_b|, 15 bins", "Guo 2017, ICML, 1321"),
    "brier": ("Σ (p_c − y_c)² / n", "Brier 1950, Mon Weather Rev 78:1"),
    "agreement": ("answers equal to fp32's / n", "this report"),
    "logits_sqnr_db": ("10 · log₁₀(Σ fp32² / Σ (variant − fp32)²)", "Widrow & Kollár 2008, Quantization Noise"),
    "calibration_slope/CLASS": ("b of logit P(y) = a + b · log-odds", "Cox 1958, Biometrika 45:562"),
    "calibration_intercept/CLASS": ("a of logit P(y) = a + log-odds", "Cox 1958, Biometrika 45:562"),
    "sensitivity_at_threshold/CLASS": ("TP / (TP + FN) where p ≥ t", "Altman & Bland 1994, BMJ 308:1552"),
    "specificity_at_threshold/CLASS": ("TN / (TN + FP) where p < t", "Altman & Bland 1994, BMJ 308:1552"),
    "ppv_at_threshold/CLASS": ("se·π / (se·π + (1 − sp)·(1 − π))", "Altman & Bland 1994, BMJ 309:102"),
    "npv_at_threshold/CLASS": ("sp·(1 − π) / (sp·(1 − π) + (1 − se)·π)", "Altman & Bland 1994, BMJ 309:102"),
    "lr_positive_at_threshold/CLASS": ("se / (1 − sp)", "Deeks & Altman 2004, BMJ 329:168"),
    "lr_negative_at_threshold/CLASS": ("(1 − se) / sp", "Deeks & Altman 2004, BMJ 329:168"),
    "own_threshold/CLASS": ("t by the rule, on this file's validation answers", "Youden 1950, Cancer 3:32"),
    "robust_accuracy": ("right / n on images made worse", "Hendrycks & Dietterich 2019, ICLR"),
    "robust_agreement": ("answers equal to fp32's / n on images made worse", "Hendrycks & Dietterich 2019, ICLR"),
    "size_bytes": ("bytes of the file", "this report"),
    "size_against_fp32": ("bytes / fp32's bytes", "this report"),
    "latency_p50_ms": ("50th percentile of the calls' times", "MLPerf Inference, Reddi 2020, ISCA"),
    "latency_p90_ms": ("90th percentile of the calls' times", "MLPerf Inference, Reddi 2020, ISCA"),
    "latency_p99_ms": ("99th percentile of the calls' times", "MLPerf Inference, Reddi 2020, ISCA"),
    "latency_speedup": ("exp(mean log(fp32's time / its time)) over processes", "Kalibera & Jones 2013, ISMM, 63"),
    "latency_against_kernel": (
        "exp(mean log(kernel's time / its time)) over processes",
        "Kalibera & Jones 2013, ISMM, 63",
    ),
    "throughput_images_per_s": ("images / s, one query after the other", "MLPerf Inference, Reddi 2020, ISCA"),
    "preprocessing_ms": ("time from pixels to the tensor", "this report"),
    "load_ms": ("time from the file to a session", "this report"),
    "first_inference_ms": ("time of a session's first query", "this report"),
    "peak_memory_bytes": ("highest resident memory − that before the file", "this report"),
    "place_agreement": ("answers equal to those of the same file here / n", "this report"),
    "place_bit_equal": ("images whose logits are the same bits as here / n", "this report"),
    "place_logits_sqnr_db": ("10 · log₁₀(Σ here² / Σ (there − here)²)", "Widrow & Kollár 2008, Quantization Noise"),
    "place_largest_difference": ("max |there − here| over images and logits", "this report"),
    "place_saliency_spearman": ("Spearman's ρ of the maps there and here, mean", "Adebayo 2018, NeurIPS"),
    "place_saliency_top10_overlap": ("|top tenth there ∩ here| / |top tenth|, mean", "Ghorbani 2019, AAAI, 3681"),
    "saliency_spearman": ("Spearman's ρ of the pixels of both maps, mean", "Adebayo 2018, NeurIPS"),
    "saliency_ssim": ("SSIM of both maps, mean", "Wang 2004, IEEE TIP 13:600"),
    "saliency_top10_overlap": ("|top tenth ∩ fp32's| / |top tenth|, mean", "Ghorbani 2019, AAAI, 3681"),
    "sanity_spearman": ("ρ of |map| with |map of random weights|, mean", "Adebayo 2018, NeurIPS"),
    "cascade_spearman": ("the same, the topmost layers random", "Adebayo 2018, NeurIPS"),
    "deletion_auc": ("mean probability as the most salient pixels go", "Petsiuk 2018, BMVC"),
    "insertion_auc": ("mean probability as the most salient pixels come", "Petsiuk 2018, BMVC"),
    "pointing_game": ("peak in the mask / n", "Zhang 2018, IJCV 126:1084"),
    "mass_in_mask": ("Σ map in the mask / Σ map, mean", "Wang 2020, CVPRW, 111"),
    "iou_at_mask_area": (
        "|top pixels ∩ mask| / |top pixels ∪ mask|, as many as the mask has",
        "Saporta 2022, Nat Mach Intell 4:867",
    ),
    "pixel_auroc": ("AUROC of the pixels, mask against the rest, mean", "Simonyan 2014, ICLR workshop"),
    "topk_in_mask": ("|top tenth ∩ mask| / |top tenth|, mean", "Arras 2022, Inf Fusion 81:14"),
    "sparseness": ("Gini index of |map|, mean", "Chalasani 2020, ICML, 1383"),
    "max_sensitivity": ("max over small noise of ‖map − map′‖ / ‖map‖", "Yeh 2019, NeurIPS"),
    "completeness_error": ("|Σ map − (f(x) − f(baseline))| / |f(x) − f(baseline)|", "Sundararajan 2017, ICML, 3319"),
}
"""Metric → its formula and where it comes from; a test asks for one per row of the table of metrics."""


@dataclass(frozen=True)
class Term:
    """One entry."""

    key: str
    heading: str
    meaning: str
    formula: str
    source: str
    better: str


def glossary(facts: Facts) -> tuple[Term, ...]:
    """Return the metrics that the run measured or was to measure, in the order of the table of metrics."""
    asked = {row_name(one.metric) for one in facts.measured_everywhere}
    terms = []
    for name, row in METRICS.items():
        definition = row.definitions.get(facts.task)
        if name in asked and definition is not None:
            formula, source = SOURCES.get(name, ("", ""))
            meaning = definition.meaning.replace("`", "")
            better = "more is better" if row.higher_is_better else "less is better"
            heading = f"{row.heading} (per class)" if name.endswith("/CLASS") else row.heading
            terms.append(Term(term_id(name), heading, meaning, formula, source, better))
    return tuple(terms)


def term_id(metric: str) -> str:
    """Return the id of a metric's entry."""
    return f"term-{row_name(metric).replace('/CLASS', '').replace('_', '-')}"


def terms_by_heading(facts: Facts) -> dict[str, str]:
    """Return heading → id of its entry, for the headings of tables; where two share one, the plainer metric's."""
    found: dict[str, str] = {}
    asked = {row_name(one.metric) for one in facts.measured_everywhere}
    for name, row in METRICS.items():
        if name in asked and facts.task in row.definitions:
            found.setdefault(row.heading, term_id(name))
    return found
