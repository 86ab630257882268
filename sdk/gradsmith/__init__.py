"""Learned optimizers for PyTorch, and the client of the Gradsmith service that trains them.

`import gradsmith` alone loads neither torch nor httpx: each public name brings what it needs when it is touched.
"""

from __future__ import annotations
