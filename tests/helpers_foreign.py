"Models of other libraries, with random weights"

import numpy as np
import torch
from helpers import IMPROVED, openai_state, rand

BETAS = dict(beta_start=0.005, beta_end=0.8)


def diffusers_unet(**kw):
    "A U-Net of diffusers for grey images of 16x16"
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    sizes = dict(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return UNet2DModel(**sizes | kw).eval()


def diffusers_scheduler(kind="DDPM", pred="epsilon"):
    "Twenty steps: 'DDPM', 'DDPM cosine' or 'DDIM'"
    from diffusers import DDIMScheduler, DDPMScheduler

    cls = DDIMScheduler if kind == "DDIM" else DDPMScheduler
    betas = dict(beta_schedule="squaredcos_cap_v2") if "cosine" in kind else BETAS
    return cls(num_train_timesteps=20, prediction_type=pred, **betas)


def saved_pipeline(folder, **kw):
    "A pipeline of diffusers, saved into a folder"
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline(diffusers_unet(**kw), diffusers_scheduler())
    pipeline.save_pretrained(folder)
    return pipeline


def given_models(folder):
    "Models of 16x16 pixels as a user has them, and images for them: words of a command line"
    saved_pipeline(folder / "pipeline")
    torch.save(openai_state(**IMPROVED, channels=1, out=2), folder / "theirs.pt")
    pixels = torch.nn.functional.interpolate(rand(60, 1, 4, 4), (16, 16)).clamp(0, 1)
    images = (255 * pixels[:, 0]).byte().numpy()
    np.savez(folder / "few.npz", images=images, labels=np.arange(60) % 3)
    told = "side=16,schedule=cosine,T=20,heads=4,time_scale=50"
    models = dict(
        diffusers=["--model", "pipeline"], openai=["--model", "theirs.pt", "--openai", told]
    )
    return {name: [*words, "--data", "few.npz"] for name, words in models.items()}
