"""The pipeline's stages, one file each; their public names are in `adamw_jax`."""
