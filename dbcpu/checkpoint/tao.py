"""NVIDIA TAO OCDNet: the original's networks with neck and heads under names of their own."""

from __future__ import annotations

from dbcpu.checkpoint.family import DROP_COUNTERS, Drop, Family, Rename

FAMILY = Family(
    name="tao-ocdnet",
    title="NVIDIA TAO OCDNet",
    explanation="the original's networks with offset convolutions of stride 2",
    signature=(r"backbone\.conv1\.weight", r"neck\.in5\.", r"head\.binarize\.0\.weight"),
    rules=(
        DROP_COUNTERS,
        Drop(r"^backbone\.(fc|smooth)\.", "classifier of ImageNet or left over, never used for detection"),
        Rename(r"backbone\.", "backbone."),
        Rename(r"neck\.(?=in\d\.|out\d\.|concat_attention\.)", "decoder."),
        Rename(r"head\.(?=binarize\.|thresh\.)", "decoder."),
    ),
    offset_stride="strided",
)
