"""Writes what timm computes for small transformers: weights, inputs, logits, gradients.

Not run by the tests, which read the files beside this script. To make them again:
    pip install timm==1.0.29
    python tests/golden/make_timm_golden.py
Weights and inputs are float32; timm computes in float64 from exactly these values. The loss is
sum(logits * loss_weight), its gradient is kept for every parameter as grad.<name>.
"""

import pathlib

import timm
import torch
from safetensors.torch import save_file
from timm.layers import set_fused_attn
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

FOLDER = pathlib.Path(__file__).parent


def draw_weights(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Large enough that every gradient matters; norms around 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if "norm" in name and name.endswith("weight"):
                values = 1 + 0.1 * values
            elif name.endswith("bias"):
                values = 0.05 * values
            else:
                values = 0.3 * values
            parameter.copy_(values)


def make(name: str, model: torch.nn.Module, classes: int, side: int, seed: int,
         with_image_gradient: bool, tap: str = "blocks.0") -> None:
    generator = torch.Generator().manual_seed(seed)
    draw_weights(model, generator)
    weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
    images = torch.randn(2, 3, side, side, generator=generator)
    loss_weight = torch.randn(2, classes, generator=generator)

    model = model.double().eval()
    taps = {}
    # As tokens (B, N, C), also where timm keeps a map (B, H, W, C).
    model.get_submodule(tap).register_forward_hook(
        lambda module, inputs, output: taps.update({tap: output.detach().flatten(1, -2)}))
    x = images.double().requires_grad_()
    logits = model(x)
    (logits * loss_weight.double()).sum().backward()

    output = {"logits": logits.detach(), **taps}
    for key, parameter in model.named_parameters():
        output[f"grad.{key}"] = parameter.grad
    if with_image_gradient:
        output["grad.images"] = x.grad
    made_by = {"made_by": f"timm {timm.__version__}, torch {torch.__version__}"}
    save_file(weights, FOLDER / f"{name}_weights.safetensors", made_by)
    save_file({"images": images, "loss_weight": loss_weight},
              FOLDER / f"{name}_input.safetensors", made_by)
    save_file({key: value.contiguous() for key, value in output.items()},
              FOLDER / f"{name}_output.safetensors", made_by)


def main() -> None:
    set_fused_attn(False)  # softmax(Q K^T / sqrt(d)) V as written
    torch.set_num_threads(1)
    make("vit", VisionTransformer(img_size=32, patch_size=4, embed_dim=18, depth=2, num_heads=3,
                                  num_classes=10),
         classes=10, side=32, seed=1, with_image_gradient=False)
    make("distilled", VisionTransformerDistilled(img_size=16, patch_size=4, embed_dim=12, depth=2,
                                                 num_heads=2, num_classes=10),
         classes=10, side=16, seed=2, with_image_gradient=True)
    # Its first stage has shifted windows, its second a single one.
    make("swin", SwinTransformer(img_size=16, patch_size=2, embed_dim=8, depths=(2, 1),
                                 num_heads=(2, 4), window_size=4, num_classes=5),
         classes=5, side=16, seed=3, with_image_gradient=True, tap="layers.0.blocks.1")


if __name__ == "__main__":
    main()
