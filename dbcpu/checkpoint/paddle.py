"""PaddleOCR2Pytorch: DB++ with plain ResNet (not ResNet-vd) converted from PaddleOCR."""

from __future__ import annotations

import re

from dbcpu.checkpoint.family import DROP_COUNTERS, Family, Rename

_CONVS = {"0": "1", "1": "2", "2": "3"}  # of a block, counted from 0 there and from 1 in the original
_HEAD = {"conv1": "0", "conv_bn1": "1", "conv2": "3", "conv_bn2": "4", "conv3": "6"}
_PARTS = {
    "_conv.": "conv{}.",
    "_batch_norm.": "bn{}.",
    "_conv.conv_dcn.": "conv{}.",
    "_conv.conv_offset.": "conv{}_offset.",
}


def _block(match: re.Match[str]) -> str:
    """`backbone.stages.S.res{S+2}{a,b,..}.` or, in ResNet-101 and -152, `res4b{1,2,..}.`: block i of layer S+1."""
    letter, number = match["letter"], match["number"]
    index = int(number) if number else ord(letter) - ord("a")
    layer = int(match["stage"]) + 1
    if match["conv"] is None:
        return f"backbone.layer{layer}.{index}.downsample.{'0' if match['part'] == '_conv.' else '1'}."
    return f"backbone.layer{layer}.{index}.{_PARTS[match['part']].format(_CONVS[match['conv']])}"


def _head(match: re.Match[str]) -> str:
    return f"decoder.{match['head']}.{_HEAD[match['layer']]}."


FAMILY = Family(
    name="paddleocr2pytorch",
    title="PaddleOCR2Pytorch DB++",
    explanation="DB++ of PaddleOCR on plain ResNet: offset convolutions of stride 2, the original's normalisation",
    signature=(r"backbone\.stages\.0\.", r"neck\.in5_conv\.", r"head\.binarize\.conv1\."),
    rules=(
        DROP_COUNTERS,
        Rename(r"backbone\.conv\._conv\.", "backbone.conv1."),
        Rename(r"backbone\.conv\._batch_norm\.", "backbone.bn1."),
        Rename(
            r"backbone\.stages\.(?P<stage>\d)\.res\d(?P<letter>[a-z])(?P<number>\d*)\.(?:conv(?P<conv>[012])|short)\."
            r"(?P<part>_conv\.conv_dcn\.|_conv\.conv_offset\.|_conv\.|_batch_norm\.)",
            _block,
        ),
        Rename(r"neck\.in([2-5])_conv\.", r"decoder.in\1."),
        Rename(r"neck\.p2_conv\.", "decoder.out2."),
        Rename(r"neck\.p([345])_conv\.", r"decoder.out\1.0."),
        Rename(r"neck\.asf\.conv\.", "decoder.concat_attention.conv."),
        Rename(r"neck\.asf\.spatial_scale\.", "decoder.concat_attention.enhanced_attention.spatial_wise."),
        Rename(r"neck\.asf\.channel_scale\.", "decoder.concat_attention.enhanced_attention.attention_wise."),
        Rename(r"head\.(?P<head>binarize|thresh)\.(?P<layer>conv[123]|conv_bn[12])\.", _head),
    ),
    offset_stride="strided",
)
