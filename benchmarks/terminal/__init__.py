"""The command line as a person sees it: captured in real terminals, and how long its help takes."""
