"""Fused kernels: second tellings of the rules' math for particular hardware; tests hold each equal to the rule."""
