"""The original code (MhLiao/DB), its forks with the same names, and EasyOCR's renamed copies of its files."""

from __future__ import annotations

from dbcpu.checkpoint.family import DROP_COUNTERS, Drop, Family, Rename

FAMILY = Family(
    name="original",
    title="the original DB code",
    explanation="MhLiao/DB, its forks and EasyOCR: blue, green, red with the original's means, short side 736",
    signature=(r"backbone\.(conv1|features\.0\.0)\.weight", r"decoder\.in5\.", r"decoder\.binarize\.0\.weight"),
    rules=(
        DROP_COUNTERS,
        Drop(r"^backbone\.fc\.", "classifier of ImageNet, never used for detection"),
        Drop(r"^backbone\.smooth\.", "left over in the original code, never used"),
        Drop(r"^backbone\.(features\.18|classifier)\.", "classifier of ImageNet, never used for detection"),
        Drop(r"^criterion\.", "belongs to the training loss"),
        Rename(r"backbone\.", "backbone."),
        Rename(r"decoder\.", "decoder."),
    ),
)
