"""Requests become jobs: what they resolve to, how they are written, and how workers hear of them."""
