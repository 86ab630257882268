"""What a result looks like: figures (PNG, SVG), a self-contained HTML page, a Markdown card."""
