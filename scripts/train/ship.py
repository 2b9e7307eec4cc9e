"""Write a trained checkpoint as the default model that the package carries.

    python -m scripts.train.ship RUN/best dbcpu/assets/default.safetensors --score-threshold 0.5

Convolutions are stored in float16, half the size; batch norms, a few kilobytes, stay as they are.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dbcpu.checkpoint.load import read_weights, require_finite
from dbcpu.checkpoint.native import write_model_file
from dbcpu.config import ModelConfig
from dbcpu.errors import UsageError
from dbcpu.overrides import apply_overrides
from scripts.train.command import errors_told
from scripts.train.crops import CropSettings


@errors_told()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("model_file", type=Path)
    parser.add_argument(
        "--average-with", type=Path, help="another checkpoint of such a network: the mean of both is written"
    )
    parser.add_argument("--short-side", type=int, default=CropSettings.short_side, help="(default: %(default)s)")
    parser.add_argument("--wide-short-side", type=int, help="see dbcpu.config.PreprocessConfig")
    parser.add_argument("--elongated-short-side", type=int, help="see dbcpu.config.PreprocessConfig")
    parser.add_argument("--binarize-threshold", type=float)
    parser.add_argument("--score-threshold", type=float)
    parser.add_argument(
        "--unclip-ratio", type=float, default=CropSettings.unclip_ratio, help="the inverse of the training's shrinking"
    )
    parser.add_argument("--max-candidates", type=int, help="specks that are no text count too: see PostprocessConfig")
    quad_of = "see dbcpu.config.PostprocessConfig (default: %(default)s)"
    parser.add_argument("--quad-of", choices=("contour", "polygon"), default="contour", help=quad_of)
    arguments = parser.parse_args()
    weights = read_weights(arguments.checkpoint)
    config = apply_overrides(
        weights.config,
        {
            "short_side": arguments.short_side,
            "binarize_threshold": arguments.binarize_threshold,
            "score_threshold": arguments.score_threshold,
            "unclip_ratio": arguments.unclip_ratio,
            "max_candidates": arguments.max_candidates,
        },
    )
    preprocess = replace(
        config.preprocess,
        wide_short_side=arguments.wide_short_side,
        elongated_short_side=arguments.elongated_short_side,
    )
    postprocess = replace(config.postprocess, quad_of=arguments.quad_of)
    # Inference has no use for the threshold head, and training goes on from the checkpoint, not from this file.
    kept = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith("decoder.thresh.")}
    if arguments.average_with:
        kept = average_tensors(kept, read_weights(arguments.average_with).tensors, arguments.average_with)
    tensors = {name: tensor.to(torch.float16) if tensor.ndim == 4 else tensor for name, tensor in kept.items()}
    require_finite(replace(weights, tensors=tensors))
    model: ModelConfig = replace(config.model, threshold_head=False, serial=False)
    origin = replace(weights.origin, file_name="trained by scripts/train", dropped=())
    config = replace(config, model=model, preprocess=preprocess, postprocess=postprocess)
    write_model_file(arguments.model_file, tensors, config, origin, replace=True)
    print(f"{arguments.model_file}: {arguments.model_file.stat().st_size / 1e6:.1f} MB")


def average_tensors(tensors: dict[str, Tensor], others: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Return the mean of tensors of the same names in float32; counters stay as they are.

    Raises:
        UsageError: one has no counterpart of its shape in `others`, which came from `where`.
    """
    for name, tensor in tensors.items():
        if name not in others or others[name].shape != tensor.shape:
            raise UsageError(f"of another network: no {name} of shape {list(tensor.shape)}", where=where)
    return {n: (t.float() + others[n].float()) / 2 if t.is_floating_point() else t for n, t in tensors.items()}


if __name__ == "__main__":
    main()
