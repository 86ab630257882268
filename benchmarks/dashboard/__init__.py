"""The dashboard in a real browser: pictures of every view, accessibility, a zoom of a million points, bytes."""
