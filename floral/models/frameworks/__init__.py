"""Models written in other libraries, as `Model`: flax linen, flax NNX, equinox, functions."""
