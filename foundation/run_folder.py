"""Where everything of a run lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run; nothing outside `root` is ever written."""

    root: Path

    @property
    def record(self) -> Path:
        """`run.json`, written last after each stage."""
        return self.root / "run.json"

    @property
    def own_folders(self) -> tuple[Path, ...]:
        """The folders that its stages fill."""
        return tuple(self.root / name for name in ("data", "train", "export", "quantize", "validate", "report"))

    @property
    def signature(self) -> Path:
        """The signature of `run.json`, where somebody signed it."""
        return self.root / "run.json.sig"

    @property
    def data(self) -> Path:
        """The decoded, split images and their manifest."""
        return self.root / "data"

    @property
    def checkpoint(self) -> Path:
        """The best network by validation data."""
        return self.root / "train" / "checkpoint.safetensors"

    @property
    def history(self) -> Path:
        """Loss and validation metric of each epoch."""
        return self.root / "train" / "history.json"

    @property
    def fp32(self) -> Path:
        """The plain float export, the baseline of every comparison."""
        return self.root / "export" / "fp32.onnx"

    def model(self, variant: str) -> Path:
        """Return the path of a variant's ONNX file."""
        return self.fp32 if variant == "fp32" else self.root / "quantize" / f"{variant}.onnx"

    def predictions(self, variant: str) -> Path:
        """Return the path of a variant's logits on the test images."""
        return self.root / "validate" / "predictions" / f"{variant}.npz"

    def validation_predictions(self, variant: str) -> Path:
        """Return the path of a variant's logits on the validation images."""
        return self.root / "validate" / "predictions" / "validation" / f"{variant}.npz"

    @property
    def operating_points(self) -> Path:
        """The threshold of each class, chosen with fp32."""
        return self.root / "validate" / "operating_points.json"

    def answers_under_change(self, variant: str) -> Path:
        """Return the path of a variant's logits on images that were made worse."""
        return self.root / "validate" / "predictions" / "changed" / f"{variant}.npz"

    def maps(self, variant: str, method: str) -> Path:
        """Return the path of a variant's saliency maps by a method."""
        folder = {"occlusion": "saliency", "gradient": "gradients"}.get(method, method)
        return self.root / "validate" / folder / f"{variant}.npz"

    def map_values(self, variant: str, method: str) -> Path:
        """Return the path of what every map of a variant by a method is worth, metric by metric."""
        return self.root / "validate" / "map_values" / f"{variant}.{method}.npz"

    @property
    def measurements(self) -> Path:
        """Every measurement, latency included."""
        return self.root / "validate" / "measurements.json"

    @property
    def places(self) -> Path:
        """The folder of what was measured at other places, one file each."""
        return self.root / "validate" / "places"

    @property
    def placement(self) -> Path:
        """Where every file's nodes ran."""
        return self.root / "validate" / "placement.json"

    @property
    def machine(self) -> Path:
        """The machine's state before and after the files were timed."""
        return self.root / "validate" / "machine.json"

    @property
    def image_by_image(self) -> Path:
        """The answers that changed, and the images whose maps are shown."""
        return self.root / "validate" / "image_by_image.json"

    @property
    def changes_table(self) -> Path:
        """Every answer of a variant that is not fp32's, as comma-separated values."""
        return self.root / "validate" / "changes.csv"

    @property
    def changes(self) -> Path:
        """The same with the counts of each variant, as JSON."""
        return self.root / "validate" / "changes.json"

    @property
    def reliability(self) -> Path:
        """The bins of every variant's reliability diagram."""
        return self.root / "validate" / "reliability.json"

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.root / "report"
